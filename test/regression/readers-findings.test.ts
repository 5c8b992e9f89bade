// What careful readers found in the first version: each of these once lost data, opened too much or ended without a word.
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  constants,
  createReadStream as createFileStream,
  existsSync,
  openSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { convert, createReadStream, Qcow2Image, Qcow2UsageError } from '../../lib/index.js'
import { closing } from '../fixtures/consume.js'
import { expectError, rejection } from '../fixtures/expect-error.js'
import { buildImage } from '../fixtures/image-builder.js'
import { runBash, runCommand } from '../fixtures/run-command.js'
import { RecordingSource } from '../fixtures/recording-source.js'
import { turns, until } from '../fixtures/turns.js'
import { cannotCountThreads, compressedDisk, threadCount } from '../fixtures/thread-worthy.js'

const noBash = process.platform === 'win32' ? 'there is no bash to be sure of' : false
const noFifo = process.platform === 'linux' ? false : 'opening a FIFO for both is a way of Linux'
const noLinks = process.platform === 'win32' ? 'making symbolic links needs rights on Windows' : false

t.test('the output is no file that the image names, even if an option replaces it', async (t) => {
  const folder = realpathSync(t.testdir({ base: 'base', data: 'data' }))
  const overlay = buildImage({ clusterBits: 9, virtualSize: 4096, backingFile: { name: 'base', format: 'raw' } })
  const external = buildImage({ clusterBits: 9, virtualSize: 4096, dataFile: { name: 'file:data' } })
  writeFileSync(join(folder, 'overlay'), overlay.bytes)
  writeFileSync(join(folder, 'external'), external.bytes)
  for (const [image, name, options] of [
    ['overlay', 'base', { backingFile: null }],
    ['overlay', 'base', { backingFile: new Uint8Array(512), backingFormat: 'raw' }],
    ['external', 'data', { dataFile: new Uint8Array(4096) }],
  ] as const) {
    const error = await rejection(t, convert(join(folder, image), join(folder, name), { ...options, force: true }))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_IS_INPUT', { field: 'output', layer: join(folder, name) })
    t.equal(readFileSync(join(folder, name), 'utf8'), name)
  }
  // A name that leads nowhere, or to no local file, stands in nobody's way.
  for (const name of ['missing', 'nbd:elsewhere']) {
    const image = buildImage({ clusterBits: 9, virtualSize: 512, backingFile: { name, format: 'raw' } })
    const output = join(folder, `out-${name.length}`)
    t.equal((await convert(image.bytes, output, { backingFile: null })).length, 512)
  }
})

t.test('a link to an image does not widen what the image may open', { skip: noLinks }, async (t) => {
  const folder = realpathSync(t.testdir({ secret: 'secret', images: {} }))
  const image = buildImage({ clusterBits: 9, virtualSize: 512, backingFile: { name: 'secret', format: 'raw' } })
  writeFileSync(join(folder, 'images', 'evil'), image.bytes)
  symlinkSync(join('images', 'evil'), join(folder, 'link'))
  await t.rejects(Qcow2Image.open(join(folder, 'link')), { code: 'ERR_QCOW2_REFERENCE_REFUSED' })
})

t.test('closing an image waits for the threads of its streams', { skip: cannotCountThreads }, async (t) => {
  const { bytes } = compressedDisk('zlib')
  const before = threadCount()
  let closedCount = 0
  for (const count of [0, 1, 10, 100]) {
    const image = await Qcow2Image.open(bytes, { threads: 2 })
    const stream = createReadStream(image, { highWaterMark: 65536 })
    const ended = closing(stream.resume())
    await turns(count)
    await image.close()
    // What was under way is ended; what was not yet begun is refused.
    for (const error of await ended) {
      closedCount += 1
      expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_CLOSED', {})
    }
  }
  t.ok(closedCount > 0)
  t.ok(threadCount() <= before, 'no thread is left')
})

t.test('an empty layer over an allocated one is scanned once, not for each batch', async (t) => {
  // 512-byte clusters: an L2 table covers 32 KiB, and a batch 2 MiB.
  const size = 256 * 2 ** 20
  const overlay = new RecordingSource(buildImage({ clusterBits: 9, virtualSize: size }).bytes)
  const base = new RecordingSource(Buffer.alloc(1))
  Object.defineProperty(base, 'size', { value: size })
  await using image = await Qcow2Image.open(overlay, { backingFile: base, backingFormat: 'raw', tableCacheBytes: 1 })
  const before = overlay.reads.length
  const kinds = new Set<string>()
  for await (const { kind } of image.extents()) kinds.add(kind)
  t.strictSame([...kinds], ['data'])
  // Nothing is kept here, so that each look at the table is a read: one for the scan and one for each range mapped.
  t.ok(overlay.reads.length - before <= 2 * (size / 32768), `${overlay.reads.length - before} reads`)
})

t.test('a read of any length works in pieces', async (t) => {
  const { bytes, guest } = compressedDisk('zstd')
  const doubled = Buffer.alloc(guest.length)
  await using image = await Qcow2Image.open(bytes, { threads: 0 })
  t.equal(await image.read(doubled, 0), guest.length)
  t.ok(doubled.equals(guest))
  const odd = Buffer.alloc(guest.length - 70_001)
  t.equal(await image.read(odd, 70_001), odd.length)
  t.ok(odd.equals(guest.subarray(70_001)))
})

t.test('who does not listen gets no stack trace, and the right exit code', { skip: noBash }, async (t) => {
  const folder = t.testdir({ bad: 'not an image' })
  const help = await runBash('"$RUN" "$COMMAND" --help | true; exit $PIPESTATUS')
  t.equal(help.stderr, '')
  t.ok(help.code === 0 || help.code === 1, 'the help was read in time, or nobody read it')
  if (existsSync('/dev/full')) {
    const full = openSync('/dev/full', 'w')
    const { code, stderr } = await runCommand(['--help'], { stdio: ['ignore', full, 'pipe'], isCovered: true })
    closeSync(full)
    t.equal(code, 1)
    t.match(stderr, /^qcow2-to-raw: [^\n]*ENOSPC[^\n]*\n$/)
  }
  const bad = await runBash('"$RUN" "$COMMAND" bad out 2> >(exec 0<&-); exit $?', { cwd: folder })
  t.equal(bad.code, 3)
})

t.test('lists the first snapshots where the wanted one is missing', async (t) => {
  const snapshots = Array.from({ length: 12 }, (_, i) => ({ id: String(i + 1), name: `of day ${i + 1}` }))
  const { bytes } = buildImage({ clusterBits: 12, virtualSize: 4096, snapshots })
  const error = await rejection(t, Qcow2Image.open(bytes, { snapshot: 'none' }))
  t.match((error as Error).message, /; there are "1" \("of day 1"\), .*"10" \("of day 10"\) and 2 more$/)
})

t.test('waits for a descriptor that does not wait itself', { skip: noFifo }, async (t) => {
  const fifo = join(t.testdir(), 'fifo')
  execFileSync('mkfifo', [fifo])
  const descriptor = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK)
  t.teardown(() => {
    closeSync(descriptor)
  })
  // What a pipe holds, so that not one byte more goes in until somebody reads.
  const before = writeSync(descriptor, Buffer.alloc(2 ** 20, 7))
  const { bytes, guest } = compressedDisk('zlib')
  let isUnderWay = false
  const converting = convert(bytes, descriptor, { threads: 0, onProgress: () => (isUnderWay = true) })
  await until(() => isUnderWay)
  await turns(50)
  const all: Buffer[] = []
  for await (const chunk of createFileStream(fifo, { end: before + guest.length - 1 })) all.push(chunk as Buffer)
  t.equal((await converting).bytesWritten, guest.length)
  t.ok(Buffer.concat(all).subarray(before).equals(guest))
})
