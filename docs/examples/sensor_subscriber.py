#!/usr/bin/env python3
"""Prints what sensors publish: subscribes to sensor/# over WebSocket.

    python3 sensor_subscriber.py [URL]

URL is ws://127.0.0.1:8083/mqtt unless given. The session is kept for ten
minutes, so after a short loss of the network nothing published at QoS 1 is
missing: paho connects again on its own, and the broker sends what it kept.

Needs paho-mqtt, 1.6 or 2 (Debian: python3-paho-mqtt).
"""

import sys
from urllib.parse import urlparse

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def on_connect(client, _userdata, _flags, reason, _properties):
    print(f"connected: {reason}", flush=True)
    client.subscribe("sensor/#", qos=1)


def on_subscribe(_client, _userdata, _packet_id, reasons, _properties):
    print(f"subscribed to sensor/#: {reasons[0]}", flush=True)


def on_message(_client, _userdata, message):
    print(f"{message.topic} {message.payload.decode(errors='replace')}", flush=True)


def main():
    url = urlparse(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8083/mqtt")
    options = {"client_id": "sensor-subscriber", "transport": "websockets", "protocol": mqtt.MQTTv5}
    if hasattr(mqtt, "CallbackAPIVersion"):  # paho-mqtt 2
        options["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION2
    client = mqtt.Client(**options)
    client.ws_set_options(path=url.path or "/")
    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_message = on_message

    session = Properties(PacketTypes.CONNECT)
    session.SessionExpiryInterval = 600
    client.connect(url.hostname, url.port or 80, keepalive=30, clean_start=False, properties=session)
    client.loop_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
