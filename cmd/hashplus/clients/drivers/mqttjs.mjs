// MQTT.js as a driver, the same code for Node and for a browser: connects,
// subscribes and publishes as the requests of the line protocol say, and
// reports messages and the state of the connection as events.

const encode = (bytes) => {
  let text = ''
  for (const byte of bytes) text += String.fromCharCode(byte)
  return btoa(text)
}
const decode = (base64) => Uint8Array.from(atob(base64 ?? ''), (c) => c.charCodeAt(0))

// bytes gives what MQTT.js takes as binary: a Buffer in Node, a Uint8Array in
// a browser.
const bytes = (base64) => (typeof Buffer === 'undefined' ? decode(base64) : Buffer.from(base64 ?? '', 'base64'))

const pairs = (object) =>
  Object.entries(object ?? {}).flatMap(([key, value]) => [value].flat().map((one) => [key, one]))

function grouped(list) {
  const object = {}
  for (const [key, value] of list) {
    object[key] = key in object ? [object[key], value].flat() : value
  }
  return object
}

function propertiesOf(packet) {
  const p = packet.properties
  if (!p) return undefined
  return {
    responseTopic: p.responseTopic,
    correlation: p.correlationData && encode(p.correlationData),
    contentType: p.contentType,
    utf8: p.payloadFormatIndicator,
    expiry: p.messageExpiryInterval,
    user: pairs(p.userProperties),
    subscriptions: p.subscriptionIdentifier === undefined ? undefined : [p.subscriptionIdentifier].flat(),
    alias: p.topicAlias,
  }
}

function publishProperties(from) {
  if (!from) return undefined
  const to = {}
  if (from.responseTopic) to.responseTopic = from.responseTopic
  if (from.correlation) to.correlationData = bytes(from.correlation)
  if (from.contentType) to.contentType = from.contentType
  if (from.utf8) to.payloadFormatIndicator = true
  if (from.expiry) to.messageExpiryInterval = from.expiry
  if (from.user?.length) to.userProperties = grouped(from.user)
  return to
}

export class MQTTJS {
  constructor(library, emit) {
    this.library = library
    this.emit = emit
    this.clients = new Map()
  }

  async handle(request) {
    const args = request.args ?? {}
    if (request.op === 'connect') return this.connect(request.client, args)
    const client = this.clients.get(request.client)
    if (!client) throw new Error(`no client ${request.client}`)
    switch (request.op) {
      case 'subscribe': {
        const options = { qos: args.qos, nl: args.noLocal, rap: args.retainAsPublished }
        if (args.identifier) options.properties = { subscriptionIdentifier: args.identifier }
        return new Promise((resolve, reject) =>
          client.subscribe(args.filter, options, (error, granted, packet) => {
            const code = packet?.granted?.[0] ?? granted?.[0]?.qos
            if (code === undefined) reject(error ?? new Error('no grant'))
            else resolve({ granted: code })
          }),
        )
      }
      case 'unsubscribe':
        await client.unsubscribeAsync(args.filter)
        return {}
      case 'publish':
        await client.publishAsync(args.topic, bytes(args.payload), {
          qos: args.qos,
          retain: args.retain,
          properties: client.options.protocolVersion === 5 ? publishProperties(args.properties) : undefined,
        })
        return {}
      case 'renew':
        // MQTT.js answers exchanges, but has no call to begin one.
        return new Promise((resolve, reject) => {
          client.handleAuth = (packet, done) => {
            done()
            resolve({})
          }
          client.once('close', () => reject(new Error('the connection ended')))
          const properties = { authenticationMethod: 'JWT', authenticationData: bytes(btoa(args.token)) }
          client._sendPacket({ cmd: 'auth', reasonCode: 0x19, properties })
        })
      case 'disconnect':
        this.clients.delete(request.client)
        await client.endAsync(false)
        return {}
    }
    throw new Error(`no operation ${request.op}`)
  }

  connect(id, args) {
    const v5 = args.version === 5
    const options = {
      clientId: args.clientId,
      protocolVersion: args.version,
      protocolId: args.version === 3 ? 'MQIsdp' : 'MQTT',
      clean: !args.keep,
      keepalive: args.keepAlive,
      reschedulePings: true,
      connectTimeout: 60000,
      reconnectPeriod: 150,
      resubscribe: false,
    }
    if (v5) {
      options.properties = { sessionExpiryInterval: args.keep ? 300 : 0 }
      if (args.responseInformation) options.properties.requestResponseInformation = true
      if (args.aliases) {
        options.properties.topicAliasMaximum = args.aliases
        options.autoAssignTopicAlias = true
      }
    }
    if (args.ca) options.ca = [args.ca]
    if (args.certificate) {
      options.cert = args.certificate
      options.key = args.key
    }
    if (args.username) options.username = args.username
    if (args.password) options.password = args.password
    if (args.bearer) options.wsOptions = { headers: { Authorization: `Bearer ${args.bearer}` } }
    if (args.subprotocol) {
      options.createWebsocket = (url, protocols) => new WebSocket(url, [...protocols, args.subprotocol])
    }
    if (args.renewable) {
      options.properties.authenticationMethod = 'JWT'
      if (args.token) options.properties.authenticationData = bytes(btoa(args.token))
    }
    if (args.will) {
      const { topic, payload, qos, retain, properties } = args.will
      options.will = { topic, payload: bytes(payload), qos, retain, properties: v5 ? publishProperties(properties) : undefined }
    }
    return new Promise((resolve, reject) => {
      const client = this.library.connect(args.url, options)
      let up = false
      client.on('connect', (connack) => {
        const event = {
          session: connack.sessionPresent,
          responseInformation: connack.properties?.responseInformation,
        }
        if (up) this.emit({ client: id, event: 'up', ...event })
        up = true
        this.clients.set(id, client)
        resolve(event)
      })
      client.on('message', (topic, payload, packet) =>
        this.emit({
          client: id,
          event: 'message',
          topic,
          payload: encode(payload),
          qos: packet.qos,
          retain: packet.retain,
          duplicate: packet.dup,
          properties: propertiesOf(packet),
        }),
      )
      client.on('disconnect', (packet) => this.emit({ client: id, event: 'disconnect', reason: packet.reasonCode ?? 0 }))
      client.on('close', () => this.emit({ client: id, event: 'down' }))
      client.on('error', (error) => {
        if (up) return
        client.end(true)
        reject(error)
      })
      client.stream.on('error', () => {})
    })
  }
}
