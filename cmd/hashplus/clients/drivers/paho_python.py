"""paho-mqtt for Python (Debian's python3-paho-mqtt, 1.6) as a driver.

One JSON request a line on standard input, one JSON answer or event a line on
standard output, see drivers_test.go.
"""

import base64
import json
import ssl
import sys
import tempfile
import threading
from urllib.parse import urlparse

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

_write = threading.Lock()


def tls_context(args):
    context = ssl.create_default_context(cadata=args["ca"])
    if args.get("certificate"):
        # The ssl module takes files only.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as f:
            f.write(args["certificate"] + args["key"])
            f.flush()
            context.load_cert_chain(f.name)
    return context


def emit(event):
    with _write:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


def encode(data):
    return base64.b64encode(data).decode()


def properties_of(message):
    found = getattr(message, "properties", None)
    if found is None:
        return None
    names = {
        "responseTopic": "ResponseTopic",
        "contentType": "ContentType",
        "expiry": "MessageExpiryInterval",
        "subscriptions": "SubscriptionIdentifier",
    }
    out = {ours: getattr(found, theirs) for ours, theirs in names.items() if hasattr(found, theirs)}
    if hasattr(found, "PayloadFormatIndicator"):
        out["utf8"] = found.PayloadFormatIndicator == 1
    if hasattr(found, "CorrelationData"):
        out["correlation"] = encode(found.CorrelationData)
    out["user"] = [list(pair) for pair in getattr(found, "UserProperty", [])]
    return out


def publish_properties(wanted, packet):
    if not wanted:
        return None
    out = Properties(packet)
    if wanted.get("responseTopic"):
        out.ResponseTopic = wanted["responseTopic"]
    if wanted.get("correlation"):
        out.CorrelationData = base64.b64decode(wanted["correlation"])
    if wanted.get("contentType"):
        out.ContentType = wanted["contentType"]
    if wanted.get("utf8"):
        out.PayloadFormatIndicator = 1
    if wanted.get("expiry"):
        out.MessageExpiryInterval = wanted["expiry"]
    for key, value in wanted.get("user") or []:
        out.UserProperty = (key, value)
    return out


class Client:
    """One paho client. Answers to requests are given by paho's callbacks."""

    def __init__(self, name):
        self.name = name
        self.lock = threading.Lock()
        self.waiting = {}  # packet id: id of the request that waits for its ack
        self.early = {}  # packet id: answer that came before publish returned
        self.connecting = None

    def connect(self, request, args):
        self.v5 = args["version"] == 5
        url = urlparse(args["url"])
        keep = args.get("keep", False)
        how = {} if self.v5 else {"clean_session": not keep}
        self.paho = mqtt.Client(
            args["clientId"],
            protocol={3: mqtt.MQTTv31, 4: mqtt.MQTTv311, 5: mqtt.MQTTv5}[args["version"]],
            transport="websockets" if url.scheme in ("ws", "wss") else "tcp",
            **how,
        )
        if url.scheme in ("ws", "wss"):
            self.paho.ws_set_options(path=url.path or "/")
        if args.get("ca"):
            self.paho.tls_set_context(tls_context(args))
        self.paho.reconnect_delay_set(min_delay=0.15, max_delay=0.3)
        self.paho.max_inflight_messages_set(100)
        self.paho.on_connect = self.on_connect
        self.paho.on_disconnect = self.on_disconnect
        self.paho.on_message = self.on_message
        self.paho.on_publish = lambda _client, _user, mid: self.answer(mid, {})
        self.paho.on_subscribe = self.on_subscribe
        self.paho.on_unsubscribe = lambda _client, _user, mid, *_rest: self.answer(mid, {})
        will = args.get("will")
        if will:
            more = {}
            if self.v5:
                more["properties"] = publish_properties(will.get("properties"), PacketTypes.WILLMESSAGE)
            self.paho.will_set(will["topic"], base64.b64decode(will.get("payload") or ""), will.get("qos", 0), will.get("retain", False), **more)
        more = {}
        if self.v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 300 if keep else 0
            if args.get("responseInformation"):
                properties.RequestResponseInformation = 1
            more = {"clean_start": not keep, "properties": properties}
        self.connecting = request
        self.paho.connect(url.hostname, url.port, args["keepAlive"], **more)
        self.paho.loop_start()

    def on_connect(self, _client, _user, flags, code, properties=None):
        code = getattr(code, "value", code)
        up = {"session": bool(flags["session present"])}
        if hasattr(properties, "ResponseInformation"):
            up["responseInformation"] = properties.ResponseInformation
        request, self.connecting = self.connecting, None
        if request is None:
            emit({"client": self.name, "event": "up", **up})
        elif code == 0:
            emit({"id": request, "result": up})
        else:
            emit({"id": request, "error": "refused with %d" % code})

    def on_disconnect(self, _client, _user, code, _properties=None):
        emit({"client": self.name, "event": "down", "reason": getattr(code, "value", code)})

    def on_message(self, _client, _user, message):
        emit({
            "client": self.name,
            "event": "message",
            "topic": message.topic,
            "payload": encode(message.payload),
            "qos": message.qos,
            "retain": bool(message.retain),
            "duplicate": bool(message.dup),
            "properties": properties_of(message),
        })

    def on_subscribe(self, _client, _user, mid, granted, _properties=None):
        self.answer(mid, {"granted": getattr(granted[0], "value", granted[0])})

    def answer(self, mid, result):
        with self.lock:
            request = self.waiting.pop(mid, None)
            if request is None:
                self.early[mid] = result
                return
        emit({"id": request, "result": result})

    def await_ack(self, request, returned):
        code, mid = returned[0], returned[1]
        if code != mqtt.MQTT_ERR_SUCCESS:
            emit({"id": request, "error": mqtt.error_string(code)})
            return
        with self.lock:
            result = self.early.pop(mid, None)
            if result is None:
                self.waiting[mid] = request
                return
        emit({"id": request, "result": result})

    def subscribe(self, request, args):
        if self.v5:
            options = SubscribeOptions(args["qos"], args.get("noLocal", False), args.get("retainAsPublished", False))
            properties = None
            if args.get("identifier"):
                properties = Properties(PacketTypes.SUBSCRIBE)
                properties.SubscriptionIdentifier = args["identifier"]
            self.await_ack(request, self.paho.subscribe(args["filter"], options=options, properties=properties))
        else:
            self.await_ack(request, self.paho.subscribe(args["filter"], args["qos"]))

    def unsubscribe(self, request, args):
        self.await_ack(request, self.paho.unsubscribe(args["filter"]))

    def publish(self, request, args):
        more = {}
        if self.v5:
            more["properties"] = publish_properties(args.get("properties"), PacketTypes.PUBLISH)
        payload = base64.b64decode(args.get("payload") or "")
        self.await_ack(request, self.paho.publish(args["topic"], payload, args.get("qos", 0), args.get("retain", False), **more))

    def disconnect(self, request, _args):
        self.paho.disconnect()
        self.paho.loop_stop()
        emit({"id": request, "result": {}})


def main():
    clients = {}
    for line in sys.stdin:
        request = json.loads(line)
        name, op, args = request["client"], request["op"], request.get("args") or {}
        try:
            if op == "connect":
                clients[name] = Client(name)
            getattr(clients[name], op)(request["id"], args)
        except Exception as error:  # every failure of the library is the test's to judge
            emit({"id": request["id"], "error": repr(error)})


main()
