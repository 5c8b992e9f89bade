// The stream that hashes what passes: the digest, whose memory is given back when, how much waits, and how it ends early.
import { createHash } from 'node:crypto'
import t from 'tap'
import { DigestStream } from '../../../lib/digest/digest-stream.js'
import type { GuestChunk, Qcow2Progress } from '../../../lib/index.js'
import { chunksOf, closing } from '../../fixtures/consume.js'
import { dataChunk, zeroChunk, type TestChunk } from '../../fixtures/guest-chunks.js'
import { pattern } from '../../fixtures/patterns.js'
import { until, untilQuiet } from '../../fixtures/turns.js'
import { runningThreads, startedThreads, workers } from '../../fixtures/worker-threads.js'

const MIB = 2 ** 20
const nothing = (): void => undefined

/** Data in memory that threads share. */
function sharedChunk(guestOffset: number, length: number): TestChunk {
  const bytes = new Uint8Array(new SharedArrayBuffer(length))
  bytes.set(pattern(guestOffset, length))
  return dataChunk(guestOffset, bytes)
}

/** Chunks that follow on one another. */
function chunksFrom(lengths: readonly (readonly ['data' | 'zeros', number])[]): GuestChunk[] {
  let offset = 0
  return lengths.map(([kind, length]) => {
    const at = offset
    offset += length
    return kind === 'data' ? sharedChunk(at, length) : zeroChunk(at, length)
  })
}

/** By whoever has all bytes at hand. */
function digestOf(algorithm: string, chunks: readonly GuestChunk[]): string {
  const hash = createHash(algorithm)
  for (const chunk of chunks) hash.update(chunk.kind === 'data' ? chunk.bytes : Buffer.alloc(chunk.length))
  return hash.digest('hex')
}

const sum = (chunks: readonly GuestChunk[]): number => chunks.reduce((bytes, { length }) => bytes + length, 0)

t.test('gives the digest of what has passed, which it leaves as it is', async (t) => {
  const cases: [threads: number, chunks: GuestChunk[]][] = [
    [0, []],
    [0, chunksFrom([['data', 1]])],
    [
      0,
      chunksFrom([
        ['zeros', 1],
        ['data', 70_000],
        ['zeros', 3 * MIB],
        ['data', 5],
      ]),
    ],
    [1, chunksFrom([['zeros', 200 * MIB]])],
    [
      1,
      chunksFrom([
        ['data', 4 * MIB],
        ['zeros', 63 * MIB],
        ['data', MIB],
        ['zeros', 1],
        ['data', 3 * MIB],
        ['zeros', 70 * MIB],
      ]),
    ],
    [1, chunksFrom(Array.from({ length: 300 }, (_, i) => [i % 2 === 0 ? 'data' : 'zeros', 65_536 + i] as const))],
  ]
  for (const [threads, chunks] of cases) {
    const before = startedThreads()
    const total = sum(chunks)
    const seen: Qcow2Progress[] = []
    const stream = new DigestStream('sha256', total, (progress) => seen.push(progress))
    const passing = chunksOf(stream)
    for (const chunk of chunks) stream.write(chunk)
    t.equal(stream.digest, undefined, 'not yet')
    stream.end()
    const passed = await passing
    t.equal(stream.digest, digestOf('sha256', chunks), `${chunks.length} chunks`)
    t.equal(passed.length, chunks.length)
    for (const [i, { kind, guestOffset, length }] of passed.entries()) {
      const chunk = chunks[i]!
      t.strictSame(
        { kind, guestOffset, length },
        { kind: chunk.kind, guestOffset: chunk.guestOffset, length: chunk.length },
      )
    }
    for (const [i, { bytesDone }] of seen.entries()) t.ok(bytesDone > (seen[i - 1]?.bytesDone ?? 0))
    t.ok(total === 0 || seen.every(({ phase, bytesTotal }) => phase === 'converting' && bytesTotal === total))
    t.equal(seen.at(-1)?.bytesDone ?? 0, total)
    t.same(await closing(stream), [])
    t.same([startedThreads() - before, runningThreads()], [threads, 0], 'threads started, and left')
  }
})

t.test('tells of long zeros while they are hashed', async (t) => {
  const seen: number[] = []
  const stream = new DigestStream('sha1', 300 * MIB, ({ bytesDone }) => seen.push(bytesDone))
  const passing = chunksOf(stream)
  stream.end(zeroChunk(0, 300 * MIB))
  t.equal((await passing).length, 1)
  t.same(
    seen,
    [64, 128, 192, 256, 300].map((count) => count * MIB),
  )
})

t.test('gives memory back when both are done with it, whoever is first', async (t) => {
  for (const total of [1000, 100 * MIB]) {
    const chunk = sharedChunk(0, 1000)
    let hashed = 0
    const stream = new DigestStream('sha256', total, ({ bytesDone }) => (hashed = bytesDone))
    const passed: GuestChunk[] = []
    stream.on('data', (one: GuestChunk) => passed.push(one))
    stream.write(chunk)
    await until(() => hashed === 1000 && passed.length === 1)
    const [first] = passed
    t.equal(chunk.released, 0, 'hashed, but still in use')
    if (first?.kind === 'data') {
      first.release()
      t.equal(chunk.released, 1)
      first.release()
    }
    t.equal(chunk.released, 1, 'once')
    stream.destroy()
    await closing(stream)
  }
  // The thread is busy with zeros while the chunk behind them is used up.
  let hashed = 0
  const chunk = sharedChunk(512 * MIB, 1000)
  const stream = new DigestStream('sha256', 512 * MIB + 1000, ({ bytesDone }) => (hashed = bytesDone))
  const passed: GuestChunk[] = []
  stream.on('data', (one: GuestChunk) => {
    passed.push(one)
    if (one.kind === 'data') one.release()
  })
  stream.write(zeroChunk(0, 512 * MIB))
  stream.write(chunk)
  await until(() => passed.length === 2)
  t.ok(hashed < 512 * MIB, 'zeros do not hold up what follows')
  t.equal(chunk.released, 0, 'used up, but not hashed')
  stream.end()
  t.same(await closing(stream), [])
  t.equal(chunk.released, 1)
})

t.test('lets some bytes wait for the thread, and some chunks, and no more', async (t) => {
  for (const [length, most] of [
    [4 * MIB, 2],
    [65_536, 63],
  ] as const) {
    const stream = new DigestStream('sha256', 2 ** 50, nothing)
    const passed: GuestChunk[] = []
    stream.on('data', (chunk: GuestChunk) => {
      passed.push(chunk)
      if (chunk.kind === 'data') chunk.release()
    })
    // With this it is busy for days.
    stream.write(zeroChunk(0, 2 ** 49))
    const chunks = Array.from({ length: 100 }, (_, i) => sharedChunk(2 ** 49 + i * length, length))
    for (const chunk of chunks) stream.write(chunk)
    await untilQuiet(() => passed.length)
    t.equal(passed.length, 1 + most, `${most} chunks of ${length} bytes`)
    stream.destroy()
    t.same(await closing(stream), [])
    t.equal(runningThreads(), 0)
  }
})

t.test('is destroyed at any moment, and leaves no thread', async (t) => {
  for (const end of [false, true]) {
    const before = startedThreads()
    const stream = new DigestStream('sha256', 2 ** 50, nothing)
    stream.resume()
    stream.write(zeroChunk(0, 2 ** 50))
    if (end) stream.end()
    await until(() => startedThreads() > before)
    const error = new Error('enough')
    stream.destroy(error)
    t.same(await closing(stream), [error])
    t.equal(stream.digest, undefined)
    t.equal(runningThreads(), 0)
  }
})

t.test('fails with what the listener throws, and calls it no more', async (t) => {
  for (const total of [300_000, 300 * MIB]) {
    for (const thrown of [new Error('stop'), undefined] as unknown[]) {
      let calls = 0
      const stream = new DigestStream('sha256', total, () => {
        calls += 1
        throw thrown
      })
      stream.resume()
      for (const at of [0, 1, 2]) stream.write(zeroChunk((at * total) / 3, total / 3))
      stream.end()
      const [error, ...others] = await closing(stream)
      t.ok(thrown === undefined ? error instanceof Error && error.message === 'onProgress threw' : error === thrown)
      t.same([others.length, calls, stream.digest], [0, 1, undefined])
    }
  }
  t.equal(runningThreads(), 0)
})

t.test('fails if its thread dies, busy or idle', async (t) => {
  for (const isBusy of [true, false]) {
    let hashed = 0
    const stream = new DigestStream('sha256', 2 ** 50, ({ bytesDone }) => (hashed = bytesDone))
    stream.resume()
    stream.write(zeroChunk(0, 1000))
    await until(() => hashed > 0)
    if (isBusy) stream.write(zeroChunk(1000, 2 ** 49))
    const worker = workers.at(-1)!
    if (isBusy) await worker.terminate()
    else worker.emit('error', new Error('a fault in the thread'))
    const [error] = await closing(stream)
    t.match((error as Error).message, isBusy ? /exited/ : /a fault/)
    t.equal(stream.digest, undefined)
    await until(() => runningThreads() === 0)
  }
})

t.test('gives no digest if its thread was replaced', async (t) => {
  let hashed = 0
  const stream = new DigestStream('sha256', 100 * MIB, ({ bytesDone }) => (hashed = bytesDone))
  stream.resume()
  stream.write(zeroChunk(0, 1000))
  await until(() => hashed > 0)
  await workers.at(-1)!.terminate()
  stream.end()
  const [error] = await closing(stream)
  t.match((error as Error).message, /lost its place/)
  t.equal(stream.digest, undefined)
  t.equal(runningThreads(), 0)
})
