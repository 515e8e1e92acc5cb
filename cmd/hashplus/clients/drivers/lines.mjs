// The line protocol of a driver, see drivers_test.go: one JSON request a line
// on standard input, one JSON answer or event a line on standard output.
import { createInterface } from 'node:readline'

export function emit(event) {
  process.stdout.write(JSON.stringify(event) + '\n')
}

// serve calls handle for every request and answers with what it resolves to.
// Requests overlap: a slow one does not hold up the next. It ends the process
// when standard input ends, after close.
export function serve(handle, close = async () => {}) {
  const input = createInterface({ input: process.stdin })
  input.on('line', (line) => {
    const request = JSON.parse(line)
    Promise.resolve()
      .then(() => handle(request))
      .then((result) => emit({ id: request.id, result: result ?? {} }))
      .catch((error) => emit({ id: request.id, error: String(error?.message ?? error) }))
  })
  input.on('close', () => close().finally(() => process.exit(0)))
}
