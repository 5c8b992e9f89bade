/**
 * Random reads of an open image: any alignment, short at the end, nothing past it, many at once, wrong calls refused.
 */
import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Qcow2Image, Qcow2UsageError, type Qcow2OpenOptions } from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type BuiltImage } from '../../fixtures/image-builder.js'
import { mixedDisk } from '../../fixtures/mixed-disk.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { filled, pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { samples, unpackedPath, unpackSamples } from '../../fixtures/sample-images.js'

/** Offsets and lengths that a reader may stumble over, around every multiple of `unit`. */
function* ranges(size: number, unit: number): Generator<[offset: number, length: number]> {
  for (let edge = 0; edge <= size + unit; edge += unit) {
    for (const shift of [-1, 0, 1]) {
      const offset = edge + shift
      if (offset >= 0) for (const length of [1, unit - 1, unit, unit + 1, 3 * unit + 7]) yield [offset, length]
    }
  }
}

t.test('reads any range, at any alignment', async (t) => {
  const built = mixedDisk()
  const image = await opened(t, built.bytes)
  const size = built.guest.length
  let count = 0
  for (const [offset, length] of ranges(size, 5 * 16384)) {
    const target = Buffer.alloc(length + 2, 0xee)
    const got = await image.read(target.subarray(1, 1 + length), offset)
    const expected = built.guest.subarray(offset, offset + length)
    const isRight = got === expected.length && expected.equals(target.subarray(1, 1 + got))
    const isUntouched = target.subarray(1 + got).every((byte) => byte === 0xee) && target[0] === 0xee
    if (!isRight || !isUntouched) t.fail(`${length} bytes from ${offset} on`)
    count += 1
  }
  t.ok(count > 500, `${count} ranges`)
})

t.test('a read is short at the end of the disk, and there is nothing past it', async (t) => {
  const built = mixedDisk()
  const image = await opened(t, built.bytes)
  const size = image.virtualSize
  t.equal(size, built.guest.length)
  for (const [offset, length, expected] of [
    [size - 10, 10, 10],
    [size - 10, 11, 10],
    [size - 1, 1000, 1],
    [size, 1000, 0],
    [size, 0, 0],
    [size + 1, 1, 0],
    [2 ** 40, 1, 0],
    [Number.MAX_SAFE_INTEGER, 10, 0],
    [0, 0, 0],
    [100, 0, 0],
  ] as const) {
    const target = Buffer.alloc(length, 0xee)
    t.equal(await image.read(target, offset), expected, `${length} bytes from ${offset} on`)
    t.strictSame(target.subarray(0, expected), built.guest.subarray(offset, offset + expected))
    t.ok(target.subarray(expected).every((byte) => byte === 0xee))
  }
})

t.test('reads into any kind of Uint8Array, from memory and from a file', async (t) => {
  const path = join(t.testdir(), 'image')
  for (const kind of ['compressed', 'data'] as const) {
    const { bytes } = buildImage({ clusters: [[0, { kind, bytes: filled(7, 65536) }]] })
    writeFileSync(path, bytes)
    for (const input of [bytes, path]) {
      const image = await opened(t, input)
      for (const target of [
        new Uint8Array(10),
        Buffer.alloc(10),
        new Uint8Array(new ArrayBuffer(30), 20, 10),
        new Uint8Array(new SharedArrayBuffer(10)),
      ]) {
        t.equal(await image.read(target, 65530), 6)
        t.strictSame([...target], [7, 7, 7, 7, 7, 7, 0, 0, 0, 0])
      }
    }
  }
})

t.test('many reads at once do not get into each other', async (t) => {
  const built = mixedDisk()
  const sources: [string, () => Uint8Array | RecordingSource, Qcow2OpenOptions][] = [
    ['from memory', () => built.bytes, {}],
    [
      'from a slow source that reads a little at a time',
      () => new RecordingSource(built.bytes, { mostBytes: 5000, beforeRead: () => new Promise(setImmediate) }),
      { tableCacheBytes: 1 },
    ],
  ]
  for (const [how, input, options] of sources) {
    const image = await opened(t, input(), options)
    const reads = Array.from({ length: 200 }, async (_, i) => {
      const offset = (i * 7919 * 131) % built.guest.length
      const length = 1 + ((i * 104729) % 60000)
      const bytes = await readBytes(image, offset, length)
      return bytes.equals(built.guest.subarray(offset, offset + length))
    })
    t.ok((await Promise.all(reads)).every(Boolean), how)
  }
})

t.test('refuses what is no target and no offset', async (t) => {
  const image = await opened(t, buildImage().bytes)
  for (const target of [undefined, null, 10, [], 'bytes', new ArrayBuffer(1), new DataView(new ArrayBuffer(1))]) {
    const error = await rejection(t, image.read(target as unknown as Uint8Array, 0))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'target', actual: target })
  }
  for (const offset of [undefined, null, -1, 0.5, NaN, Infinity, 2 ** 53, 10n, '0', {}]) {
    const error = await rejection(t, image.read(Buffer.alloc(1), offset as number))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'guestOffset', actual: offset })
    t.match((error as Error).message, /allowed is an integer from 0 to 2\^53 - 1$/)
  }
})

t.test('refuses options that make no sense, and leaves the input alone', async (t) => {
  const cases: [field: string, values: readonly unknown[]][] = [
    ['tableCacheBytes', [0, -1, 1.5, NaN, Infinity, 2 ** 53, '1', null]],
    ['threads', [-1, 1.5, 65, NaN, Infinity, '1', null]],
    ['spoolDirectory', ['', 5, null, false, {}]],
    ['onSpool', [null, 'log', {}]],
  ]
  for (const [field, values] of cases) {
    for (const value of values) {
      const source = new RecordingSource(buildImage().bytes)
      const error = await rejection(t, Qcow2Image.open(source, { [field]: value }))
      expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field, actual: value })
      t.strictSame([source.reads.length, source.closeCount], [0, 0])
    }
  }
  for (const options of [{ tableCacheBytes: 1 }, { tableCacheBytes: 2 ** 40 }, { threads: 0 }, { threads: 64 }]) {
    t.equal((await opened(t, buildImage({ virtualSize: 5 }).bytes, options)).virtualSize, 5)
  }
  const none: Qcow2OpenOptions = {
    snapshot: undefined,
    backingFile: undefined,
    references: undefined,
    dataFile: undefined,
    spoolDirectory: undefined,
    onSpool: undefined,
  }
  t.equal((await opened(t, buildImage({ virtualSize: 5 }).bytes, none)).virtualSize, 5, 'undefined means the default')
})

t.test('reads the images that qemu-img made', async (t) => {
  const folder = t.testdir()
  unpackSamples(folder)
  for (const { file, passphrase, disks } of samples.images) {
    for (const { snapshot, virtualSize, sha256 } of disks) {
      const image = await opened(t, unpackedPath(folder, file), { snapshot, passphrase })
      t.equal(image.virtualSize, virtualSize)
      const digest = createHash('sha256')
        .update(await readBytes(image))
        .digest('hex')
      t.equal(digest, sha256, `${file} ${snapshot ?? ''}`)
      await image.close()
    }
  }
})

t.test('copies nothing of the image that it hands out as metadata', async (t) => {
  const built: BuiltImage = buildImage({
    clusters: [[0, { kind: 'data', bytes: pattern(1, 65536) }]],
    extensions: [{ type: 0x12345678, data: Buffer.from('kept') }],
  })
  const before = Buffer.from(built.bytes)
  const image = await opened(t, built.bytes)
  image.extensions.unknown[0]?.data.fill(0)
  t.ok(before.equals(built.bytes), 'the bytes of an extension are a copy')
})
