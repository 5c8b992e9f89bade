// The shape of tables, L1 entries, and L2 entries of standard clusters.
import t from 'tap'
import { Qcow2FormatError } from '../../../lib/errors.js'
import { decodeL1Entry, geometryOf } from '../../../lib/format/entries.js'
import { refuses } from '../../fixtures/expect-refusal.js'
import { headerWith } from '../../fixtures/header-samples.js'
import { data, decode, plain, PLACE, shapeOf, unallocated, zero } from '../../fixtures/l2-decoding.js'

const K64 = 65536

t.test('the header gives the shape of tables', async (t) => {
  t.strictSame(geometryOf(headerWith()), {
    clusterBits: 16,
    clusterSize: 65536,
    hasExtendedL2: false,
    l2EntryBytes: 8,
    l2Reach: 536870912,
    hasZeroFlag: true,
    hasExternalDataFile: false,
  })
  t.match(shapeOf({ clusterBits: 9, version: 2 }), { clusterSize: 512, l2Reach: 32768, hasZeroFlag: false })
  t.match(shapeOf({ clusterBits: 21, hasExtendedL2: true, hasExternalDataFile: true }), {
    clusterSize: 2097152,
    hasExtendedL2: true,
    l2EntryBytes: 16,
    l2Reach: 274877906944,
    hasZeroFlag: false,
    hasExternalDataFile: true,
  })
})

const decodeL1 = (entry: bigint, index = 0, clusterBits = 16): number =>
  decodeL1Entry(Number(entry >> 32n), Number(entry & 0xffff_ffffn), index, shapeOf({ clusterBits }), PLACE)

t.test('an L1 entry is the offset of an L2 table, whatever its bit 63 says', async (t) => {
  t.equal(decodeL1(0n), 0)
  t.equal(decodeL1(0x8000_0000_0000_0000n), 0)
  t.equal(decodeL1(0x0000_0000_0005_0000n), 0x50000)
  t.equal(decodeL1(0x8000_0000_0005_0000n), 0x50000)
  t.equal(decodeL1(0x8000_0000_8000_0000n), 0x8000_0000)
  t.equal(decodeL1(0x8012_3456_ffff_0000n), 0x12_3456_ffff_0000)
  t.equal(decodeL1(0x80ff_ffff_ffff_0000n), 2 ** 56 - 65536, 'bits 55 and below')
  t.equal(decodeL1(0x8000_0000_0000_0200n, 0, 9), 512)
  t.equal(decodeL1(0x8000_0000_0020_0000n, 0, 21), 2097152)
})

for (const bit of [0, 1, 2, 3, 4, 5, 6, 7, 8, 56, 57, 58, 59, 60, 61, 62]) {
  t.test(`refuses an L1 entry with reserved bit ${bit}`, async (t) => {
    for (const rest of [0n, 0x8000_0000_0005_0000n]) {
      const entry = rest | (1n << BigInt(bit))
      refuses(t, `on ${rest}`, () => decodeL1(entry, 7), Qcow2FormatError, {
        code: 'ERR_QCOW2_BAD_L1_ENTRY',
        layer: 'disk.qcow2',
        hostOffset: 0x40038,
        guestOffset: undefined,
        field: 'L1 entry',
        actual: entry,
        message: new RegExp(
          `L1 entry 7 at host offset 0x40038, 0x${entry.toString(16)}: reserved bits 0x${(1n << BigInt(bit)).toString(16)} are set, allowed are none$`,
        ),
      })
    }
  })
}

t.test('refuses an L2 table that is not on a cluster boundary', async (t) => {
  for (const [bits, clusterBits] of [
    [9, 10],
    [9, 16],
    [15, 16],
    [9, 21],
    [20, 21],
  ] as const) {
    const entry = 0x8000_0001_0000_0000n | (1n << BigInt(bits))
    refuses(t, `bit ${bits}`, () => decodeL1(entry, 1, clusterBits), Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_L1_ENTRY',
      hostOffset: 0x40008,
      actual: entry,
      message: new RegExp(`is not a multiple of the cluster size ${2 ** clusterBits}$`),
    })
  }
})

t.test('reads each state of a standard cluster', async (t) => {
  const rows: [title: string, entry: bigint, expected: object][] = [
    ['nothing', 0n, unallocated(0, K64)],
    ['bit 63 alone', 0x8000_0000_0000_0000n, unallocated(0, K64)],
    ['data', 0x8000_0000_0005_0000n, data(0, K64, 0x50000)],
    ['data shared with a snapshot', 0x0000_0000_0005_0000n, data(0, K64, 0x50000)],
    ['data beyond 4 GiB', 0x8000_1234_8765_0000n, data(0, K64, 0x1234_8765_0000)],
    ['data at the highest offset', 0x80ff_ffff_ffff_0000n, data(0, K64, 2 ** 56 - 65536)],
    ['zeros', 1n, zero(0, K64)],
    ['zeros with bit 63', 0x8000_0000_0000_0001n, zero(0, K64)],
    ['preallocated zeros', 0x8000_0000_0005_0001n, zero(0, K64)],
  ]
  for (const [title, entry, expected] of rows) {
    t.strictSame(plain(decode([entry], shapeOf())), [expected], title)
  }
})

t.test('in version 2 an entry knows no zeros', async (t) => {
  const shape = shapeOf({ version: 2 })
  t.strictSame(plain(decode([0x50000n, 0n], shape)), [data(0, K64, 0x50000), unallocated(K64, K64)])
  for (const entry of [1n, 0x8000_0000_0005_0001n]) {
    refuses(t, `${entry}`, () => decode([entry], shape), Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_L2_ENTRY',
      hostOffset: 0x40000,
      guestOffset: 0,
      actual: entry,
      message: /reserved bits 0x1 are set, allowed are none$/,
    })
  }
})

for (const bit of [1, 2, 3, 4, 5, 6, 7, 8, 56, 57, 58, 59, 60, 61]) {
  t.test(`refuses a standard cluster with reserved bit ${bit}`, async (t) => {
    const tableGuestOffset = 3 * 2 ** 29
    for (const rest of [0n, 1n, 0x8000_0000_0005_0000n, 0x8000_0000_0005_0001n]) {
      const entry = rest | (1n << BigInt(bit))
      const words = [0n, 0x8000_0000_0005_0000n, entry]
      refuses(t, `on ${rest}`, () => decode(words, shapeOf(), { tableGuestOffset }), Qcow2FormatError, {
        code: 'ERR_QCOW2_BAD_L2_ENTRY',
        layer: 'disk.qcow2',
        hostOffset: 0x40010,
        guestOffset: tableGuestOffset + 2 * K64,
        field: 'L2 entry',
        actual: entry,
        message: new RegExp(
          `L2 entry 2 at host offset 0x40010, 0x${entry.toString(16)}: reserved bits 0x${(1n << BigInt(bit)).toString(16)} are set`,
        ),
      })
    }
  })
}

t.test('all reserved bits that are set are named', async (t) => {
  refuses(t, 'all', () => decode([0xbf00_0000_0000_01ffn], shapeOf()), Qcow2FormatError, {
    code: 'ERR_QCOW2_BAD_L2_ENTRY',
    message: /reserved bits 0x3f000000000001fe are set/,
  })
  refuses(t, 'L1', () => decodeL1(0xff00_0000_0000_01ffn), Qcow2FormatError, {
    code: 'ERR_QCOW2_BAD_L1_ENTRY',
    message: /reserved bits 0x7f000000000001ff are set/,
  })
})

t.test('refuses a cluster that is not on a cluster boundary, zeros or not', async (t) => {
  for (const [bit, clusterBits] of [
    [9, 10],
    [9, 16],
    [15, 16],
    [20, 21],
  ] as const) {
    for (const flag of [0n, 1n]) {
      const entry = 0x8000_0001_0000_0000n | (1n << BigInt(bit)) | flag
      refuses(t, `bit ${bit}`, () => decode([0n, entry], shapeOf({ clusterBits })), Qcow2FormatError, {
        code: 'ERR_QCOW2_BAD_L2_ENTRY',
        hostOffset: 0x40008,
        guestOffset: 2 ** clusterBits,
        actual: entry,
        message: new RegExp(`is not a multiple of the cluster size ${2 ** clusterBits}$`),
      })
    }
  }
  t.strictSame(plain(decode([0x200n], shapeOf({ clusterBits: 9 }))), [data(0, 512, 512)], '512-byte clusters')
})

t.test('only entries of the range asked for are looked at', async (t) => {
  const words = [0x2n, 0x50000n, 0x60000n, 0x2n]
  const range = { tableGuestOffset: 2 ** 40, from: 2 ** 40 + K64, to: 2 ** 40 + 3 * K64 }
  t.strictSame(plain(decode(words, shapeOf(), range)), [data(2 ** 40 + K64, 2 * K64, 0x50000)])
})

t.test('a range may begin and end inside clusters', async (t) => {
  const words = [0x50000n, 1n, 0n, 0x90000n]
  const cut = (from: number, to: number) => plain(decode(words, shapeOf(), { from, to }))
  t.strictSame(cut(5, 6), [data(5, 1, 0x50005)])
  t.strictSame(cut(65535, 65537), [data(65535, 1, 0x5ffff), zero(65536, 1)])
  t.strictSame(cut(65537, 2 * K64 + 1), [zero(65537, 65535), unallocated(131072, 1)])
  t.strictSame(cut(3 * K64 - 1, 4 * K64 - 1), [unallocated(3 * K64 - 1, 1), data(3 * K64, 65535, 0x90000)])
  t.strictSame(cut(4 * K64 - 1, 4 * K64), [data(4 * K64 - 1, 1, 0x9ffff)])
})

t.test('clusters that lie next to one another are one extent, up to the first entry that breaks the row', async (t) => {
  const row = (...offsets: bigint[]): bigint[] => offsets.map((offset) => offset | (1n << 63n))
  const shape = shapeOf()
  t.strictSame(
    plain(decode(row(0xfffe_0000n, 0xffff_0000n, 0x1_0000_0000n, 0x1_0001_0000n), shape)),
    [data(0, 4 * K64, 0xfffe_0000)],
    'beyond 32 bits',
  )
  t.strictSame(plain(decode([0n, 0n, ...row(0x50000n, 0x60000n, 0x80000n), 1n, 1n], shape)), [
    unallocated(0, 2 * K64),
    data(2 * K64, 2 * K64, 0x50000),
    data(4 * K64, K64, 0x80000),
    zero(5 * K64, 2 * K64),
  ])
  t.strictSame(
    plain(decode(row(0x50000n, 0x60001n, 0x70000n), shape)),
    [data(0, K64, 0x50000), zero(K64, K64), data(2 * K64, K64, 0x70000)],
    'a cluster in the row that is zeros all the same',
  )
  const words = row(0x50000n, 0x60000n, 0x70002n, 0x80000n)
  refuses(t, 'a reserved bit in the row', () => decode(words, shape), Qcow2FormatError, {
    code: 'ERR_QCOW2_BAD_L2_ENTRY',
    hostOffset: 0x40010,
    guestOffset: 2 * K64,
  })
  t.strictSame(plain(decode(words, shape, { from: 100, to: 2 * K64 })), [data(100, 2 * K64 - 100, 0x50064)])
})
