// Streams of images that are decoded in threads: the same bytes, errors and manners as without, and no thread is left.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  createReadStream,
  Qcow2FormatError,
  Qcow2Image,
  Qcow2SourceError,
  Qcow2UsageError,
  type GuestChunk,
  type Qcow2ReadStream,
} from '../../../lib/index.js'
import { buffersOf, bytesOf, bytesOfChunks, chunksOf, closing } from '../../fixtures/consume.js'
import { expectError } from '../../fixtures/expect-error.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { cannotCountThreads, CLUSTER, compressedDisk, threadCount } from '../../fixtures/thread-worthy.js'
import { Gate, turns, until } from '../../fixtures/turns.js'
import { runningThreads, startedThreads } from '../../fixtures/worker-threads.js'

const disks = { zlib: compressedDisk('zlib'), zstd: compressedDisk('zstd') }
const { bytes: image, guest } = disks.zlib

t.test('emits the same bytes, however many threads there are', async (t) => {
  for (const [compression, disk] of Object.entries(disks)) {
    for (const threads of [0, 2]) {
      const title = `${compression}, ${threads} threads`
      await using opened = await Qcow2Image.open(disk.bytes, { threads })
      t.ok((await bytesOf(createReadStream(opened))).equals(disk.guest), title)
      const part = await bytesOf(createReadStream(opened, { start: 70_001, end: 23_000_000 }))
      t.ok(part.equals(disk.guest.subarray(70_001, 23_000_001)), `${title}, from within a cluster`)
      const chunks = await chunksOf(createReadStream(opened, { objectMode: true }))
      t.ok(bytesOfChunks(chunks).equals(disk.guest), `${title}, in object mode`)
    }
  }
})

t.test('refuses a number of threads that is none', async (t) => {
  for (const threads of [-1, 0.5, 65, '2', null]) {
    const stream = createReadStream(image, { threads: threads as number })
    const [error] = await closing(stream.resume())
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'threads', actual: threads })
  }
})

t.test('emits memory that is the consumer’s own, and that every API takes', async (t) => {
  await using opened = await Qcow2Image.open(image, { threads: 1 })
  const buffers = await buffersOf(createReadStream(opened, { highWaterMark: 100_000 }))
  t.ok(
    buffers.every(({ buffer }) => buffer instanceof ArrayBuffer),
    'no chunk is shared memory',
  )
  t.ok(Buffer.concat(buffers).equals(guest), 'none changed after it was emitted')
  const chunks = await chunksOf(createReadStream(opened, { objectMode: true }))
  t.ok(chunks.every((chunk) => chunk.kind === 'zeros' || chunk.bytes.buffer instanceof ArrayBuffer))
  t.ok(bytesOfChunks(chunks).equals(guest))
})

t.test('reuses memory that was given back, and no other', async (t) => {
  const held: GuestChunk[] = []
  for await (const chunk of createReadStream(image, { threads: 2, objectMode: true })) {
    held.push(chunk)
    if (held.length < 3) continue
    const [first] = held.splice(0, 1)
    if (first?.kind !== 'data') throw new Error('zeros?')
    if (!guest.subarray(first.guestOffset, first.guestOffset + first.length).equals(first.bytes)) t.fail('overwritten')
    first.bytes.fill(0)
    first.release()
  }
  t.ok(bytesOfChunks(held).equals(guest.subarray(held[0]?.guestOffset)))
})

t.test('says which cluster is damaged, after all that lies before its run', async (t) => {
  for (const compression of ['zlib', 'zstd'] as const) {
    const damaged = compressedDisk(compression, 350)
    const chunks: Buffer[] = []
    const stream = createReadStream(damaged.bytes, { threads: 1 })
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    const errors = await closing(stream)
    t.equal(errors.length, 1, compression)
    expectError(t, errors[0], Qcow2FormatError, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER', {
      layer: 'image in memory',
      guestOffset: 350 * CLUSTER,
      hostOffset: damaged.layout.clusterOffsets.get(350),
    })
    const before = Buffer.concat(chunks)
    t.ok(before.length >= 16 * 2 ** 20 && before.equals(damaged.guest.subarray(0, before.length)))
  }
})

/** Once so many bytes have come. Threads are started when 8 MiB were asked for, which is 4 MiB ahead. */
function destroyAfter(stream: Qcow2ReadStream, bytes: number, destroy: () => void): void {
  stream.on('data', () => (stream.bytesRead >= bytes ? destroy() : undefined))
}

const moments: Readonly<Record<string, (stream: Qcow2ReadStream, destroy: () => void) => void>> = {
  'at ready': (stream, destroy) => stream.on('ready', destroy),
  'while the first clusters are decoded': (stream, destroy) => stream.on('ready', () => void turns(3).then(destroy)),
  'at the first chunk': (stream, destroy) => stream.once('data', destroy),
  'at the third chunk': (stream, destroy) => {
    let count = 0
    stream.on('data', () => (++count === 3 ? destroy() : undefined))
  },
  'while threads start': (stream, destroy) => destroyAfter(stream, 5 * 2 ** 20, destroy),
  'while threads decode': (stream, destroy) => destroyAfter(stream, 12 * 2 ** 20, destroy),
  'when a chunk waits': (stream, destroy) => stream.once('readable', destroy),
  'at the end': (stream, destroy) => stream.resume().once('end', destroy),
}

for (const [moment, arrange] of Object.entries(moments)) {
  t.test(`destroyed ${moment}, leaves no thread and no file behind`, { skip: cannotCountThreads }, async (t) => {
    const path = join(t.testdir(), 'disk.qcow2')
    writeFileSync(path, image)
    await bytesOf(createReadStream(path, { threads: 0 }))
    const threadsBefore = threadCount()
    const stream = createReadStream(path, { threads: 2, highWaterMark: 100_000 })
    arrange(stream, () => void stream.destroy())
    t.same(await closing(stream), [])
    if (cannotCount === false) t.same(openDescriptors(path), [])
    await until(() => threadCount() <= threadsBefore)
    t.ok(threadCount() <= threadsBefore)
  })
}

t.test('a read that fails while threads decode ends the stream, and leaves none of them', async (t) => {
  const whole = new RecordingSource(image)
  await bytesOf(createReadStream(whole, { threads: 2 }))
  const threadsBefore = startedThreads()
  const source: RecordingSource = new RecordingSource(image, {
    beforeRead: (n) => {
      if (n === whole.reads.length - 1) throw new Error('EIO')
    },
  })
  const [error] = await closing(createReadStream(source, { threads: 2 }).resume())
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { layer: 'image from a source' })
  t.ok(startedThreads() > threadsBefore)
  t.equal(runningThreads(), 0)
  t.same({ closed: source.closeCount, late: source.readsAfterClose }, { closed: 1, late: 0 })
})

t.test('destroyed, makes nothing of what it was reading, even where the image stays open', async (t) => {
  const damaged = compressedDisk('zlib', 10)
  for (const isDestroyed of [true, false]) {
    const gate = new Gate()
    const source = new RecordingSource(damaged.bytes, {
      // Data, and not the tables.
      beforeRead: (_n, _offset, length) => (length > CLUSTER ? gate.opened : undefined),
    })
    const salvaged: unknown[] = []
    const salvage = (damage: unknown): unknown => salvaged.push(damage)
    await using opened = await Qcow2Image.open(source, { threads: 0, salvage })
    const stream = createReadStream(opened).resume()
    await until(() => source.mostUnderWay > 1)
    if (isDestroyed) stream.destroy()
    gate.open()
    t.same(await closing(stream), [])
    t.equal(salvaged.length, isDestroyed ? 0 : 1)
  }
})

t.test('destroyed in any read, waits for what is under way', async (t) => {
  const whole = new RecordingSource(image)
  await bytesOf(createReadStream(whole, { threads: 2 }))
  // The first of data, and the last.
  for (const n of [4, whole.reads.length]) {
    const source: RecordingSource = new RecordingSource(image, {
      beforeRead: async (index) => {
        if (index === n) stream.destroy()
        await turns(2)
      },
    })
    const stream = createReadStream(source, { threads: 2 }).resume()
    t.same(await closing(stream), [])
    t.same({ closed: source.closeCount, late: source.readsAfterClose }, { closed: 1, late: 0 }, `read ${n}`)
  }
})

t.test('shares the threads of an image with other streams and reads of it', async (t) => {
  await using opened = await Qcow2Image.open(image, { threads: 2 })
  const gone = createReadStream(opened)
  gone.once('data', () => gone.destroy())
  const target = Buffer.alloc(guest.length)
  const [first, second, count] = await Promise.all([
    bytesOf(createReadStream(opened)),
    bytesOf(createReadStream(opened, { start: 1_000_000 })),
    opened.read(target, 0),
    closing(gone),
  ])
  t.ok(first.equals(guest))
  t.ok(second.equals(guest.subarray(1_000_000)))
  t.equal(count, guest.length)
  t.ok(target.equals(guest))
})
