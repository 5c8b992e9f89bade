// Each header field on its own: the last values allowed and the first refused on either side.
import t from 'tap'
import { Qcow2FormatError, Qcow2UnsupportedError } from '../../../lib/errors.js'
import { parseHeader, type Qcow2Header } from '../../../lib/format/header.js'
import { refuses } from '../../fixtures/expect-refusal.js'
import { version2Header, version3Header, type FieldEdit } from '../../fixtures/header-samples.js'

const parse = (bytes: Uint8Array) => parseHeader(bytes, 'disk.qcow2')

// Edits by the name of the field, at its literal place.
const field = (at: number, width: 1 | 4 | 8) => (value: number | bigint) => [at, width, value] as const
const backingFileOffset = field(8, 8)
const backingFileSize = field(16, 4)
const clusterBits = field(20, 4)
const size = field(24, 8)
const cryptMethod = field(32, 4)
const l1Size = field(36, 4)
const l1TableOffset = field(40, 8)
const refcountTableOffset = field(48, 8)
const refcountTableClusters = field(56, 4)
const nbSnapshots = field(60, 4)
const snapshotsOffset = field(64, 8)
const incompatible = field(72, 8)
const autoclear = field(88, 8)
const refcountOrder = field(96, 4)
const headerLength = field(100, 4)
const compressionType = field(104, 1)

const noDisk = size(0)
const DATA_FILE = 4n
const COMPRESSION = 8n
const EXTENDED_L2 = 16n
const RAW_DATA_FILE = 2n
const MAX_SAFE = 2 ** 53 - 1

type Accepted = readonly [title: string, edits: readonly FieldEdit[], fields: Readonly<Record<string, unknown>>]

const accepted: readonly Accepted[] = [
  ['the smallest clusters', [clusterBits(9), noDisk], { clusterBits: 9 }],
  ['the largest clusters', [clusterBits(21)], { clusterBits: 21 }],
  ['the smallest clusters with subclusters', [clusterBits(14), incompatible(EXTENDED_L2), noDisk], { clusterBits: 14 }],
  ['the largest clusters with subclusters', [clusterBits(21), incompatible(EXTENDED_L2)], { clusterBits: 21 }],
  ['an empty disk', [noDisk], { size: 0 }],
  ['a disk of one byte', [size(1)], { size: 1 }],
  ['a size that is no multiple of anything', [size(999_999_937)], { size: 999_999_937 }],
  ['the largest disk', [clusterBits(21), l1Size(16384), size(MAX_SAFE)], { size: MAX_SAFE }],
  ['no encryption', [cryptMethod(0)], { cryptMethod: 0 }],
  ['AES, kept for the one who refuses it', [cryptMethod(1)], { cryptMethod: 1 }],
  ['LUKS, kept for the one who refuses it', [cryptMethod(2)], { cryptMethod: 2 }],
  ['no L1 table for an empty disk', [noDisk, l1Size(0), l1TableOffset(0)], { l1Size: 0, l1TableOffset: 0 }],
  ['an L1 table just long enough', [l1Size(1), size(2 ** 29)], { l1Size: 1 }],
  ['an L1 table just long enough for half-sized reach', [l1Size(4), incompatible(EXTENDED_L2)], { l1Size: 4 }],
  ['the longest L1 table', [l1Size(4194304)], { l1Size: 4194304 }],
  ['the highest L1 table', [l1TableOffset(2 ** 53 - 65536)], { l1TableOffset: 2 ** 53 - 65536 }],
  ['a refcount table at 0', [refcountTableOffset(0)], { refcountTableOffset: 0 }],
  ['the highest refcount table', [refcountTableOffset(2 ** 53 - 65536)], { refcountTableOffset: 2 ** 53 - 65536 }],
  ['8 MiB of refcount table', [refcountTableClusters(128)], { refcountTableClusters: 128 }],
  [
    '8 MiB of refcount table in the smallest clusters',
    [clusterBits(9), noDisk, refcountTableClusters(16384)],
    { refcountTableClusters: 16384 },
  ],
  [
    '8 MiB of refcount table in the largest clusters',
    [clusterBits(21), refcountTableClusters(4)],
    { refcountTableClusters: 4 },
  ],
  ['one snapshot', [nbSnapshots(1), snapshotsOffset(65536)], { nbSnapshots: 1, snapshotsOffset: 65536 }],
  ['the most snapshots', [nbSnapshots(65536), snapshotsOffset(65536)], { nbSnapshots: 65536 }],
  [
    'the highest snapshot table',
    [nbSnapshots(1), snapshotsOffset(2 ** 53 - 65536)],
    { snapshotsOffset: 2 ** 53 - 65536 },
  ],
  ['a snapshot table without snapshots', [snapshotsOffset(65536)], { nbSnapshots: 0, snapshotsOffset: 65536 }],
  ['refcounts of one bit', [refcountOrder(0)], { refcountOrder: 0 }],
  ['refcounts of 64 bits', [refcountOrder(6)], { refcountOrder: 6 }],
  ['the shortest header', [headerLength(104)], { headerLength: 104 }],
  ['a header as long as a cluster', [headerLength(65536)], { headerLength: 65536 }],
  ['a header as long as the smallest cluster', [headerLength(512), clusterBits(9), noDisk], { headerLength: 512 }],
  ['zstd', [incompatible(COMPRESSION), compressionType(1)], { compressionType: 1 }],
  [
    'a compression type that is not known, kept for the one who refuses it',
    [incompatible(COMPRESSION), compressionType(255)],
    { compressionType: 255 },
  ],
  ['a raw data file', [incompatible(DATA_FILE), autoclear(RAW_DATA_FILE)], { autoclearFeatures: 2n }],
  [
    'a backing name right after the header',
    [backingFileOffset(112), backingFileSize(1)],
    { backingFileOffset: 112, backingFileSize: 1 },
  ],
  [
    'the longest backing name, up to the end of the first cluster',
    [backingFileOffset(64513), backingFileSize(1023)],
    { backingFileOffset: 64513, backingFileSize: 1023 },
  ],
  [
    'a backing name of no length at the end of the first cluster',
    [backingFileOffset(65536), backingFileSize(0)],
    { backingFileOffset: 65536, backingFileSize: 0 },
  ],
  ['a length of no name is no name', [backingFileSize(0xffff_ffff)], { backingFileOffset: 0, backingFileSize: 0 }],
  [
    'a backing file and a data file that is not raw',
    [incompatible(DATA_FILE), backingFileOffset(200), backingFileSize(9)],
    { backingFileSize: 9 },
  ],
  [
    'a backing name of no length with a raw data file',
    [incompatible(DATA_FILE), autoclear(RAW_DATA_FILE), backingFileOffset(200), backingFileSize(0)],
    { backingFileSize: 0 },
  ],
]

for (const [title, edits, fields] of accepted) {
  t.test(`accepts ${title}`, async (t) => {
    const header = parse(version3Header(...edits))
    const found = Object.fromEntries(Object.keys(fields).map((name) => [name, header[name as keyof Qcow2Header]]))
    t.strictSame(found, fields)
  })
}

t.test('accepts the longest version 2 backing name right after its header', async (t) => {
  const header = parse(version2Header([8, 8, 72], [16, 4, 1023]))
  t.equal(header.backingFileOffset, 72)
  t.equal(header.backingFileSize, 1023)
})

type Refused = readonly [edits: readonly FieldEdit[], name: string, at: number, actual: unknown]

const refused: readonly Refused[] = [
  [[clusterBits(0)], 'clusterBits', 20, 0],
  [[clusterBits(8), noDisk], 'clusterBits', 20, 8],
  [[clusterBits(22)], 'clusterBits', 20, 22],
  [[clusterBits(0x8000_0010)], 'clusterBits', 20, 0x8000_0010],
  [[clusterBits(13), incompatible(EXTENDED_L2), noDisk], 'clusterBits', 20, 13],
  [[clusterBits(9), incompatible(EXTENDED_L2), noDisk], 'clusterBits', 20, 9],
  [[cryptMethod(3)], 'cryptMethod', 32, 3],
  [[cryptMethod(0xffff_ffff)], 'cryptMethod', 32, 0xffff_ffff],
  [[l1Size(1)], 'l1Size', 36, 1],
  [[l1Size(0)], 'l1Size', 36, 0],
  [[size(2 ** 30 + 1)], 'l1Size', 36, 2],
  [[l1Size(3), incompatible(EXTENDED_L2)], 'l1Size', 36, 3],
  [[l1Size(16383), clusterBits(21), size(MAX_SAFE)], 'l1Size', 36, 16383],
  [[l1Size(4194305)], 'l1Size', 36, 4194305],
  [[l1Size(0xffff_ffff)], 'l1Size', 36, 0xffff_ffff],
  [[l1TableOffset(0)], 'l1TableOffset', 40, 0],
  [[l1TableOffset(0), size(1)], 'l1TableOffset', 40, 0],
  [[l1TableOffset(65537)], 'l1TableOffset', 40, '0x10001'],
  [[l1TableOffset(0x8000)], 'l1TableOffset', 40, '0x8000'],
  [[l1TableOffset(512), noDisk], 'l1TableOffset', 40, '0x200'],
  [[l1TableOffset(0x1_0000_0200)], 'l1TableOffset', 40, '0x100000200'],
  [[refcountTableOffset(1)], 'refcountTableOffset', 48, '0x1'],
  [[refcountTableOffset(0x8000)], 'refcountTableOffset', 48, '0x8000'],
  [[refcountTableClusters(0)], 'refcountTableClusters', 56, 0],
  [[refcountTableClusters(129)], 'refcountTableClusters', 56, 129],
  [[clusterBits(9), noDisk, refcountTableClusters(16385)], 'refcountTableClusters', 56, 16385],
  [[clusterBits(21), refcountTableClusters(5)], 'refcountTableClusters', 56, 5],
  [[nbSnapshots(65537), snapshotsOffset(65536)], 'nbSnapshots', 60, 65537],
  [[nbSnapshots(0xffff_ffff), snapshotsOffset(65536)], 'nbSnapshots', 60, 0xffff_ffff],
  [[nbSnapshots(1), snapshotsOffset(65528)], 'snapshotsOffset', 64, '0xfff8'],
  [[nbSnapshots(0), snapshotsOffset(5)], 'snapshotsOffset', 64, '0x5'],
  [[refcountOrder(7)], 'refcountOrder', 96, 7],
  [[refcountOrder(0xffff_ffff)], 'refcountOrder', 96, 0xffff_ffff],
  [[headerLength(0)], 'headerLength', 100, 0],
  [[headerLength(72)], 'headerLength', 100, 72],
  [[headerLength(103)], 'headerLength', 100, 103],
  [[headerLength(105)], 'headerLength', 100, 105],
  [[headerLength(108)], 'headerLength', 100, 108],
  [[headerLength(65537)], 'headerLength', 100, 65537],
  [[headerLength(65544)], 'headerLength', 100, 65544],
  [[headerLength(520), clusterBits(9), noDisk], 'headerLength', 100, 520],
  [[headerLength(0xffff_fff8)], 'headerLength', 100, 0xffff_fff8],
  [[incompatible(COMPRESSION)], 'compressionType', 104, 0],
  [[incompatible(COMPRESSION), headerLength(104)], 'compressionType', 104, 0],
  [[compressionType(1)], 'compressionType', 104, 1],
  [[autoclear(RAW_DATA_FILE)], 'autoclearFeatures', 88, '0x2'],
  [[backingFileOffset(200), backingFileSize(1024)], 'backingFileSize', 16, 1024],
  [[backingFileOffset(200), backingFileSize(0xffff_ffff)], 'backingFileSize', 16, 0xffff_ffff],
  [[backingFileOffset(111), backingFileSize(1)], 'backingFileOffset', 8, '111 for 1 bytes'],
  [[backingFileOffset(8), backingFileSize(0)], 'backingFileOffset', 8, '8 for 0 bytes'],
  [[backingFileOffset(64514), backingFileSize(1023)], 'backingFileOffset', 8, '64514 for 1023 bytes'],
  [[backingFileOffset(65537), backingFileSize(0)], 'backingFileOffset', 8, '65537 for 0 bytes'],
  [[backingFileOffset(MAX_SAFE), backingFileSize(1023)], 'backingFileOffset', 8, '9007199254740991 for 1023 bytes'],
  [
    [incompatible(DATA_FILE), autoclear(RAW_DATA_FILE), backingFileOffset(200), backingFileSize(1)],
    'backingFileOffset',
    8,
    200,
  ],
]

for (const [edits, name, at, actual] of refused) {
  const described = edits.map(([place, , value]) => `${value} at byte ${place}`).join(', ')
  t.test(`refuses ${name} with ${described}`, async (t) => {
    refuses(t, name, () => parse(version3Header(...edits)), Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_HEADER',
      layer: 'disk.qcow2',
      hostOffset: at,
      field: name,
      actual,
      message: new RegExp(
        `^"disk\\.qcow2": header field ${name} at host offset 0x${at.toString(16)}: found .+, allowed`,
      ),
    })
  })
}

t.test('a version 2 backing name cannot begin inside the header', async (t) => {
  const bytes = version2Header([8, 8, 71], [16, 4, 1])
  const expected = { code: 'ERR_QCOW2_BAD_HEADER', field: 'backingFileOffset', hostOffset: 8 } as const
  refuses(t, 'at 71', () => parse(bytes), Qcow2FormatError, expected)
})

const wide: readonly (readonly [name: string, at: number, more: readonly FieldEdit[]])[] = [
  ['backingFileOffset', 8, []],
  ['size', 24, []],
  ['l1TableOffset', 40, []],
  ['refcountTableOffset', 48, []],
  ['snapshotsOffset', 64, [nbSnapshots(1)]],
]

for (const [name, at, more] of wide) {
  t.test(`refuses a ${name} of 2^53 and more as one it cannot count`, async (t) => {
    for (const value of [2n ** 53n, 2n ** 53n + 65536n, 2n ** 63n, 2n ** 64n - 65536n, 2n ** 64n - 1n]) {
      refuses(t, `${value}`, () => parse(version3Header([at, 8, value], ...more)), Qcow2UnsupportedError, {
        code: 'ERR_QCOW2_UNSUPPORTED_SIZE',
        layer: 'disk.qcow2',
        hostOffset: at,
        field: name,
        actual: value,
        message: new RegExp(`found 0x${value.toString(16)}`),
      })
    }
  })
}
