// Every way to consume the stream sees the same bytes, owns what it is given, and holds the stream back if it is slow.
import { once } from 'node:events'
import { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import t from 'tap'
import { createReadStream } from '../../../lib/index.js'
import { buffersOf, bytesOf, closing } from '../../fixtures/consume.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { dataDisk, mixedDisk } from '../../fixtures/mixed-disk.js'
import { pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { turns, until, untilQuiet } from '../../fixtures/turns.js'

const disk = mixedDisk()
const { guest } = disk

/** Takes one chunk a turn of the event loop, and asks for no more than one at a time. */
class SlowSink extends Writable {
  readonly chunks: Buffer[] = []

  constructor() {
    super({ highWaterMark: 1 })
  }

  override _write(chunk: Buffer, _encoding: string, callback: () => void): void {
    this.chunks.push(chunk)
    setImmediate(callback)
  }
}

t.test('is the same for pipe, pipeline and async iteration', async (t) => {
  const options = { highWaterMark: 30_000 }
  const piped = new SlowSink()
  createReadStream(disk.bytes, options).pipe(piped)
  await once(piped, 'finish')
  t.ok(Buffer.concat(piped.chunks).equals(guest), 'pipe')

  const sink = new SlowSink()
  await pipeline(createReadStream(disk.bytes, options), sink)
  t.ok(Buffer.concat(sink.chunks).equals(guest), 'pipeline')

  t.ok((await bytesOf(createReadStream(disk.bytes, options))).equals(guest), 'for await')
})

t.test('can be read in paused mode, all that is there or so many bytes at a time', async (t) => {
  for (const length of [undefined, 1000, 70_000]) {
    const stream = createReadStream(disk.bytes, { highWaterMark: 50_000 })
    const chunks: Buffer[] = []
    stream.on('readable', () => {
      for (let chunk = take(); chunk !== null; chunk = take()) chunks.push(chunk)
    })
    const take = (): Buffer | null =>
      (stream.read(length) ?? (stream.readableEnded ? null : stream.read())) as Buffer | null
    t.same(await closing(stream), [])
    t.ok(Buffer.concat(chunks).equals(guest), `read(${length ?? ''})`)
  }
})

t.test('can be paused and resumed at every chunk', async (t) => {
  const stream = createReadStream(disk.bytes, { highWaterMark: 100_000 })
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    stream.pause()
    setImmediate(() => stream.resume())
  })
  t.same(await closing(stream), [])
  t.ok(Buffer.concat(chunks).equals(guest))
})

t.test('survives a consumer that reads again while it is being told of a chunk', async (t) => {
  const stream = createReadStream(disk.bytes, { highWaterMark: 10_000 })
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    stream.read(0)
  })
  t.same(await closing(stream), [])
  t.ok(Buffer.concat(chunks).equals(guest))
})

t.test('closes when a loop over it is left', async (t) => {
  const source = new RecordingSource(disk.bytes)
  const stream = createReadStream(source)
  let count = 0
  for await (const chunk of stream) {
    t.ok((chunk as Buffer).equals(guest.subarray(0, (chunk as Buffer).length)))
    if (++count === 1) break
  }
  await closing(stream)
  t.equal(source.closeCount, 1)
  t.equal(source.readsAfterClose, 0)
})

t.test('gives chunks away: changing one changes none that comes later', async (t) => {
  for (const highWaterMark of [1000, 65_536, 2 ** 20]) {
    let at = 0
    const stream = createReadStream(disk.bytes, { highWaterMark })
    stream.on('data', (bytes: Buffer) => {
      if (!bytes.equals(guest.subarray(at, at + bytes.length))) t.fail(`the chunk at ${at} is wrong`)
      at += bytes.length
      bytes.fill(0xee)
    })
    t.same(await closing(stream), [])
    t.equal(at, guest.length, `with chunks of ${highWaterMark}`)
  }
})

t.test('gives chunks away: none changes once it was emitted', async (t) => {
  const chunks = await buffersOf(createReadStream(disk.bytes, { highWaterMark: 77_777 }))
  await turns(10)
  t.ok(Buffer.concat(chunks).equals(guest))
})

t.test('makes zeros of fresh memory', async (t) => {
  const empty = buildImage({ virtualSize: 4 * 2 ** 20 })
  const zeros = await buffersOf(createReadStream(empty.bytes, { highWaterMark: 2 ** 20 }))
  t.ok(zeros.length >= 4)
  t.equal(new Set(zeros.map(({ buffer }) => buffer)).size, zeros.length, 'no two chunks share memory')
  zeros[0]?.fill(1)
  t.ok(zeros.slice(1).every((chunk) => chunk.every((byte) => byte === 0)))
})

t.test('keeps memory of chunks that a consumer changed out of later reads of the same image', async (t) => {
  const compressed = buildImage({
    clusterBits: 16,
    clusters: [[0, { kind: 'compressed', bytes: pattern(1, 65_536) }]],
  })
  for (let round = 0; round < 2; round++) {
    // Ranges that cut the cluster are the ones a cache would serve.
    const bytes = await bytesOf(createReadStream(compressed.bytes, { start: 100, end: 60_000 }))
    t.ok(bytes.equals(compressed.guest.subarray(100, 60_001)))
    bytes.fill(0)
  }
})

t.test('stops reading when nobody consumes, and goes on when somebody does', async (t) => {
  const large = dataDisk(640)
  const source = new RecordingSource(large.bytes)
  const stream = createReadStream(source)
  await once(stream, 'readable')
  await untilQuiet(() => source.reads.length)
  t.equal(source.underWay, 0)
  t.ok(source.bytesRead < 16 * 2 ** 20, `${source.bytesRead} of ${large.guest.length} bytes were read ahead`)
  t.ok((await bytesOf(stream)).equals(large.guest))
  t.ok(source.bytesRead >= large.guest.length)
})

t.test('reads nothing but tables where the disk is empty', async (t) => {
  const empty = buildImage({ virtualSize: 64 * 2 ** 20 })
  const source = new RecordingSource(empty.bytes)
  let length = 0
  for await (const chunk of createReadStream(source)) length += (chunk as Buffer).length
  t.equal(length, 64 * 2 ** 20)
  t.ok(source.bytesRead <= 3 * 65_536, `${source.bytesRead} bytes were read`)
})

t.test('opens before anybody consumes', async (t) => {
  const stream = createReadStream(disk.bytes)
  let isReady = false
  stream.on('ready', () => (isReady = true))
  await until(() => isReady)
  t.equal(stream.virtualSize, guest.length)
  stream.destroy()
  t.same(await closing(stream), [])
})
