// Reading ahead, as the outside sees it: several reads at once, results in guest order, errors in their turn, few bytes.
import t from 'tap'
import { createReadStream } from '../../../lib/index.js'
import { bytesOf, chunksOf, closing } from '../../fixtures/consume.js'
import { buildImage, type ClusterSpec } from '../../fixtures/image-builder.js'
import { dataDisk } from '../../fixtures/mixed-disk.js'
import { systemError } from '../../fixtures/patched-fs.js'
import { pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { Gate, settling, turns, until, untilQuiet } from '../../fixtures/turns.js'

// 32 MiB in order on the host, so that one run is one read.
const large = dataDisk(512)
const dataStart = Math.min(...large.layout.clusterOffsets.values())

t.test('has several reads under way at once', async (t) => {
  // At the beginning, and just as well when more than all that may be read ahead has passed.
  const most = [0, 0]
  const source: RecordingSource = new RecordingSource(large.bytes, {
    beforeRead: async (_n, offset) => {
      const half = offset < dataStart + 20 * 2 ** 20 ? 0 : 1
      most[half] = Math.max(most[half] ?? 0, source.underWay)
      await turns(2)
    },
  })
  t.ok((await bytesOf(createReadStream(source))).equals(large.guest))
  t.ok(
    most.every((count) => count > 1),
    `${most.join(' and ')} at once`,
  )
})

t.test('keeps the guest order when later reads end first', async (t) => {
  const waiting: Gate[] = []
  const source = new RecordingSource(large.bytes, {
    beforeRead: (_n, offset) => {
      if (offset < dataStart) return
      const gate = new Gate()
      waiting.push(gate)
      return gate.opened
    },
  })
  const done = bytesOf(createReadStream(source))
  const isDone = settling(done)
  while (!isDone()) {
    await untilQuiet(() => waiting.length)
    // The youngest read first.
    waiting.pop()?.open()
  }
  t.ok((await done).equals(large.guest))
})

t.test('reads what lies next to each other on the host at once', async (t) => {
  const source = new RecordingSource(large.bytes)
  await bytesOf(createReadStream(source))
  const dataReads = source.reads.filter(({ offset }) => offset >= dataStart)
  t.ok(dataReads.length <= 64, `${dataReads.length} reads for 512 clusters`)
  t.ok(
    dataReads.every(({ length }) => length <= 2 * 2 ** 20),
    'none is longer than 2 MiB',
  )
  t.equal(
    dataReads.reduce((sum, { length }) => sum + length, 0),
    large.guest.length,
    'each byte is read once',
  )
})

t.test('is not more than some megabytes ahead of the consumer', async (t) => {
  const larger = dataDisk(1024)
  const source = new RecordingSource(larger.bytes)
  let consumed = 0
  let furthest = 0
  for await (const chunk of createReadStream(source, { objectMode: true, threads: 2 })) {
    await untilQuiet(() => source.reads.length)
    furthest = Math.max(furthest, source.bytesRead - consumed)
    consumed += chunk.length
  }
  t.equal(consumed, larger.guest.length)
  // The window of 8 MiB, a run of 2 MiB that the stream has ready, and one that has been emitted; beside them tables of the image.
  t.ok(furthest < 13 * 2 ** 20, `at most ${furthest} bytes`)
})

t.test('hands over what comes before a failure, however long that takes', async (t) => {
  const gate = new Gate()
  let hasFailed = false
  const source = new RecordingSource(large.bytes, {
    beforeRead: (_n, offset) => {
      if (offset < dataStart) return
      if (offset === dataStart) return gate.opened
      hasFailed = true
      throw systemError('EIO')
    },
  })
  const stream = createReadStream(source)
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  const errors = closing(stream)
  await until(() => hasFailed)
  await turns(20)
  t.equal(chunks.length, 0)
  gate.open()
  t.match(await errors, [{ code: 'ERR_QCOW2_READ_FAILED' }])
  const bytes = Buffer.concat(chunks)
  t.ok(bytes.length > 0 && bytes.equals(large.guest.subarray(0, bytes.length)))
})

t.test('fails in its turn when a table far ahead is damaged', async (t) => {
  const clusters: [number, ClusterSpec][] = []
  for (let i = 0; i < 100; i++) clusters.push([i, { kind: 'data', bytes: pattern(i, 512) }])
  const damaged = buildImage({
    clusterBits: 9,
    clusters,
    virtualSize: 8 * 2 ** 20,
    // An L2 table covers 32 KiB: this one is about what lies at 7 MiB.
    patch: (bytes, layout) => bytes.writeBigUInt64BE(0x1n, layout.l1EntryOffset(224)),
  })
  const chunks: Buffer[] = []
  const stream = createReadStream(damaged.bytes)
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  t.match(await closing(stream), [{ code: 'ERR_QCOW2_BAD_L1_ENTRY' }])
  t.ok(damaged.guest.subarray(0, 51_200).equals(Buffer.concat(chunks).subarray(0, 51_200)))
})

t.test('goes past many short runs between holes', async (t) => {
  const clusters: [number, ClusterSpec][] = []
  for (let i = 0; i < 100; i++) clusters.push([i * 2, { kind: 'data', bytes: pattern(i, 65_536) }])
  const image = buildImage({ clusterBits: 16, clusters })
  const chunks = await chunksOf(createReadStream(image.bytes, { objectMode: true }))
  t.equal(chunks.length, 199)
  t.same(
    chunks.map(({ kind }) => kind),
    Array.from({ length: 199 }, (_, i) => (i % 2 === 0 ? 'data' : 'zeros')),
  )
  t.ok((await bytesOf(createReadStream(image.bytes))).equals(image.guest))
})
