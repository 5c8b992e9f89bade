// L2 entries of images whose data lie in an external file: there a cluster's offset is the guest's own.
import t from 'tap'
import { Qcow2FormatError } from '../../../lib/errors.js'
import { refuses } from '../../fixtures/expect-refusal.js'
import { data, decode, plain, shapeOf, unallocated, zero } from '../../fixtures/l2-decoding.js'

const SHAPE = shapeOf({ hasExternalDataFile: true })
const SUBCLUSTERS = shapeOf({ hasExternalDataFile: true, hasExtendedL2: true })
const K64 = 65536
const COPIED = 0x8000_0000_0000_0000n

t.test('a cluster at offset 0 is told from none by bit 63', async (t) => {
  t.strictSame(plain(decode([COPIED], SHAPE)), [data(0, K64, 0)])
  t.strictSame(plain(decode([0n], SHAPE)), [unallocated(0, K64)])
  t.strictSame(plain(decode([COPIED], shapeOf())), [unallocated(0, K64)], 'not so in the image itself')
})

t.test('a cluster elsewhere needs no bit 63', async (t) => {
  const words = [COPIED, COPIED | 0x1_0000n, 0x2_0000n, 0n]
  t.strictSame(plain(decode(words, SHAPE)), [data(0, 3 * K64, 0), unallocated(3 * K64, K64)])
})

t.test('clusters far out lie where the guest sees them', async (t) => {
  const tableGuestOffset = 2 ** 40
  const words = [COPIED | 0x100_0000_0000n, 0x100_0001_0000n]
  t.strictSame(plain(decode(words, SHAPE, { tableGuestOffset })), [data(2 ** 40, 2 * K64, 2 ** 40)])
})

t.test('zeros may have a cluster or none', async (t) => {
  const words = [COPIED | 1n, COPIED | 0x1_0001n, 0x2_0001n, 1n]
  t.strictSame(plain(decode(words, SHAPE)), [zero(0, 4 * K64)])
  t.strictSame(plain(decode([1n], SHAPE)), [zero(0, K64)])
})

t.test('refuses a cluster that lies elsewhere than the guest sees it, zeros or not', async (t) => {
  const rows: [title: string, entry: bigint, offset: string][] = [
    ['one before', COPIED | 0x1_0000n, '0x10000'],
    ['one after', COPIED | 0x3_0000n, '0x30000'],
    ['at 0', COPIED, '0x0'],
    ['far out', COPIED | 0x100_0002_0000n, '0x10000020000'],
    ['without bit 63', 0x1_0000n, '0x10000'],
    ['zeros', COPIED | 0x1_0001n, '0x10000'],
    ['zeros at 0', COPIED | 1n, '0x0'],
  ]
  for (const [title, entry, offset] of rows) {
    refuses(t, title, () => decode([0n, 0n, entry], SHAPE), Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_L2_ENTRY',
      layer: 'disk.qcow2',
      hostOffset: 0x40010,
      guestOffset: 2 * K64,
      field: 'L2 entry',
      actual: entry,
      message: new RegExp(`offset ${offset} in the external data file is not the guest offset 0x20000$`),
    })
  }
})

t.test('a part of a cluster lies at its own offset as well', async (t) => {
  const words = [COPIED, COPIED | 0x1_0000n]
  t.strictSame(plain(decode(words, SHAPE, { from: 5, to: K64 + 7 })), [data(5, K64 + 2, 5)])
})

t.test('subclusters of the cluster at offset 0 are allocated if bit 63 says so', async (t) => {
  const words = [COPIED, 0x0000_0002_0000_0001n]
  t.strictSame(plain(decode(words, SUBCLUSTERS)), [data(0, 2048, 0), zero(2048, 2048), unallocated(4096, 61440)])
  t.strictSame(plain(decode([0n, 0x0000_0002_0000_0000n], SUBCLUSTERS)), [
    unallocated(0, 2048),
    zero(2048, 2048),
    unallocated(4096, 61440),
  ])
  refuses(t, 'without bit 63', () => decode([0n, 1n], SUBCLUSTERS), Qcow2FormatError, {
    code: 'ERR_QCOW2_BAD_L2_ENTRY',
    hostOffset: 0x40000,
    guestOffset: 0,
    message: /subclusters 0x1 are allocated in a cluster that is not$/,
  })
})

t.test('refuses subclusters whose cluster lies elsewhere than the guest sees it', async (t) => {
  const words = [COPIED, 0xffff_ffffn, COPIED | 0x2_0000n, 0xffff_ffffn]
  const expected = { code: 'ERR_QCOW2_BAD_L2_ENTRY', hostOffset: 0x40010, guestOffset: K64 } as const
  refuses(t, 'one after', () => decode(words, SUBCLUSTERS), Qcow2FormatError, expected)
})
