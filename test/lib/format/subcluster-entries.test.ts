// Extended L2 entries: 32 subclusters, each of them data, zeros or nothing; and what bitmaps cannot say.
import t, { type Test } from 'tap'
import { Qcow2FormatError } from '../../../lib/errors.js'
import { refuses } from '../../fixtures/expect-refusal.js'
import { data, decode, plain, shapeOf, unallocated, zero } from '../../fixtures/l2-decoding.js'

// 64 KiB clusters have subclusters of 2 KiB.
const SHAPE = shapeOf({ hasExtendedL2: true })
const K64 = 65536
const K2 = 2048
const HOST = 0x8000_0000_0005_0000n
const ALL = 0xffff_ffffn

/** A bitmap: the zero bits in its high half, the allocation bits in its low one. */
const bitmap = (zeros: bigint, allocated: bigint): bigint => (zeros << 32n) | allocated

t.test('reads clusters whose subclusters are all alike as one extent', async (t) => {
  const rows: [title: string, words: [bigint, bigint], expected: object][] = [
    ['nothing', [0n, 0n], unallocated(0, K64)],
    ['bit 63 alone', [1n << 63n, 0n], unallocated(0, K64)],
    ['all allocated', [HOST, bitmap(0n, ALL)], data(0, K64, 0x50000)],
    ['all zeros', [0n, bitmap(ALL, 0n)], zero(0, K64)],
    ['all zeros, with a host cluster', [HOST, bitmap(ALL, 0n)], zero(0, K64)],
    ['a host cluster that nothing is stored in', [HOST, 0n], unallocated(0, K64)],
    ['a shared host cluster', [0x5_0000n, bitmap(0n, ALL)], data(0, K64, 0x50000)],
  ]
  for (const [title, words, expected] of rows) {
    t.strictSame(plain(decode(words, SHAPE)), [expected], title)
  }
})

t.test('bit n stands for subcluster n, in either half of the bitmap', async (t) => {
  for (let n = 0; n < 32; n++) {
    const bit = 1n << BigInt(n)
    const around = (extent: object): object[] => [
      ...(n > 0 ? [unallocated(0, n * K2)] : []),
      extent,
      ...(n < 31 ? [unallocated((n + 1) * K2, (31 - n) * K2)] : []),
    ]
    t.strictSame(plain(decode([HOST, bit], SHAPE)), around(data(n * K2, K2, 0x50000 + n * K2)), `allocated bit ${n}`)
    t.strictSame(plain(decode([HOST, bit << 32n], SHAPE)), around(zero(n * K2, K2)), `zero bit ${n}`)
  }
})

t.test('subclusters of one cluster may differ, and neighbours that are alike are merged', async (t) => {
  // From subcluster 0 on: 4 data, 4 zeros, 8 nothing, 1 data, 14 zeros, 1 data.
  const words = [HOST, bitmap(0x7ffe_00f0n, 0x8001_000fn)]
  t.strictSame(plain(decode(words, SHAPE)), [
    data(0, 4 * K2, 0x50000),
    zero(4 * K2, 4 * K2),
    unallocated(8 * K2, 8 * K2),
    data(16 * K2, K2, 0x50000 + 16 * K2),
    zero(17 * K2, 14 * K2),
    data(31 * K2, K2, 0x50000 + 31 * K2),
  ])
})

t.test('runs go on from one cluster into the next where the host does', async (t) => {
  const lastTwo = 0xc000_0000n
  const firstTwo = 0x3n
  t.strictSame(plain(decode([HOST, lastTwo, HOST + 0x1_0000n, firstTwo], SHAPE)), [
    unallocated(0, 30 * K2),
    data(30 * K2, 4 * K2, 0x50000 + 30 * K2),
    unallocated(K64 + 2 * K2, 30 * K2),
  ])
  t.strictSame(plain(decode([HOST, lastTwo, HOST, firstTwo], SHAPE)).slice(1, 3), [
    data(30 * K2, 2 * K2, 0x50000 + 30 * K2),
    data(K64, 2 * K2, 0x50000),
  ])
  t.strictSame(plain(decode([0n, lastTwo << 32n, HOST, firstTwo << 32n], SHAPE)), [
    unallocated(0, 30 * K2),
    zero(30 * K2, 4 * K2),
    unallocated(K64 + 2 * K2, 30 * K2),
  ])
})

t.test('subclusters are a 32nd of a cluster of whatever size', async (t) => {
  for (const [clusterBits, size] of [
    [14, 512],
    [17, 4096],
    [21, 65536],
  ] as const) {
    const words = [0x8000_0000_0020_0000n, bitmap(0x4000_0000n, 0x8000_0001n)]
    t.strictSame(plain(decode(words, shapeOf({ clusterBits, hasExtendedL2: true }))), [
      data(0, size, 0x200000),
      unallocated(size, 29 * size),
      zero(30 * size, size),
      data(31 * size, size, 0x200000 + 31 * size),
    ])
  }
})

t.test('a range may begin and end inside subclusters', async (t) => {
  // Data, zeros and nothing in turn, from subcluster 0 on; 30 is data, 31 zeros.
  const words = [HOST, bitmap(0x9249_2492n, 0x4924_9249n), 0x8000_0000_0009_0000n, bitmap(0n, ALL)]
  const cut = (from: number, to: number) => plain(decode(words, SHAPE, { from, to }))
  t.strictSame(cut(0, 1), [data(0, 1, 0x50000)])
  t.strictSame(cut(7, 9), [data(7, 2, 0x50007)])
  t.strictSame(cut(2047, 2049), [data(2047, 1, 0x507ff), zero(2048, 1)])
  t.strictSame(cut(2049, 4095), [zero(2049, 2046)])
  t.strictSame(cut(2048, 4096), [zero(2048, 2048)], 'exactly one')
  t.strictSame(cut(4095, 6145), [zero(4095, 1), unallocated(4096, 2048), data(6144, 1, 0x50000 + 6144)])
  t.strictSame(cut(K64 - K2 - 1, K64 + 1), [
    data(K64 - K2 - 1, 1, 0x50000 + K64 - K2 - 1),
    zero(K64 - K2, K2),
    data(K64, 1, 0x90000),
  ])
  t.strictSame(cut(2 * K64 - 1, 2 * K64), [data(2 * K64 - 1, 1, 0x9ffff)])
})

const refusal = (t: Test, words: bigint[], message: RegExp): void =>
  refuses(t, words.map(String).join(', '), () => decode([HOST, ALL, ...words], SHAPE), Qcow2FormatError, {
    code: 'ERR_QCOW2_BAD_L2_ENTRY',
    layer: 'disk.qcow2',
    hostOffset: 0x40010,
    guestOffset: K64,
    field: 'L2 entry',
    actual: words[0],
    message,
  })

t.test('refuses a subcluster that is both allocated and zeros, and names it', async (t) => {
  for (let n = 0n; n < 32n; n++) {
    const bit = 1n << n
    refusal(t, [HOST, bitmap(bit, bit)], new RegExp(`subclusters 0x${bit.toString(16)} are both allocated and zero$`))
  }
  refusal(t, [HOST, bitmap(0xf000_00f0n, 0xff00_000fn)], /subclusters 0xf0000000 are both allocated and zero$/)
  refusal(t, [0n, bitmap(ALL, ALL)], /subclusters 0xffffffff are both allocated and zero$/)
})

t.test('refuses an allocated subcluster of a cluster that is not', async (t) => {
  for (let n = 0n; n < 32n; n++) {
    const bit = 1n << n
    refusal(t, [0n, bit], new RegExp(`subclusters 0x${bit.toString(16)} are allocated in a cluster that is not$`))
  }
  refusal(t, [1n << 63n, bitmap(ALL - 1n, 1n)], /subclusters 0x1 are allocated in a cluster that is not$/)
})

t.test('a bitmap that cannot be is refused even if the part asked for is sound', async (t) => {
  const words = [HOST, bitmap(1n << 31n, (1n << 31n) | 1n)]
  const expected = { code: 'ERR_QCOW2_BAD_L2_ENTRY', hostOffset: 0x40000, guestOffset: 0 } as const
  refuses(t, 'subcluster 0', () => decode(words, SHAPE, { from: 0, to: 512 }), Qcow2FormatError, expected)
})

t.test('bit 0 of the first word is reserved: bitmaps say what is zeros', async (t) => {
  refusal(t, [1n, 0n], /reserved bits 0x1 are set, allowed are none$/)
  refusal(t, [HOST | 1n, bitmap(ALL, 0n)], /reserved bits 0x1 are set, allowed are none$/)
})

t.test('reserved bits and alignment count as in standard entries', async (t) => {
  for (const bit of [1n, 8n, 56n, 61n]) {
    refusal(t, [HOST | (1n << bit), ALL], /reserved bits 0x[0-9a-f]+ are set, allowed are none$/)
  }
  refusal(t, [HOST | 0x800n, ALL], /host cluster offset 0x50800 is not a multiple of the cluster size 65536$/)
})
