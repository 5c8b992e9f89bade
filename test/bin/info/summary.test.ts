/** What a person is told of an image, whatever it says. */
import t from 'tap'
import { summary } from '../../../bin/info/summary.js'
import { Qcow2Image, type Qcow2FileInfo, type Qcow2LuksInfo } from '../../../lib/index.js'
import { buildImage } from '../../fixtures/image-builder.js'

async function infoOf(...spec: Parameters<typeof buildImage>): Promise<Qcow2FileInfo> {
  await using image = await Qcow2Image.open(buildImage(...spec).bytes, { references: 'none' })
  return { ...((await image.info())[0] as Qcow2FileInfo), file: 'a.qcow2', allocatedBytes: 200 * 1024 }
}

/** The text behind a title. */
const row = (lines: readonly string[], title: string): string | undefined =>
  lines.find((line) => line.startsWith(`  ${title} `))?.slice(16)

t.test('a plain image', async (t) => {
  t.strictSame(summary(await infoOf({ virtualSize: 10 * 2 ** 20 }), false), [
    '"a.qcow2"',
    '  virtual size  10 MiB (10485760 bytes)',
    '  on disk       200 KiB',
    '  format        qcow2 version 3 (compat 1.1)',
    '  clusters      64 KiB, refcounts of 16 bits',
    '  compression   zlib, where clusters are compressed',
    '  encryption    none',
    '  features      none',
    '  snapshots     none',
  ])
})

t.test('a raw disk', async (t) => {
  t.strictSame(summary({ format: 'raw', file: 'b', virtualSize: 512, allocatedBytes: undefined }, false), [
    '"b"',
    '  virtual size  512 bytes',
    '  format        raw',
  ])
})

t.test('an old image, and a new one with all features', async (t) => {
  const old = summary(await infoOf({ version: 2 }), false)
  t.equal(row(old, 'format'), 'qcow2 version 2 (compat 0.10)')
  const all = await infoOf({
    compression: 'zstd',
    extendedL2: true,
    incompatibleFeatures: 3n,
    compatibleFeatures: 1n,
    dataFile: { name: 'a.data', raw: true },
  })
  const lines = summary(
    { ...all, header: { ...all.header, features: { ...all.header.features, hasConsistentBitmaps: true } } },
    false,
  )
  t.equal(row(lines, 'compression'), 'zstd, where clusters are compressed')
  t.equal(row(lines, 'data file'), '"a.data" (raw)')
  t.equal(
    row(lines, 'features'),
    'dirty, corrupt, extended L2 entries, lazy refcounts, compression type, external data file, bitmaps',
  )
  const { extensions } = all
  const unnamed = { ...all, extensions: { ...extensions, dataFileName: undefined } }
  const features = { ...all.header.features, isExternalDataFileRaw: false }
  t.equal(row(summary({ ...unnamed, header: { ...all.header, features } }, false), 'data file'), '"" (not raw)')
})

t.test('what is not known, and what is malformed', async (t) => {
  const info = await infoOf({
    compatibleFeatures: 0x30n,
    autoclearFeatures: 1n << 63n,
    featureNames: [{ kind: 1, bit: 5, name: 'fancy' }],
  })
  const expected = 'unknown compatible bit 4 "", unknown compatible bit 5 "fancy", unknown autoclear bit 63 ""'
  t.equal(row(summary(info, false), 'features'), expected)
  const broken = { ...info, bitmapsProblem: 'entry 0: it has no name' }
  t.equal(row(summary(broken, false), 'bitmaps'), 'the directory is malformed: entry 0: it has no name')
  const bitmap = {
    name: 'b',
    granularityBytes: 512,
    isInUse: false,
    isAuto: false,
    bitmapTableOffset: 0,
    bitmapTableSize: 1,
  }
  const half = { ...broken, bitmaps: [bitmap] as unknown as Qcow2FileInfo['bitmaps'] }
  t.ok(summary(half, false).includes('                the directory is malformed: entry 0: it has no name'))
})

t.test('a backing file, opened or not', async (t) => {
  const info = await infoOf({ backingFile: { name: 'base\u001b[2J', format: 'raw' } })
  t.equal(row(summary(info, true), 'backing file'), '"base\\u001b[2J" ("raw")')
  t.equal(row(summary(info, false), 'backing file'), '"base\\u001b[2J" ("raw"); not opened, --backing-chain shows it')
  const probed = await infoOf({ backingFile: { name: 'base' } })
  t.equal(row(summary(probed, true), 'backing file'), '"base" (format not recorded)')
})

t.test('encryption', async (t) => {
  const info = await infoOf()
  const luks: Qcow2LuksInfo = {
    cipherName: 'aes',
    cipherMode: 'cbc',
    ivGenerator: 'essiv',
    ivHash: 'sha256',
    hashSpec: 'sha1',
    cipherKeyBytes: 16,
    uuid: '',
    payloadOffset: 0,
    mkDigestIterations: 1,
    stripes: 4000,
    keySlots: [true, false, true].map((isActive) => ({ isActive, iterations: 1, keyMaterialOffset: 0 })),
  }
  const encrypted = { ...info, header: { ...info.header, cryptMethod: 2 as const } }
  t.equal(
    row(summary({ ...encrypted, luks }, false), 'encryption'),
    'LUKS, aes-128-cbc-essiv:sha256, sha1; passphrases: 2',
  )
  const xts = { ...luks, cipherMode: 'xts', ivGenerator: 'plain64', ivHash: undefined, cipherKeyBytes: 32 }
  t.equal(
    row(summary({ ...encrypted, luks: xts }, false), 'encryption'),
    'LUKS, aes-256-xts-plain64, sha1; passphrases: 2',
  )
  t.equal(row(summary(encrypted, false), 'encryption'), 'AES, in the old way')
})

t.test('bitmaps and snapshots, the first hundred of either', async (t) => {
  const info = await infoOf({
    clusterBits: 12,
    snapshots: Array.from({ length: 102 }, (_, index) => ({
      name: `n${index}`,
      vmStateBytes: index === 1 ? 2 ** 20 : 0,
    })),
  })
  const bitmap = {
    name: 'b',
    granularityBytes: 65536,
    isInUse: true,
    isAuto: true,
    bitmapTableOffset: 0,
    bitmapTableSize: 0,
  }
  const bitmaps = Array.from({ length: 101 }, () => bitmap) as unknown as Qcow2FileInfo['bitmaps']
  const lines = summary({ ...info, bitmaps }, false)
  t.equal(row(lines, 'bitmaps'), '"b", 64 KiB for each bit, auto, in use: may be out of date')
  const plain = [{ ...bitmap, isInUse: false, isAuto: false }] as unknown as Qcow2FileInfo['bitmaps']
  t.equal(row(summary({ ...info, bitmaps: plain }, false), 'bitmaps'), '"b", 64 KiB for each bit')
  t.equal(lines.filter((line) => line.includes('"b", 64 KiB')).length, 100)
  t.ok(lines.includes('                and 1 more'))
  t.equal(row(lines, 'snapshots'), '102')
  t.equal(lines.at(-1), '    and 2 more')
  t.ok(lines.includes('    "1"    "n0"   2023-11-14 22:13:20 UTC  4 KiB'))
  t.ok(lines.includes('    "2"    "n1"   2023-11-14 22:13:20 UTC  4 KiB  and 1 MiB of machine state'))
})
