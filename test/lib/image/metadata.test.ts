/**
 * What is read of an image before its tables: where it stands, how far it may reach, and the oddities worth a warning.
 */
import t from 'tap'
import { Qcow2FormatError, Qcow2Image, Qcow2SourceError } from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type ImageSpec } from '../../fixtures/image-builder.js'
import { opened } from '../../fixtures/opened-image.js'
import { pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'

const UNKNOWN = 0x0badcafe
const BITMAPS = 0x23852875

t.test('says what the header and its extensions say', async (t) => {
  const built = buildImage({
    clusterBits: 12,
    virtualSize: 123456,
    compression: 'zstd',
    backingFile: { name: 'base.raw', format: 'raw' },
    featureNames: [{ kind: 0, bit: 0, name: 'dirty bit' }],
    refcountOrder: 5,
  })
  const image = await opened(t, built.bytes, { backingFile: null })
  t.equal(image.virtualSize, 123456)
  t.equal(image.clusterSize, 4096)
  t.match(image.header, { version: 3, clusterBits: 12, size: 123456, refcountOrder: 5, compressionType: 1 })
  t.equal(image.backingFile, 'base.raw')
  t.equal(image.dataFile, undefined)
  t.match(image.extensions, {
    backingFormat: 'raw',
    featureNames: [{ mask: 'incompatible', bit: 0, name: 'dirty bit' }],
    unknown: [],
  })
  t.strictSame([image.snapshots, image.snapshot, image.warnings], [[], undefined, []])
})

t.test('reads no more than the first cluster to open a plain image', async (t) => {
  for (const [clusterBits, size] of [
    [9, 1000],
    [16, 100000],
    [21, 5000000],
  ] as const) {
    const source = new RecordingSource(buildImage({ clusterBits, virtualSize: size }).bytes)
    await opened(t, source)
    t.ok(
      source.reads.every(({ offset, length }) => offset === 0 && length <= Math.max(65536, 2 ** clusterBits)),
      `${2 ** clusterBits}: ${JSON.stringify(source.reads)}`,
    )
    t.ok(source.reads.length <= 2)
  }
})

t.test('finds extensions and the backing name in the far part of a large first cluster', async (t) => {
  const data = pattern(1, 150000)
  const built = buildImage({
    clusterBits: 18,
    extensions: [{ type: UNKNOWN, data }],
    backingFile: { name: 'far/away.raw', format: 'raw' },
  })
  t.ok(built.layout.backingFileOffset > 65536)
  const image = await opened(t, built.bytes, { references: 'none' })
  t.equal(image.backingFile, 'far/away.raw')
  t.strictSame(
    image.extensions.unknown.map((extension) => Buffer.from(extension.data)),
    [data],
  )
})

t.test('opens an image whose file ends in the first cluster, as long as nothing in it is missing', async (t) => {
  const { bytes } = buildImage({ clusterBits: 21, virtualSize: 0, backingFile: { name: 'base', format: 'raw' } })
  const image = await opened(t, bytes.subarray(0, 300), { references: 'none' })
  t.equal(image.backingFile, 'base')
})

t.test('misses the rest of a backing name that the end of the file cuts off', async (t) => {
  for (const clusterBits of [16, 21]) {
    const { bytes, layout } = buildImage({ clusterBits, backingFile: { name: 'base.raw', format: 'raw' } })
    const cut = bytes.subarray(0, layout.backingFileOffset + 4)
    const error = await rejection(t, Qcow2Image.open(cut, { references: 'none' }))
    expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_TRUNCATED', {
      layer: 'image in memory',
      hostOffset: layout.backingFileOffset,
    })
  }
})

t.test('a backing name ends at a NUL, and an empty one is none', async (t) => {
  for (const [name, expected] of [
    ['base.raw\0/etc/passwd', 'base.raw'],
    ['\0base.raw', undefined],
    ['', undefined],
    ['b\u00e4se \u{1f4be}.raw', 'b\u00e4se \u{1f4be}.raw'],
  ] as const) {
    const image = await opened(t, buildImage({ backingFile: { name } }).bytes, { references: 'none' })
    t.equal(image.backingFile, expected)
    t.equal(image.backingChain.length, 1)
  }
})

t.test('refuses what is no image, however short', async (t) => {
  for (const bytes of [Buffer.alloc(0), Buffer.from('QFI'), Buffer.from('QFI\xfc', 'latin1'), pattern(1, 1000)]) {
    const error = await rejection(t, Qcow2Image.open(bytes))
    expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_MAGIC', { layer: 'image in memory', hostOffset: 0 })
  }
})

t.test('passes on that the image cannot be read', async (t) => {
  const cause = new Error('EIO')
  const source = new RecordingSource(buildImage().bytes, {
    beforeRead: () => {
      throw cause
    },
  })
  const error = await rejection(t, Qcow2Image.open(source))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { hostOffset: 0, cause })
  t.equal(source.closeCount, 1)
})

const ODDITIES: readonly (readonly [code: string, says: RegExp, spec: ImageSpec])[] = [
  ['WARN_QCOW2_DIRTY', /was not closed properly/, { incompatibleFeatures: 1n }],
  ['WARN_QCOW2_CORRUPT', /is marked corrupt/, { incompatibleFeatures: 2n }],
  ['WARN_QCOW2_INCONSISTENT_BITMAPS', /bitmaps/, { autoclearFeatures: 1n }],
  [
    'WARN_QCOW2_UNKNOWN_EXTENSION',
    /header extension 0xbadcafe is not known/,
    { extensions: [{ type: UNKNOWN, data: Buffer.from('\u001b[31m') }] },
  ],
]

for (const [code, says, spec] of ODDITIES) {
  t.test(`warns with ${code} and reads the disk all the same`, async (t) => {
    const built = buildImage({ ...spec, clusters: [[0, { kind: 'data', bytes: pattern(3, 65536) }]] })
    const image = await opened(t, built.bytes)
    t.strictSame(
      image.warnings.map((warning) => [warning.code, warning.layer]),
      [[code, 'image in memory']],
    )
    const { message } = image.warnings[0]!
    t.match(message, says)
    t.match(message, /^"image in memory": /)
    t.notMatch(message, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
    const target = Buffer.alloc(65536)
    t.equal(await image.read(target, 0), 65536)
    t.strictSame(target, built.guest)
  })
}

t.test('does not warn of bitmaps that are there, nor of bits that do not matter', async (t) => {
  const bitmaps = Buffer.alloc(24)
  bitmaps.writeUInt32BE(1, 0)
  bitmaps.writeBigUInt64BE(24n, 8)
  bitmaps.writeBigUInt64BE(65536n, 16)
  const specs: ImageSpec[] = [
    { autoclearFeatures: 1n, extensions: [{ type: BITMAPS, data: bitmaps }] },
    { extensions: [{ type: BITMAPS, data: bitmaps }] },
    { compatibleFeatures: 0xffn },
    { autoclearFeatures: 0x10n },
  ]
  for (const spec of specs) t.strictSame((await opened(t, buildImage(spec).bytes)).warnings, [])
})

t.test('warns of each layer by its own name', async (t) => {
  const base = buildImage({ incompatibleFeatures: 2n, clusterBits: 9 })
  const top = buildImage({ incompatibleFeatures: 3n, clusterBits: 9 })
  const image = await opened(t, top.bytes, { backingFile: new RecordingSource(base.bytes), backingFormat: 'qcow2' })
  t.strictSame(
    image.warnings.map(({ code, layer }) => `${code} ${layer}`),
    [
      'WARN_QCOW2_DIRTY image in memory',
      'WARN_QCOW2_CORRUPT image in memory',
      'WARN_QCOW2_CORRUPT image from a source',
    ],
  )
})
