// The browser library paho-mqtt as a driver.

const encode = (bytes) => {
  let text = ''
  for (const byte of bytes) text += String.fromCharCode(byte)
  return btoa(text)
}
const decode = (base64) => Uint8Array.from(atob(base64 ?? ''), (c) => c.charCodeAt(0))

export class PahoJS {
  constructor(library, emit) {
    this.library = library
    this.emit = emit
    this.clients = new Map()
  }

  message(from) {
    const message = new this.library.Message(decode(from.payload))
    message.destinationName = from.topic
    message.qos = from.qos ?? 0
    message.retained = from.retain ?? false
    return message
  }

  async handle(request) {
    const args = request.args ?? {}
    if (request.op === 'connect') return this.connect(request.client, args)
    const entry = this.clients.get(request.client)
    if (!entry) throw new Error(`no client ${request.client}`)
    const { client, delivered } = entry
    switch (request.op) {
      case 'subscribe':
        return new Promise((resolve, reject) =>
          client.subscribe(args.filter, {
            qos: args.qos,
            onSuccess: ({ grantedQos }) => resolve({ granted: Number(grantedQos?.[0] ?? grantedQos) }),
            onFailure: ({ errorCode, errorMessage }) =>
              errorCode?.[0] >= 0x80 ? resolve({ granted: errorCode[0] }) : reject(new Error(errorMessage)),
          }),
        )
      case 'unsubscribe':
        return new Promise((resolve, reject) =>
          client.unsubscribe(args.filter, {
            onSuccess: () => resolve({}),
            onFailure: ({ errorMessage }) => reject(new Error(errorMessage)),
          }),
        )
      case 'publish':
        return new Promise((resolve) => {
          const message = this.message(args)
          delivered.set(message, resolve)
          client.send(message)
        })
      case 'disconnect':
        this.clients.delete(request.client)
        client.disconnect()
        return {}
    }
    throw new Error(`no operation ${request.op}`)
  }

  connect(id, args) {
    const client = new this.library.Client(args.url, args.clientId)
    const delivered = new Map()
    client.onMessageDelivered = (message) => {
      delivered.get(message)?.({})
      delivered.delete(message)
    }
    client.onMessageArrived = (message) =>
      this.emit({
        client: id,
        event: 'message',
        topic: message.destinationName,
        payload: encode(message.payloadBytes),
        qos: message.qos,
        retain: message.retained,
        duplicate: message.duplicate,
      })
    client.onConnectionLost = () => this.emit({ client: id, event: 'down' })
    client.onConnected = (again) => {
      if (again) this.emit({ client: id, event: 'up' })
    }
    const options = {
      mqttVersion: args.version,
      cleanSession: !args.keep,
      keepAliveInterval: args.keepAlive,
      timeout: 10, // also how long it takes to try again: while it reconnects, it ignores errors of sockets
      reconnect: true,
    }
    if (args.will) options.willMessage = this.message(args.will)
    return new Promise((resolve, reject) => {
      options.onSuccess = () => {
        this.clients.set(id, { client, delivered })
        resolve({})
      }
      options.onFailure = ({ errorCode, errorMessage }) => reject(new Error(`${errorCode} ${errorMessage}`))
      client.connect(options)
    })
  }
}
