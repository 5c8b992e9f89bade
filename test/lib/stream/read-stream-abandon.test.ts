/**
 * Streams over images on servers: destroyed while a server keeps them waiting, they close at once, and nothing waits any longer.
 */
import { once } from 'node:events'
import t from 'tap'
import { createReadStream, Qcow2Image, type Qcow2ReadStream } from '../../../lib/index.js'
import { closing } from '../../fixtures/consume.js'
import { cut, raw, startServer, status, type Change } from '../../fixtures/http-server.js'
import { watchLeftovers } from '../../fixtures/leftovers.js'
import { dataDisk } from '../../fixtures/mixed-disk.js'
import { start } from '../../fixtures/run-command.js'
import { turns, until } from '../../fixtures/turns.js'

const disk = dataDisk(256)
const reason = new Error('enough')

const WAITS: Readonly<Record<string, Change>> = {
  'says nothing': raw('hang'),
  stops: cut(3, 'hang'),
  'wants half a minute of quiet': status(429, { 'retry-after': '30' }),
}

/** After how many requests the server keeps the stream waiting. */
const MOMENTS = { 'while it opens': 0, 'at its first table': 1, 'in its data': 3 } as const

const ENDS: Readonly<Record<string, (stream: Qcow2ReadStream, abort: () => void) => void>> = {
  destroyed: (stream) => void stream.destroy(),
  'destroyed with an error': (stream) => void stream.destroy(reason),
  aborted: (_stream, abort) => abort(),
}

for (const [what, change] of Object.entries(WAITS)) {
  for (const [moment, promptRequests] of Object.entries(MOMENTS)) {
    t.test(`a server that ${what} ${moment} does not keep a stream from closing`, async (t) => {
      for (const [how, end] of Object.entries(ENDS)) {
        const server = await startServer(t, disk.bytes)
        const leftovers = watchLeftovers()
        server.next(...Array.from({ length: promptRequests }, () => () => undefined))
        server.each = change
        const controller = new AbortController()
        const salvaged: unknown[] = []
        const salvage = (damage: unknown): unknown => salvaged.push(damage)
        const stream = createReadStream(server.url(), { signal: controller.signal, salvage }).resume()
        await until(
          () => server.requests.length > promptRequests && server.requests.every(({ isAnswered }) => isAnswered),
        )
        await turns(30)
        const requests = server.requests.length
        end(stream, () => controller.abort(reason))
        const errors = await closing(stream)
        t.same(errors, how === 'destroyed' ? [] : [reason], how)
        await until(() => server.underWay === 0)
        t.equal(server.requests.length, requests, 'nothing is asked for any more')
        t.same(salvaged, [])
        t.same(await leftovers(), [])
      }
    })
  }
}

t.test('an image that was handed in can be read when a stream of it was destroyed', async (t) => {
  const server = await startServer(t, disk.bytes)
  const image = await Qcow2Image.open(server.url())
  t.teardown(() => image.close())
  const stream = createReadStream(image)
  stream.on('data', () => void stream.destroy())
  t.same(await closing(stream), [])
  const bytes = Buffer.alloc(1000)
  t.equal(await image.read(bytes, 5_000_000), 1000)
  t.ok(bytes.equals(disk.guest.subarray(5_000_000, 5_001_000)))
})

t.test('a stream of which nobody reads on fetches no more than it may keep', async (t) => {
  const large = dataDisk(1024)
  for (const [objectMode, most] of [
    [false, 8],
    [true, 24],
  ] as const) {
    const server = await startServer(t, large.bytes)
    const stream = createReadStream(server.url(), { objectMode, threads: 0 })
    await once(stream, 'readable')
    let before = -1
    // Until nothing comes any more.
    while (before !== server.sentBytes) {
      before = server.sentBytes
      await turns(300)
    }
    t.ok(
      server.sentBytes < most * 2 ** 20,
      `${server.sentBytes} of ${large.bytes.length} bytes, objectMode ${objectMode}`,
    )
    t.equal(server.underWay, 0)
    stream.destroy()
    await closing(stream)
  }
})

t.test('a process ends by itself once its stream is destroyed', async (t) => {
  const index = new URL('../../../lib/index.js', import.meta.url).href
  for (const [what, change] of Object.entries(WAITS)) {
    const server = await startServer(t, disk.bytes)
    server.next(
      () => undefined,
      () => undefined,
    )
    server.each = change
    const script = `
      import { createReadStream } from ${JSON.stringify(index)}
      const stream = createReadStream(new URL(process.argv[1])).resume()
      process.stdin.once('data', () => { stream.destroy(); process.stdin.destroy() })
      stream.on('close', () => console.log('closed'))`
    const words = ['--input-type=module', '-e', script, server.url().href]
    const { child, ended } = start(process.execPath, words, { stdio: ['pipe', 'pipe', 'pipe'] })
    await until(() => server.requests.length > 2 && server.requests.every(({ isAnswered }) => isAnswered))
    child.stdin!.write('enough')
    const { code, stdout, stderr } = await ended
    t.equal(stderr, '')
    t.equal(stdout.toString(), 'closed\n')
    t.equal(code, 0, what)
  }
})
