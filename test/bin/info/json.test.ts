/** Metadata under qemu-img's names; the oracle tests compare them with the real ones. */
import { sep } from 'node:path'
import t from 'tap'
import { chainJson } from '../../../bin/info/json.js'
import { Qcow2Image, type Qcow2FileInfo, type RawFileInfo } from '../../../lib/index.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { sampleBytes } from '../../fixtures/sample-images.js'

/** What an image in memory says, as if it were a file of that name. */
async function infoOf(file: string, ...spec: Parameters<typeof buildImage>): Promise<Qcow2FileInfo> {
  await using image = await Qcow2Image.open(buildImage(...spec).bytes, { references: 'none' })
  return { ...((await image.info())[0] as Qcow2FileInfo), file }
}

async function sampleInfo(name: string): Promise<Qcow2FileInfo> {
  await using image = await Qcow2Image.open(sampleBytes(name))
  return (await image.info())[0] as Qcow2FileInfo
}

const raw: RawFileInfo = { format: 'raw', file: '/elsewhere/base', virtualSize: 10, allocatedBytes: 0 }

t.test('files of a chain have the names that the ones above have for them', async (t) => {
  const backedBy = (file: string, name: string): Promise<Qcow2FileInfo> =>
    infoOf(file, { backingFile: { name, format: 'raw' } })
  const cases: [file: string, name: string, expected: string][] = [
    ['top', 'base', 'base'],
    ['./top', 'base', './base'],
    ['a//top', 'base', 'a//base'],
    [`a${sep}top`, 'base', `a${sep}base`],
    [`a${sep}top`, `..${sep}base`, `a${sep}..${sep}base`],
    [`${sep}top`, 'base', `${sep}base`],
    [`a${sep}top`, `${sep}x${sep}base`, `${sep}x${sep}base`],
    [`a${sep}top`, 'nbd:host:1', 'nbd:host:1'],
  ]
  for (const [file, name, expected] of cases) {
    const json = chainJson([await backedBy(file, name), raw], [])
    t.match(json, [
      { filename: file, 'backing-filename': name, 'full-backing-filename': expected },
      { filename: expected, format: 'raw', 'dirty-flag': false, 'actual-size': 0 },
    ])
  }
  t.strictSame(Object.keys(chainJson([raw], [])[0] as object).sort(), [
    'actual-size',
    'dirty-flag',
    'filename',
    'format',
    'virtual-size',
  ])
})

t.test('a snapshot has its time to the nanosecond, and its counter if it has one', async (t) => {
  const snapshots = [
    { dateSeconds: 1700000000, dateNanoseconds: 123456789, vmClockNanoseconds: 5_000_000_007n, icount: 9n },
    { dateSeconds: 1700000000, dateNanoseconds: 4_000_000_000 },
  ]
  const [json] = chainJson([await infoOf('a', { snapshots })], [])
  t.match(json, {
    snapshots: [
      { 'date-sec': 1700000000, 'date-nsec': 123456789, 'vm-clock-sec': 5, 'vm-clock-nsec': 7, icount: 9 },
      { 'date-sec': 1700000000, 'date-nsec': 4000000000, icount: undefined },
    ],
  })
})

t.test('warnings are those of the file', async (t) => {
  const info = await infoOf('a', { incompatibleFeatures: 1n })
  const warnings = [
    { code: 'WARN_QCOW2_DIRTY', message: 'dirty', layer: 'a' },
    { code: 'WARN_QCOW2_CORRUPT', message: 'corrupt', layer: 'b' },
  ] as const
  t.match(chainJson([info], warnings), [
    { warnings: [{ code: 'WARN_QCOW2_DIRTY', message: 'dirty' }], 'dirty-flag': true },
  ])
  const broken = { ...info, bitmapsProblem: 'entry 0: it has no name' }
  t.match(chainJson([broken], []), [
    { warnings: [{ code: 'WARN_QCOW2_BAD_BITMAPS', message: 'entry 0: it has no name' }] },
  ])
  const unknown = await infoOf('a', { compatibleFeatures: 4n })
  t.match(chainJson([unknown], []), [{ 'unknown-features': [{ type: 'compatible', bit: 2, name: '' }] }])
})

t.test('features, bitmaps and encryption', async (t) => {
  const info = await infoOf('a', { version: 2, virtualSize: 512 })
  const [old] = chainJson([info], []) as { 'format-specific': { data: object } }[]
  t.strictSame(JSON.parse(JSON.stringify(old!['format-specific'])), {
    type: 'qcow2',
    data: { compat: '0.10', 'compression-type': 'zlib', 'refcount-bits': 16 },
  })
  const { luks } = await sampleInfo('luks.qcow2.gz')
  const bitmap = { name: 'b', granularityBytes: 512, bitmapTableOffset: 0, bitmapTableSize: 1 }
  const full = {
    ...(await infoOf('a', { compression: 'zstd', dataFile: { name: 'd', raw: true } })),
    bitmaps: [
      { ...bitmap, isInUse: true, isAuto: false },
      { ...bitmap, isInUse: false, isAuto: true },
    ] as unknown as Qcow2FileInfo['bitmaps'],
    luks,
  }
  const encrypted = { ...full, header: { ...full.header, cryptMethod: 2 as const } }
  t.match(chainJson([encrypted], []), [
    {
      encrypted: true,
      'format-specific': {
        data: {
          compat: '1.1',
          'compression-type': 'zstd',
          'data-file': 'd',
          'data-file-raw': true,
          bitmaps: [
            { name: 'b', granularity: 512, flags: ['in-use'] },
            { name: 'b', granularity: 512, flags: ['auto'] },
          ],
          encrypt: {
            format: 'luks',
            'cipher-alg': 'aes-128',
            'cipher-mode': 'cbc',
            'ivgen-alg': 'essiv',
            'ivgen-hash-alg': 'sha256',
            slots: [
              { active: true, stripes: 4000 },
              { active: false, iters: undefined },
            ],
          },
        },
      },
    },
  ])
  t.match(chainJson([await sampleInfo('aes.qcow2')], []), [
    { 'format-specific': { data: { encrypt: { format: 'aes' } } } },
  ])
})
