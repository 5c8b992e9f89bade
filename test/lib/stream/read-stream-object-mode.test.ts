// Object mode: runs of zeros are one chunk however long, memory of data can be given back, and reuse never shows.
import t from 'tap'
import { createReadStream, type DataChunk, type GuestChunk } from '../../../lib/index.js'
import { GIVES_BACK, IS_SHARED, type InternalOptions } from '../../../lib/stream/options.js'
import { bytesOfChunks, chunksOf, closing } from '../../fixtures/consume.js'
import { buildImage, type ClusterSpec } from '../../fixtures/image-builder.js'
import { dataDisk, mixedDisk } from '../../fixtures/mixed-disk.js'
import { pattern, text } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { turns, untilQuiet } from '../../fixtures/turns.js'

const disk = mixedDisk()
const { guest } = disk
const TIB = 2 ** 40

/** True if the chunks follow each other from `start` to `end` without gaps. */
function tile(chunks: readonly GuestChunk[], start: number, end: number): boolean {
  let at = start
  for (const chunk of chunks) {
    if (chunk.guestOffset !== at || chunk.length < 1) return false
    if (chunk.kind === 'data' && chunk.bytes.length !== chunk.length) return false
    at += chunk.length
  }
  return at === end
}

t.test('emits chunks that tile the range and hold its bytes', async (t) => {
  for (const { start, end } of [
    { start: 0, end: guest.length - 1 },
    { start: 12_345, end: 2_500_000 },
    { start: 120 * 16_384 + 5, end: 120 * 16_384 + 5 },
    { start: 110 * 16_384, end: 115 * 16_384 },
  ]) {
    const stream = createReadStream(disk.bytes, { start, end, objectMode: true })
    const chunks = await chunksOf(stream)
    t.ok(tile(chunks, start, end + 1), `${start} to ${end}`)
    t.ok(bytesOfChunks(chunks).equals(guest.subarray(start, end + 1)))
    t.equal(stream.bytesRead, end + 1 - start)
  }
})

t.test('emits a hole of any length as one chunk, without reading anything for it', async (t) => {
  const size = 60 * TIB + 12_345
  const clusters: [number, ClusterSpec][] = [[30_000_000, { kind: 'data', bytes: pattern(1, 2 ** 20) }]]
  const huge = buildImage({ clusterBits: 20, virtualSize: size, clusters })
  const source = new RecordingSource(huge.bytes)
  const chunks = await chunksOf(createReadStream(source, { objectMode: true }))
  const dataAt = 30_000_000 * 2 ** 20
  t.match(chunks, [
    { kind: 'zeros', guestOffset: 0, length: dataAt },
    { kind: 'data', guestOffset: dataAt, length: 2 ** 20 },
    { kind: 'zeros', guestOffset: dataAt + 2 ** 20, length: size - dataAt - 2 ** 20 },
  ])
  t.equal(chunks.length, 3)
  t.ok(source.reads.length < 200, `${source.reads.length} reads`)
})

t.test('emits zeros that the image stores as zero clusters, and holes beside them, as one chunk', async (t) => {
  const clusters: [number, ClusterSpec][] = [
    [0, { kind: 'data', bytes: pattern(1, 65_536) }],
    [1, { kind: 'zero' }],
    [3, { kind: 'zero', preallocated: true }],
    [4, { kind: 'data', bytes: pattern(2, 65_536) }],
  ]
  const chunks = await chunksOf(createReadStream(buildImage({ clusters }).bytes, { objectMode: true }))
  t.match(chunks, [
    { kind: 'data', length: 65_536 },
    { kind: 'zeros', guestOffset: 65_536, length: 3 * 65_536 },
    { kind: 'data', length: 65_536 },
  ])
  t.equal(chunks.length, 3)
})

t.test('leaves a chunk that is not given back to its consumer for good', async (t) => {
  const chunks = await chunksOf(createReadStream(disk.bytes, { objectMode: true }))
  await turns(10)
  t.ok(bytesOfChunks(chunks).equals(guest))
})

t.test('reuses no memory that is still held, in whatever order it is given back', async (t) => {
  const large = dataDisk(512)
  for (const most of [1, 2, 5, 30]) {
    const held: DataChunk[] = []
    const order = pattern(most, 1000)
    let turn = 0
    const giveOneBack = (): void => {
      const [chunk] = held.splice((order[turn++ % order.length] ?? 0) % held.length, 1)
      if (chunk === undefined) return
      const expected = large.guest.subarray(chunk.guestOffset, chunk.guestOffset + chunk.length)
      if (!expected.equals(chunk.bytes)) t.fail(`the chunk at ${chunk.guestOffset} was overwritten`)
      // What its owner writes into it must not show anywhere either.
      chunk.bytes.fill(0xdd)
      chunk.release()
    }
    let total = 0
    for await (const chunk of createReadStream(large.bytes, { objectMode: true })) {
      held.push(chunk as DataChunk)
      total += (chunk as DataChunk).length
      while (held.length >= most) giveOneBack()
    }
    while (held.length > 0) giveOneBack()
    t.equal(total, large.guest.length, `holding ${most}`)
  }
})

t.test('takes a chunk that is given back twice only once', async (t) => {
  const large = dataDisk(512)
  const previous: DataChunk[] = []
  for await (const chunk of createReadStream(large.bytes, { objectMode: true })) {
    const { guestOffset, length, bytes } = chunk as DataChunk
    if (!large.guest.subarray(guestOffset, guestOffset + length).equals(bytes)) t.fail(`wrong bytes at ${guestOffset}`)
    ;(chunk as DataChunk).release()
    ;(chunk as DataChunk).release()
    // Long after its memory is somebody else's.
    for (const old of previous) old.release()
    previous.push(chunk as DataChunk)
  }
  t.equal(
    previous.reduce((sum, { length }) => sum + length, 0),
    large.guest.length,
  )
})

t.test('lets chunks be given back when the stream is destroyed and gone', async (t) => {
  const stream = createReadStream(dataDisk(64).bytes, { objectMode: true })
  const chunks: DataChunk[] = []
  stream.on('data', (chunk: DataChunk) => {
    chunks.push(chunk)
    stream.destroy()
  })
  t.same(await closing(stream), [])
  t.equal(chunks.length, 1)
  t.doesNotThrow(() => chunks[0]?.release())
})

t.test('fits runs of any length into reused memory', async (t) => {
  // Compressed clusters of 2 MiB are never cut, so they make longer runs than others.
  const clusters: [number, ClusterSpec][] = [
    [0, { kind: 'data', bytes: pattern(1, 2 ** 21) }],
    [1, { kind: 'compressed', bytes: text(2, 2 ** 21), level: 1 }],
    [2, { kind: 'data', bytes: pattern(3, 2 ** 21) }],
    [3, { kind: 'compressed', bytes: text(4, 2 ** 21), level: 1 }],
    [4, { kind: 'compressed', bytes: text(5, 2 ** 21), level: 1 }],
    [5, { kind: 'data', bytes: pattern(6, 2 ** 21) }],
  ]
  const image = buildImage({ clusterBits: 21, clusters })
  let at = 0
  for await (const chunk of createReadStream(image.bytes, { objectMode: true })) {
    const { guestOffset, bytes, release } = chunk as DataChunk
    t.equal(guestOffset, at)
    t.ok(image.guest.subarray(at, at + bytes.length).equals(bytes), `the bytes at ${at}`)
    at += bytes.length
    release()
  }
  t.equal(at, image.guest.length)
})

t.test('holds little memory, however small and scattered the data are', async (t) => {
  const clusters: [number, ClusterSpec][] = []
  for (let i = 0; i < 3000; i++) clusters.push([i * 129, { kind: 'data', bytes: pattern(i, 512) }])
  const image = buildImage({ clusterBits: 9, clusters })
  const before = process.memoryUsage().arrayBuffers
  let most = 0
  let length = 0
  for await (const chunk of createReadStream(image.bytes, { objectMode: true })) {
    most = Math.max(most, process.memoryUsage().arrayBuffers - before)
    length += chunk.length
    if (chunk.kind === 'data') chunk.release()
  }
  t.equal(length, Number(image.virtualSize))
  t.ok(most < 64 * 2 ** 20, `${Math.round(most / 2 ** 20)} MiB at most`)
})

t.test('stops reading when nobody takes chunks', async (t) => {
  const large = dataDisk(1024)
  // In MiB: what may be read ahead for so many threads, and a little more.
  for (const [threads, least, most] of [
    [0, 7, 12],
    [2, 7, 12],
    [8, 7, 12],
    [32, 31, 36],
  ] as const) {
    const source = new RecordingSource(large.bytes)
    const stream = createReadStream(source, { objectMode: true, threads })
    stream.read(0)
    await untilQuiet(() => source.reads.length)
    const mebibytes = source.bytesRead / 2 ** 20
    t.ok(mebibytes > least && mebibytes < most, `${mebibytes} of 64 MiB were read ahead for ${threads} threads`)
    stream.destroy()
    t.same(await closing(stream), [])
  }
})

t.test('hands out memory that threads share, to those inside who ask for it', async (t) => {
  const { bytes, guest } = dataDisk(3, 21)
  for (const [threads, isShared] of [
    [0, true],
    [2, true],
    [2, false],
  ] as const) {
    const options: InternalOptions & { objectMode: true } = {
      objectMode: true,
      threads,
      [GIVES_BACK]: true,
      [IS_SHARED]: isShared,
    }
    const stream = createReadStream(bytes, options)
    const parts: Buffer[] = []
    for await (const chunk of stream) {
      if (chunk.kind === 'data') {
        t.equal(chunk.bytes.buffer instanceof SharedArrayBuffer, isShared)
        parts.push(Buffer.from(chunk.bytes))
        chunk.release()
      }
    }
    t.ok(Buffer.concat(parts).equals(guest))
  }
})
