/**
 * What the files of a chain say about themselves; what they say wrong is an error.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Qcow2FormatError, Qcow2UsageError } from '../../../lib/index.js'
import { luksImage } from '../../fixtures/encrypted-image.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { opened } from '../../fixtures/opened-image.js'
import { sampleBytes } from '../../fixtures/sample-images.js'

const BITMAPS = 0x23852875

/** An image that says it has one bitmap, in a directory of so many bytes at this place. */
function withBitmaps(bytes: bigint, hostOffset: bigint): Buffer {
  const data = Buffer.alloc(24)
  data.writeUInt32BE(1, 0)
  data.writeBigUInt64BE(bytes, 8)
  data.writeBigUInt64BE(hostOffset, 16)
  return buildImage({ autoclearFeatures: 1n, extensions: [{ type: BITMAPS, data }] }).bytes
}

t.test('tells of each file that is open, from the image down', async (t) => {
  const folder = t.testdir({ 'base.raw': Buffer.alloc(1000) })
  const path = join(folder, 'top.qcow2')
  const { bytes } = buildImage({ backingFile: { name: 'base.raw', format: 'raw' }, virtualSize: 5000 })
  writeFileSync(path, bytes)
  const image = await opened(t, path)
  const [top, base, ...more] = await image.info()
  t.strictSame(more, [])
  t.match(top, { format: 'qcow2', file: path, virtualSize: 5000, backingFile: 'base.raw', bitmaps: [], snapshots: [] })
  t.match(base, { format: 'raw', file: join(folder, 'base.raw'), virtualSize: 1000 })
  for (const { allocatedBytes } of [top!, base!]) t.type(allocatedBytes, 'number')

  const alone = await opened(t, path, { references: 'none' })
  t.match(await alone.info(), [{ file: path }], 'what is not open is not told of')
  t.equal((await alone.info()).length, 1)
})

t.test('knows nothing of the room that bytes in memory take', async (t) => {
  const [info] = await (await opened(t, buildImage().bytes)).info()
  t.equal(info!.allocatedBytes, undefined)
})

t.test('tells of encryption what is no secret', async (t) => {
  const [info] = await (await opened(t, sampleBytes('luks.qcow2.gz'))).info()
  t.match(info, {
    luks: { cipherName: 'aes', cipherMode: 'cbc', ivGenerator: 'essiv', ivHash: 'sha256', stripes: 4000 },
  })
  t.equal(info!.format === 'qcow2' && info!.luks?.keySlots.length, 8)
  const xts = await opened(t, luksImage({ virtualSize: 512 }).bytes)
  t.match(await xts.info(), [{ luks: { cipherMode: 'xts', cipherKeyBytes: 32, ivHash: undefined } }])
  t.match(await (await opened(t, sampleBytes('aes.qcow2'))).info(), [{ luks: undefined }])
})

t.test('tells of bitmaps', async (t) => {
  t.match(await (await opened(t, sampleBytes('bitmap.qcow2'))).info(), [{ bitmaps: [{ isInUse: false }] }])
})

t.test('refuses a bitmap directory that is too long, or not there', async (t) => {
  const long = await opened(t, withBitmaps(2n ** 40n, 0x10000n))
  expectError(t, await rejection(t, long.info()), Qcow2FormatError, 'ERR_QCOW2_BAD_BITMAP_DIRECTORY', {
    hostOffset: 0x10000,
  })
  const empty = await opened(t, withBitmaps(32n, 0n))
  expectError(t, await rejection(t, empty.info()), Qcow2FormatError, 'ERR_QCOW2_BAD_BITMAP_DIRECTORY', {
    hostOffset: 0,
  })
  const missing = await opened(t, withBitmaps(32n, 2n ** 40n))
  expectError(t, await rejection(t, missing.info()), Qcow2FormatError, 'ERR_QCOW2_TRUNCATED', { hostOffset: 2 ** 40 })
})

t.test('tells nothing once the image is closed', async (t) => {
  const image = await opened(t, buildImage().bytes)
  await image.close()
  expectError(t, await rejection(t, image.info()), Qcow2UsageError, 'ERR_QCOW2_CLOSED')
})
