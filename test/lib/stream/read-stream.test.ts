// The stream as fs.createReadStream has taught us to expect it: events, counters, ranges, options, inputs.
import { createReadStream as readRaw, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { createReadStream, Qcow2Image, Qcow2ReadStream, Qcow2UsageError } from '../../../lib/index.js'
import { buffersOf, bytesOf, closing, eventsOf } from '../../fixtures/consume.js'
import { expectError } from '../../fixtures/expect-error.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { mixedDisk } from '../../fixtures/mixed-disk.js'
import { filled, pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'

const disk = mixedDisk()
const { guest } = disk
const size = guest.length

t.test('emits open and ready before the first chunk, then end and close', async (t) => {
  const stream = createReadStream(disk.bytes)
  t.type(stream, Qcow2ReadStream)
  t.type(stream, Readable)
  const events = eventsOf(stream)
  let image: unknown
  let sizeAtOpen: number | undefined
  stream.on('open', (opened) => {
    image = opened
    sizeAtOpen = stream.virtualSize
  })
  t.equal(stream.virtualSize, undefined, 'the size is not known before')
  t.equal(stream.bytesRead, 0)
  t.same(await closing(stream), [])
  t.same(events, ['open', 'ready', 'data', 'end', 'close'])
  t.ok(image instanceof Qcow2Image)
  t.equal(sizeAtOpen, size)
  t.equal(stream.bytesRead, size)
})

t.test('counts the bytes that were emitted', async (t) => {
  const stream = createReadStream(disk.bytes, { start: 10, highWaterMark: 50_000 })
  let total = 0
  for await (const chunk of stream) {
    total += (chunk as Buffer).length
    t.ok(stream.bytesRead >= total && stream.bytesRead <= size - 10)
  }
  t.equal(total, size - 10)
  t.equal(stream.bytesRead, total)
  t.equal(stream.virtualSize, size, 'the size is that of the disk, not of the range')
})

t.test('reads the range that fs.createReadStream reads of the raw disk', async (t) => {
  const raw = join(t.testdir(), 'disk.raw')
  writeFileSync(raw, guest)
  const ranges: { start?: number; end?: number }[] = [
    {},
    { start: 0, end: 0 },
    { start: 1 },
    { end: 0 },
    { end: 16383 },
    { start: 16383, end: 16384 },
    { start: 5, end: 5 },
    { start: 4095, end: 300_001 },
    { start: 99 * 16384, end: 161 * 16384 },
    { start: 150 * 16384 + 77, end: 150 * 16384 + 78 },
    { start: size - 1 },
    { start: size - 1, end: size - 1 },
    { start: size - 1, end: size + 100 },
    { start: size },
    { start: size + 5, end: size + 9 },
    { end: Number.MAX_SAFE_INTEGER },
    { end: Infinity },
  ]
  for (const range of ranges) {
    const [ours, theirs] = await Promise.all([
      bytesOf(createReadStream(disk.bytes, range)),
      bytesOf(readRaw(raw, range)),
    ])
    t.ok(ours.equals(theirs), `start ${range.start}, end ${range.end}: ${theirs.length} bytes`)
  }
})

t.test('ends at once, with open and ready, where there is nothing to read', async (t) => {
  const empty = buildImage({ virtualSize: 0 })
  for (const [name, input, start] of [
    ['an empty disk', empty.bytes, 0],
    ['an empty disk, further on', empty.bytes, 1],
    ['a range behind the disk', disk.bytes, size],
  ] as const) {
    const stream = createReadStream(input, { start })
    const events = eventsOf(stream)
    t.same(await closing(stream), [])
    t.same(events, ['open', 'ready', 'end', 'close'], name)
    t.equal(stream.bytesRead, 0)
  }
})

t.test('keeps chunks at or below highWaterMark', async (t) => {
  for (const highWaterMark of [1, 4095, 4096, 100_000, 2 ** 20, 2 ** 22]) {
    const range = highWaterMark === 1 ? { start: 16_300, end: 16_500 } : {}
    const stream = createReadStream(disk.bytes, { ...range, highWaterMark })
    t.equal(stream.readableHighWaterMark, highWaterMark)
    const chunks = await buffersOf(stream)
    t.ok(
      chunks.every(({ length }) => length > 0 && length <= highWaterMark),
      `no chunk is longer than ${highWaterMark}`,
    )
    t.ok(Buffer.concat(chunks).equals(highWaterMark === 1 ? guest.subarray(16_300, 16_501) : guest))
  }
})

t.test('makes no gigantic chunks of zeros, however large highWaterMark may be', async (t) => {
  const empty = buildImage({ virtualSize: 64n * 1024n ** 4n, clusterBits: 21 })
  const stream = createReadStream(empty.bytes, { highWaterMark: Number.MAX_SAFE_INTEGER })
  let length = 0
  stream.once('data', (chunk: Buffer) => {
    length = chunk.length
    stream.destroy()
  })
  t.same(await closing(stream), [])
  t.ok(length > 0 && length <= 16 * 2 ** 20, `the first chunk is ${length} bytes`)
})

t.test('refuses options outside what is allowed, at once', async (t) => {
  const offsets = [-1, 1.5, NaN, -Infinity, 2 ** 53, '0', null, 1n]
  const marks = [0, -1, 1.5, NaN, Infinity, 2 ** 53, '1', null]
  const cases: [field: string, value: unknown][] = [
    ...[...offsets, Infinity].map((value): [string, unknown] => ['start', value]),
    ...offsets.map((value): [string, unknown] => ['end', value]),
    ...marks.map((value): [string, unknown] => ['highWaterMark', value]),
  ]
  for (const [field, value] of cases) {
    const input = new RecordingSource(disk.bytes)
    let error: unknown
    try {
      createReadStream(input, { [field]: value })
    } catch (thrown) {
      error = thrown
    }
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field, actual: value })
    t.equal(input.reads.length, 0)
  }
})

t.test('refuses an end before the start', async (t) => {
  let error: unknown
  try {
    createReadStream(disk.bytes, { start: 10, end: 9 })
  } catch (thrown) {
    error = thrown
  }
  expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'end', actual: 9 })
})

t.test('takes a path, a URL, a FileHandle that stays open, a source, an image that stays open', async (t) => {
  const path = join(t.testdir(), 'disk.qcow2')
  writeFileSync(path, disk.bytes)
  const handle = await open(path)
  t.teardown(() => handle.close())
  const source = new RecordingSource(disk.bytes)
  const image = await Qcow2Image.open(path)
  t.teardown(() => image.close())
  for (const input of [path, pathToFileURL(path), handle, source, image, image]) {
    t.ok((await bytesOf(createReadStream(input))).equals(guest))
  }
  t.ok((await handle.stat()).isFile(), 'the handle is open')
  t.equal(source.closeCount, 1, 'the source was closed')
  t.equal(await image.read(Buffer.alloc(100), 0), 100, 'the image is open')
})

t.test('hands the image that was given to it to the listeners of open', async (t) => {
  await using image = await Qcow2Image.open(disk.bytes)
  const stream = createReadStream(image, { end: 0 })
  let opened: unknown
  stream.on('open', (image: unknown) => {
    opened = image
  })
  t.equal((await bytesOf(stream)).length, 1)
  t.equal(opened, image)
})

t.test('passes the options of opening on', async (t) => {
  const image = buildImage({
    clusterBits: 12,
    virtualSize: 8192,
    clusters: [[0, { kind: 'data', bytes: pattern(1, 4096) }]],
    backingFile: { name: 'elsewhere', format: 'raw' },
    snapshots: [{ name: 'before', clusters: [[0, { kind: 'data', bytes: pattern(2, 4096) }]] }],
  })
  const base = filled(7, 8192)
  const read = (options: object): Promise<Buffer> =>
    bytesOf(createReadStream(image.bytes, { backingFile: base, ...options }))
  t.ok((await read({})).equals(Buffer.concat([pattern(1, 4096), filled(7, 4096)])))
  t.ok((await read({ snapshot: 'before' })).equals(Buffer.concat([pattern(2, 4096), filled(7, 4096)])))
  t.ok((await read({ backingFile: null })).equals(Buffer.concat([pattern(1, 4096), filled(0, 4096)])))
})
