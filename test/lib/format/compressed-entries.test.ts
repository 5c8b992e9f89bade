// L2 entries of compressed clusters: where the offset ends and the number of sectors begins, by the size of a cluster.
import t from 'tap'
import { Qcow2FormatError } from '../../../lib/errors.js'
import { refuses } from '../../fixtures/expect-refusal.js'
import { data, decode, plain, shapeOf, unallocated } from '../../fixtures/l2-decoding.js'

/** A compressed extent of whole clusters from guest offset 0 on. */
const compressed = (clusterSize: number, hostOffsets: number[], hostLengths: number[]): object => ({
  kind: 'compressed',
  depth: 0,
  guestOffset: 0,
  length: clusterSize * hostOffsets.length,
  clusterGuestOffset: 0,
  clusterSize,
  hostOffsets,
  hostLengths,
})

type Descriptor = readonly [clusterBits: number, word: bigint, hostOffset: number, hostLength: number]

const descriptors: readonly Descriptor[] = [
  // 512-byte clusters: bits 0 to 60 and bit 61.
  [9, 0x4000_0000_0000_0000n, 0, 512],
  [9, 0x4000_0000_0000_0200n, 512, 512],
  [9, 0x4000_0000_0000_0201n, 513, 511],
  [9, 0x6000_0000_0000_03ffn, 1023, 513],
  [9, 0x40ff_ffff_0000_0200n, 2 ** 56 - 2 ** 32 + 512, 512],
  [9, 0x6012_3456_789a_bcd1n, 0x12_3456_789a_bcd1, 815],
  // 4 KiB clusters: bits 0 to 57 and 58 to 61.
  [12, 0x4400_0000_0000_1000n, 4096, 1024],
  [12, 0x6800_0000_0000_01ffn, 511, 5121],
  [12, 0x7c12_3456_789a_be00n, 0x12_3456_789a_be00, 8192],
  [12, 0x7c1f_ffff_ffff_ffffn, 2 ** 53 - 1, 7681],
  // 64 KiB clusters: bits 0 to 53 and 54 to 61.
  [16, 0x4040_0000_0000_0000n, 0, 1024],
  [16, 0x4000_0001_0000_0001n, 4294967297, 511],
  [16, 0x6952_3456_789a_bcd1n, 0x12_3456_789a_bcd1, 84783],
  [16, 0x7fdf_ffff_ffff_ffffn, 2 ** 53 - 1, 130561],
  // 2 MiB clusters: bits 0 to 48 and 49 to 61.
  [21, 0x4002_0000_0000_0000n, 0, 1024],
  [21, 0x4001_0000_0000_0000n, 281474976710656, 512],
  [21, 0x6469_2345_6789_abcdn, 0x1_2345_6789_abcd, 2385971],
  [21, 0x7fff_ffff_ffff_ffffn, 562949953421311, 4193793],
]

for (const [clusterBits, word, hostOffset, hostLength] of descriptors) {
  t.test(`reads the descriptor 0x${word.toString(16)} with clusters of 2^${clusterBits} bytes`, async (t) => {
    const expected = [compressed(2 ** clusterBits, [hostOffset], [hostLength])]
    for (const version of [2, 3] as const) {
      t.strictSame(plain(decode([word], shapeOf({ clusterBits, version }))), expected, `version ${version}`)
    }
    const copied = word | (1n << 63n)
    t.strictSame(plain(decode([copied], shapeOf({ clusterBits }))), expected, 'whatever bit 63 says')
  })
}

t.test('the offset may use bits up to 55, as far as the size of a cluster leaves it bits', async (t) => {
  for (const [clusterBits, highest] of [
    [9, 55],
    [13, 55],
    [14, 55],
    [15, 54],
    [16, 53],
    [17, 52],
    [20, 49],
    [21, 48],
  ] as const) {
    const word = 0x4000_0000_0000_0000n | (1n << BigInt(highest))
    const expected = [compressed(2 ** clusterBits, [2 ** highest], [512])]
    t.strictSame(plain(decode([word], shapeOf({ clusterBits }))), expected, `2^${clusterBits}, bit ${highest}`)
    const next = 0x4000_0000_0000_0000n | (1n << BigInt(highest + 1))
    if (highest < 55 || clusterBits === 14) {
      const oneSector = [compressed(2 ** clusterBits, [0], [1024])]
      t.strictSame(plain(decode([next], shapeOf({ clusterBits }))), oneSector, `2^${clusterBits}, bit ${highest + 1}`)
    }
  }
})

t.test('offset bits beyond 55 are refused where small clusters leave room for them', async (t) => {
  for (const [clusterBits, bits] of [
    [9, [56, 57, 58, 59, 60]],
    [10, [56, 57, 58, 59]],
    [11, [56, 57, 58]],
    [12, [56, 57]],
    [13, [56]],
  ] as const) {
    for (const bit of bits) {
      const word = 0x4000_0000_0000_0400n | (1n << BigInt(bit))
      refuses(t, `2^${clusterBits}`, () => decode([0n, word], shapeOf({ clusterBits })), Qcow2FormatError, {
        code: 'ERR_QCOW2_BAD_L2_ENTRY',
        layer: 'disk.qcow2',
        hostOffset: 0x40008,
        guestOffset: 2 ** clusterBits,
        field: 'L2 entry',
        actual: word,
        message: new RegExp(`bits 0x${(1n << BigInt(bit)).toString(16)} of a compressed cluster's offset are set`),
      })
    }
    const sector = 0x4000_0000_0000_0400n | (1n << BigInt(bits.length + 56))
    t.match(decode([sector], shapeOf({ clusterBits })), [{ hostLengths: [1024] }], 'the next bit counts sectors')
  }
})

t.test('neighbouring compressed clusters are one extent, wherever each of them is stored', async (t) => {
  const words = [0x4000_0000_0000_9000n, 0x4040_0000_0000_1234n, 0n, 0x4000_0000_0000_5000n]
  t.strictSame(plain(decode(words, shapeOf())), [
    compressed(65536, [0x9000, 0x1234], [512, 972]),
    unallocated(131072, 65536),
    { ...compressed(65536, [0x5000], [512]), guestOffset: 196608, clusterGuestOffset: 196608 },
  ])
})

t.test('a part of compressed clusters still says where the whole ones begin', async (t) => {
  const words = [0x4000_0000_0000_1000n, 0x4000_0000_0000_2000n, 0x4000_0000_0000_3000n, 0x0000_0000_0005_0000n]
  const cut = (from: number, to: number) => plain(decode(words, shapeOf(), { from, to }))
  const part = (guestOffset: number, length: number, clusterGuestOffset: number, hostOffsets: number[]): object => ({
    ...compressed(65536, hostOffsets, Array<number>(hostOffsets.length).fill(512)),
    guestOffset,
    length,
    clusterGuestOffset,
  })
  t.strictSame(cut(1, 2), [part(1, 1, 0, [0x1000])])
  t.strictSame(cut(65535, 65537), [part(65535, 2, 0, [0x1000, 0x2000])])
  t.strictSame(cut(65536, 65537), [part(65536, 1, 65536, [0x2000])])
  t.strictSame(cut(131071, 131073), [part(131071, 2, 65536, [0x2000, 0x3000])])
  t.strictSame(cut(10, 196609), [part(10, 196598, 0, [0x1000, 0x2000, 0x3000]), data(196608, 1, 0x50000)])
})

t.test('an image with an external data file has no compressed clusters', async (t) => {
  const word = 0x4000_0000_0001_0000n
  refuses(t, 'refused', () => decode([0n, word], shapeOf({ hasExternalDataFile: true })), Qcow2FormatError, {
    code: 'ERR_QCOW2_BAD_L2_ENTRY',
    hostOffset: 0x40008,
    guestOffset: 65536,
    actual: word,
    message: /a compressed cluster, allowed are none in an image with an external data file$/,
  })
})

t.test('a compressed cluster has no subclusters', async (t) => {
  const shape = shapeOf({ hasExtendedL2: true })
  const word = 0x4000_0000_0000_1000n
  t.strictSame(plain(decode([word, 0n], shape)), [compressed(65536, [0x1000], [512])])
  for (let bit = 0n; bit < 64n; bit++) {
    refuses(t, `bit ${bit}`, () => decode([0n, 0n, word, 1n << bit], shape), Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_L2_ENTRY',
      hostOffset: 0x40010,
      guestOffset: 65536,
      actual: word,
      message: /a compressed cluster with a subcluster bitmap, allowed is 0$/,
    })
  }
})
