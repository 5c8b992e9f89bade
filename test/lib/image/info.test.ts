/**
 * What the files of a chain say about themselves; what they say wrong is an error.
 */
import { truncateSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { Qcow2UsageError } from '../../../lib/index.js'
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

t.test('tells what is wrong with a bitmap directory, and everything else all the same', async (t) => {
  const cases: [bytes: bigint, hostOffset: bigint, problem: RegExp][] = [
    [2n ** 40n, 0x10000n, /^it has 1099511627776 bytes, allowed are 1 to 67107840$/],
    [0n, 0x10000n, /^it has 0 bytes/],
    [32n, 2n ** 40n, /^entry 0: it does not fit into the directory$/],
    [32n, 0n, /^entry 0: /],
  ]
  for (const [bytes, hostOffset, problem] of cases) {
    const image = await opened(t, withBitmaps(bytes, hostOffset))
    t.match(await image.info(), [{ format: 'qcow2', bitmaps: [], bitmapsProblem: problem }])
  }
})

t.test('directories of a chain share the room for them', async (t) => {
  const folder = t.testdir()
  const size = 40 * 2 ** 20
  const directory = Buffer.from(
    '00000000000300000000000100000002010a000100000000'.padEnd(64, '0').replace(/^(.{48})00/, '$161'),
    'hex',
  )
  for (const [name, backing] of [
    ['a.qcow2', 'b.qcow2'],
    ['b.qcow2', undefined],
  ] as const) {
    const data = Buffer.alloc(24)
    data.writeUInt32BE(1, 0)
    data.writeBigUInt64BE(BigInt(size), 8)
    data.writeBigUInt64BE(0x100000n, 16)
    const { bytes } = buildImage({
      autoclearFeatures: 1n,
      extensions: [{ type: BITMAPS, data }],
      ...(backing && { backingFile: { name: backing, format: 'qcow2' } }),
    })
    writeFileSync(join(folder, name), bytes)
    truncateSync(join(folder, name), 0x100000 + size)
    const handle = await open(join(folder, name), 'r+')
    await handle.write(directory, 0, directory.length, 0x100000)
    await handle.close()
  }
  const [top, base] = await (await opened(t, join(folder, 'a.qcow2'))).info()
  t.match(top, { bitmaps: [{ name: 'a', granularityBytes: 1024 }], bitmapsProblem: /bytes follow the last entry/ })
  t.match(base, { bitmaps: [], bitmapsProblem: `it has ${size} bytes, allowed are 1 to ${65535 * 1024 - size}` })
})

t.test('tells nothing once the image is closed', async (t) => {
  const image = await opened(t, buildImage().bytes)
  await image.close()
  expectError(t, await rejection(t, image.info()), Qcow2UsageError, 'ERR_QCOW2_CLOSED')
})
