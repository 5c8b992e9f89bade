/**
 * Closing: once, when what is under way has ended, with nothing read after it and everything closed that was opened.
 */
import { writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { Qcow2Image, Qcow2SourceError, Qcow2UsageError, type Qcow2Extent } from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type BuiltImage } from '../../fixtures/image-builder.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { pattern, text } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { compressedDisk } from '../../fixtures/thread-worthy.js'
import { Gate, turns, until } from '../../fixtures/turns.js'
import { runningThreads, startedThreads } from '../../fixtures/worker-threads.js'

const CLUSTER = 4096

const disk = (): BuiltImage =>
  buildImage({
    clusterBits: 12,
    clusters: [
      [0, { kind: 'data', bytes: pattern(0, CLUSTER) }],
      [1, { kind: 'compressed', bytes: text(1, CLUSTER) }],
      [600, { kind: 'data', bytes: pattern(2, CLUSTER) }],
    ],
  })

t.test('may be called twice, and while it is under way', async (t) => {
  const source = new RecordingSource(disk().bytes)
  const image = await Qcow2Image.open(source)
  await Promise.all([image.close(), image.close()])
  await image.close()
  t.equal(source.closeCount, 1)
})

t.test('refuses everything that reads, and keeps what is known', async (t) => {
  const image = await Qcow2Image.open(disk().bytes)
  await image.close()
  for (const attempt of [
    image.read(Buffer.alloc(1), 0),
    image.read(Buffer.alloc(0), 0),
    image.read(Buffer.alloc(1), 2 ** 40),
    image.extents().next(),
  ]) {
    const error = await rejection(t, attempt)
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_CLOSED', { layer: 'image in memory' })
    t.match((error as Error).message, /the image is closed$/)
  }
  t.equal(image.virtualSize, 601 * CLUSTER)
  t.equal(image.backingChain.length, 1)
})

t.test('closes at the end of a block with await using', async (t) => {
  const source = new RecordingSource(disk().bytes)
  const image = await Qcow2Image.open(source)
  await image[Symbol.asyncDispose]()
  t.equal(source.closeCount, 1)
  await t.rejects(image.read(Buffer.alloc(1), 0), { code: 'ERR_QCOW2_CLOSED' })
})

t.test('waits for reads under way, which end as if nobody had closed', async (t) => {
  const built = disk()
  const gate = new Gate()
  const sources = [built.bytes, buildImage({ clusterBits: 12, virtualSize: 601 * CLUSTER }).bytes].map(
    (bytes) => new RecordingSource(bytes, { beforeRead: (n) => (n > 2 ? gate.opened : undefined) }),
  )
  const image = await Qcow2Image.open(sources[0]!, { backingFile: sources[1]!, backingFormat: 'qcow2' })
  const reads = [readBytes(image), readBytes(image, 5000, 3000), readBytes(image, 600 * CLUSTER, 10)]
  await until(() => sources[0]!.underWay > 0)
  const closing = image.close()
  const late = await rejection(t, image.read(Buffer.alloc(1), 0))
  expectError(t, late, Qcow2UsageError, 'ERR_QCOW2_CLOSED')
  await turns(10)
  t.strictSame(
    sources.map(({ closeCount }) => closeCount),
    [0, 0],
  )
  gate.open()
  const [whole, part, end] = await Promise.all(reads)
  t.ok(whole?.equals(built.guest))
  t.ok(part?.equals(built.guest.subarray(5000, 8000)))
  t.ok(end?.equals(built.guest.subarray(600 * CLUSTER, 600 * CLUSTER + 10)))
  await closing
  t.strictSame(
    sources.map(({ closeCount, readsAfterClose }) => [closeCount, readsAfterClose]),
    [
      [1, 0],
      [1, 0],
    ],
  )
})

t.test('waits for reads that decode in threads, and ends the threads', async (t) => {
  const built = compressedDisk('zlib')
  const threadsBefore = startedThreads()
  const image = await Qcow2Image.open(built.bytes, { threads: 2 })
  const reading = readBytes(image)
  await until(() => startedThreads() > threadsBefore)
  await image.close()
  t.equal(runningThreads(), 0)
  t.ok((await reading).equals(built.guest))
})

t.test('does not wait for extents that nobody asks for any more', async (t) => {
  const source = new RecordingSource(disk().bytes)
  const image = await Qcow2Image.open(source)
  const extents: AsyncGenerator<Qcow2Extent> = image.extents()
  t.match(await extents.next(), { done: false })
  await image.close()
  t.strictSame([source.closeCount, source.readsAfterClose], [1, 0])
  await extents.return(undefined)
})

t.test('goes on to close the other files when one cannot be closed, and says so', async (t) => {
  const fail = (): never => {
    throw new Error('EIO')
  }
  const built = disk()
  const top = new RecordingSource(built.bytes, { beforeClose: fail })
  const base = new RecordingSource(built.bytes)
  const image = await Qcow2Image.open(top, { backingFile: base, backingFormat: 'qcow2' })
  for (let i = 0; i < 2; i++) {
    const error = await rejection(t, image.close())
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { layer: 'image from a source' })
  }
  t.strictSame([top.closeCount, base.closeCount], [1, 1])
})

t.test('closes every file that opening opened', { skip: cannotCount }, async (t) => {
  const folder = t.testdir()
  const base = buildImage({ clusterBits: 12, dataFile: { name: 'data' }, backingFile: { name: 'raw', format: 'raw' } })
  const top = buildImage({ clusterBits: 12, backingFile: { name: 'base', format: 'qcow2' } })
  for (const [name, bytes] of Object.entries({ top: top.bytes, base: base.bytes, data: '', raw: '' })) {
    writeFileSync(join(folder, name), bytes)
  }
  const image = await opened(t, join(folder, 'top'))
  t.equal(openDescriptors(folder).length, 4)
  await image.close()
  t.strictSame(openDescriptors(folder), [])

  const handle = await open(join(folder, 'top'))
  const options = { backingFile: join(folder, 'base'), references: 'any' } as const
  const borrowed = await Qcow2Image.open(handle, options)
  t.equal(openDescriptors(folder).length, 4)
  await borrowed.close()
  t.strictSame(openDescriptors(folder), [handle.fd], 'a handle of the caller stays open')
  await handle.close()
})
