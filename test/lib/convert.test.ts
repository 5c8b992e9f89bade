// One call from an image to a raw disk: the bytes, the length, the options, what it reports and what it says on the way.
import fs, {
  closeSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { convert, Qcow2UsageError, type Qcow2Progress } from '../../lib/index.js'
import { dataRanges } from '../../lib/sink/zeros.js'
import { expectError, rejection } from '../fixtures/expect-error.js'
import { buildImage, type ClusterSpec } from '../fixtures/image-builder.js'
import { mixedDisk } from '../fixtures/mixed-disk.js'
import { cannotCount, openDescriptors } from '../fixtures/open-descriptors.js'
import { patchFs, patchHandles } from '../fixtures/patched-fs.js'
import { filled, pattern } from '../fixtures/patterns.js'
import { RecordingSource } from '../fixtures/recording-source.js'

const disk = mixedDisk()
const { guest } = disk
const TIB = 2 ** 40

t.test('writes the bytes of the disk, from whatever the image is read and however the output is named', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'disk.qcow2')
  writeFileSync(path, disk.bytes)
  const handle = await open(path)
  t.teardown(() => handle.close())
  const source = new RecordingSource(disk.bytes)
  const inputs = { path, url: pathToFileURL(path), bytes: disk.bytes, handle, source }
  for (const [name, input] of Object.entries(inputs)) {
    const out = join(folder, `${name} out`)
    const result = await convert(input, name === 'url' ? pathToFileURL(out) : out, { blocking: name === 'path' })
    t.ok(readFileSync(out).equals(guest), name)
    t.same(result.length, guest.length)
    t.ok(result.bytesWritten > 0 && result.bytesWritten < guest.length, 'holes are not written')
    t.same(result.warnings, [])
  }
  t.ok((await handle.stat()).isFile(), 'the handle is open')
  t.same({ closed: source.closeCount, late: source.readsAfterClose }, { closed: 1, late: 0 })
  t.same(
    readdirSync(folder).filter((name) => name.endsWith('.part')),
    [],
  )
  if (cannotCount === false) t.same(openDescriptors(folder), [handle.fd])
})

t.test('blocks the calling thread to write only if it may', async (t) => {
  const { writeSync } = fs
  let writes = 0
  patchFs(t, {
    writeSync: (...parameters: Parameters<typeof writeSync>) => {
      writes += 1
      return writeSync(...parameters)
    },
  })
  const folder = t.testdir()
  for (const blocking of [undefined, false, true]) {
    writes = 0
    const out = join(folder, `out ${blocking}`)
    await convert(disk.bytes, out, { blocking })
    t.equal(writes > 0, blocking === true, `blocking: ${blocking}`)
    t.ok(readFileSync(out).equals(guest))
  }
})

t.test('writes a part of the disk to the beginning of a file of just that length', async (t) => {
  const size = guest.length
  const ranges: { start?: number; end?: number }[] = [
    { start: 1 },
    { start: 4097, end: 2_000_000 },
    { start: 160 * 16_384, end: 190 * 16_384 },
    { end: 0 },
    { start: size - 1 },
    { start: size - 1, end: 2 * size },
    { start: size },
    { start: 2 * size, end: 3 * size },
  ]
  for (const { start = 0, end } of ranges) {
    const out = join(t.testdir(), 'out')
    const result = await convert(disk.bytes, out, { start, end })
    const expected = guest.subarray(start, end === undefined ? undefined : end + 1)
    t.ok(readFileSync(out).equals(expected), `${start} to ${end}: ${expected.length} bytes`)
    t.equal(result.length, expected.length)
  }
})

t.test('writes every byte if holes are not wanted', async (t) => {
  const out = join(t.testdir(), 'out')
  const result = await convert(disk.bytes, out, { sparse: false })
  t.ok(readFileSync(out).equals(guest))
  t.equal(result.bytesWritten, guest.length)
  const { blocks } = statSync(out)
  t.ok(blocks * 512 >= guest.length, `${blocks} blocks are allocated`)
})

t.test('allocates no more blocks than the data need', async (t) => {
  const clusters: [number, ClusterSpec][] = []
  for (let i = 0; i < 60; i++) {
    // One block of data in every other 4 KiB block, moving through the cluster; some compressed.
    const bytes = Buffer.alloc(65_536)
    for (let at = (i % 2) * 4096; at < bytes.length; at += 8192) bytes.set(pattern(i, 100), at + i * 10)
    clusters.push([i * 3, i % 5 === 0 ? { kind: 'compressed', bytes } : { kind: 'data', bytes }])
  }
  const image = buildImage({ clusters, virtualSize: 180 * 65_536 + 777 })
  const folder = t.testdir()
  const out = join(folder, 'out')
  await convert(image.bytes, out, { fsync: true })
  t.ok(readFileSync(out).equals(image.guest))

  const fd = openSync(join(folder, 'least'), 'wx')
  for (const { start, end } of dataRanges(image.guest, 0)) writeSync(fd, image.guest, start, end - start, start)
  ftruncateSync(fd, image.guest.length)
  fsyncSync(fd)
  const least = fstatSync(fd).blocks
  closeSync(fd)
  // What a file system adds to keep track of the parts depends on the order in which they were written.
  const { blocks } = statSync(out)
  t.ok(blocks <= least + 64, `${blocks} blocks, ${least} at least`)
  if (least * 512 > image.guest.length / 2) t.comment('this file system makes no holes')
})

t.test('takes no time for holes of terabytes', async (t) => {
  const out = join(t.testdir(), 'out')
  for (const [size, clusters] of [
    [TIB, []],
    [12 * TIB + 512, [[5_000_000, { kind: 'data', bytes: pattern(1, 2 ** 21) }]]],
  ] as [number, [number, ClusterSpec][]][]) {
    const image = buildImage({ clusterBits: 21, virtualSize: size, clusters })
    const result = await convert(image.bytes, out, { force: true })
    t.equal(statSync(out).size, size)
    t.equal(result.length, size)
    t.equal(result.bytesWritten, clusters.length * 2 ** 21)
  }
})

t.test('makes an empty file of an empty disk', async (t) => {
  const out = join(t.testdir(), 'out')
  const result = await convert(buildImage({ virtualSize: 0 }).bytes, out)
  t.same(result, { length: 0, bytesWritten: 0, digest: undefined, warnings: [] })
  t.equal(statSync(out).size, 0)
})

t.test('passes the options of opening on, and warnings back', async (t) => {
  const image = buildImage({
    clusterBits: 12,
    virtualSize: 8192,
    clusters: [[0, { kind: 'data', bytes: pattern(1, 4096) }]],
    incompatibleFeatures: 1n,
    snapshots: [{ name: 'before', clusters: [[0, { kind: 'data', bytes: pattern(2, 4096) }]], virtualSize: 5000 }],
  })
  const folder = t.testdir({ base: filled(7, 8192) })
  const out = join(folder, 'out')
  const result = await convert(image.bytes, out, { backingFile: join(folder, 'base'), backingFormat: 'raw' })
  t.ok(readFileSync(out).equals(Buffer.concat([pattern(1, 4096), filled(7, 4096)])))
  t.match(result.warnings, [{ code: 'WARN_QCOW2_DIRTY', layer: 'image in memory' }])
  const { length } = await convert(image.bytes, out, { snapshot: 'before', force: true })
  t.equal(length, 5000)
  t.ok(readFileSync(out).equals(Buffer.concat([pattern(2, 4096), filled(0, 904)])))
})

t.test('says how far it has come: never back, to the end', async (t) => {
  for (const options of [{}, { start: 100, end: 3_000_000 }, { sparse: false }]) {
    const seen: Qcow2Progress[] = []
    const out = join(t.testdir(), 'out')
    const { length } = await convert(disk.bytes, out, { ...options, onProgress: (progress) => seen.push(progress) })
    t.ok(seen.length > 1)
    t.ok(
      seen.every(({ bytesTotal }) => bytesTotal === length),
      'the total is the length of the output',
    )
    t.ok(seen.every(({ bytesDone }, i) => bytesDone > (seen[i - 1]?.bytesDone ?? 0)))
    t.equal(seen[seen.length - 1]?.bytesDone, length)
    t.ok(seen.every(({ bytesPerSecond }) => Number.isInteger(bytesPerSecond) && bytesPerSecond > 0))
    t.ok(
      seen.every(({ bytesDone, secondsLeft }) => (secondsLeft === 0) === (bytesDone === length)),
      'no time is left at the end, and only there',
    )
  }
})

t.test('ends with what onProgress throws, and without an output', async (t) => {
  for (const thrown of [new Error('stop'), 'a word', null, undefined] as unknown[]) {
    const folder = t.testdir()
    const error = await rejection(
      t,
      convert(disk.bytes, join(folder, 'out'), {
        onProgress: () => {
          throw thrown
        },
      }),
    )
    if (thrown instanceof Error) t.equal(error, thrown)
    else t.same((error as Error).cause, thrown)
    t.same(readdirSync(folder), [])
  }
})

t.test('flushes the output if that is asked for, and only then', async (t) => {
  for (const fsync of [true, false, undefined]) {
    let count = 0
    await patchHandles(
      t,
      'sync',
      (original) =>
        function (...parameters) {
          count += 1
          return original.apply(this, parameters)
        },
    )
    await convert(disk.bytes, join(t.testdir(), 'out'), { fsync })
    t.equal(count, fsync === true ? 2 : 0, 'the file and its folder')
  }
})

t.test('refuses ranges that are none, and a salvage that cannot be called, before it opens anything', async (t) => {
  const cases: [string, unknown, object][] = [
    ['start', -1, { start: -1 }],
    ['start', '0', { start: '0' }],
    ['end', 0.5, { end: 0.5 }],
    ['end', 1, { start: 2, end: 1 }],
    ['salvage', true, { salvage: true }],
  ]
  for (const [field, actual, options] of cases) {
    const folder = t.testdir()
    const source = new RecordingSource(disk.bytes)
    const error = await rejection(t, convert(source, join(folder, 'out'), options))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field, actual })
    t.equal(source.reads.length, 0)
    t.same(readdirSync(folder), [])
  }
})
