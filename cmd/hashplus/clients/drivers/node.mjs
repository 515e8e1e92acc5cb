// MQTT.js on Node.
import mqtt from 'mqtt'
import { emit, serve } from './lines.mjs'
import { MQTTJS } from './mqttjs.mjs'

const driver = new MQTTJS(mqtt, emit)
serve((request) => driver.handle(request))
