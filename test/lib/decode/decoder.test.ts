/**
 * What every decoder owes its caller, whatever the compression: exactly one cluster or a DecodeError, any number of times.
 */
import { deflateRawSync } from 'node:zlib'
import t from 'tap'
import type { CompressionType } from '../../../lib/decode/decoder.js'
import { compressZstdByHand } from '../../fixtures/compress.js'
import { decodeGuarded } from '../../fixtures/decode-outcome.js'
import { createMemoryDecoder } from '../../fixtures/memory-decoder.js'
import { pattern, text } from '../../fixtures/patterns.js'
import { ZSTD_BLOCK_LIMIT, zstdFrame } from '../../fixtures/zstd-frames.js'

/** As small as it gets without taking long: large zstd clusters stay as they are. */
function compressed(type: CompressionType, bytes: Buffer): Buffer {
  if (type === 'zlib') return deflateRawSync(bytes)
  if (bytes.length <= 65536) return compressZstdByHand(bytes)
  const starts = Array.from(
    { length: Math.ceil(bytes.length / ZSTD_BLOCK_LIMIT) },
    (_, index) => index * ZSTD_BLOCK_LIMIT,
  )
  return zstdFrame(starts.map((start) => ({ kind: 'raw', bytes: bytes.subarray(start, start + ZSTD_BLOCK_LIMIT) })))
}

const nothing = { refusal: undefined, misdeeds: [] }

for (const type of ['zlib', 'zstd'] as const) {
  t.test(`${type}: clusters of every size, small ones after large ones too`, async (t) => {
    const decoder = createMemoryDecoder(type)
    const bits = [9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 9, 20, 12, 21, 16]
    for (const [index, clusterBits] of bits.entries()) {
      const cluster = text(index, 2 ** clusterBits)
      const { bytes, refusal, misdeeds } = decodeGuarded(decoder, compressed(type, cluster), cluster.length)
      t.strictSame({ refusal, misdeeds }, nothing, `2^${clusterBits} bytes`)
      t.ok(bytes.equals(cluster), 'the bytes')
    }
  })

  t.test(`${type}: a decoder that refused one cluster decodes the next`, async (t) => {
    const decoder = createMemoryDecoder(type)
    const cluster = text(1, 4096)
    const source = compressed(type, cluster)
    const bad: [title: string, source: Buffer][] = [
      ['nothing', Buffer.alloc(0)],
      ['a cut', source.subarray(0, source.length >> 1)],
      ['noise', pattern(1, 4096)],
      ['too little', compressed(type, cluster.subarray(1))],
    ]
    for (const [title, damaged] of bad) {
      const { refusal, misdeeds } = decodeGuarded(decoder, damaged, 4096)
      t.type(refusal, 'string', `${title} is refused`)
      t.strictSame(misdeeds, [], title)
      t.ok(decodeGuarded(decoder, source, 4096).bytes.equals(cluster), `a good one after ${title}`)
    }
  })

  t.test(`${type}: the cluster is made from its source and from nothing before it`, async (t) => {
    const decoder = createMemoryDecoder(type)
    const [one, other] = [text(1, 4096), pattern(2, 4096)]
    for (const cluster of [one, other, one, Buffer.alloc(4096), other]) {
      t.ok(decodeGuarded(decoder, compressed(type, cluster), 4096).bytes.equals(cluster))
    }
  })

  t.test(
    `${type}: sources and targets may lie anywhere, and what follows the compressed bytes does not matter`,
    async (t) => {
      const { memory, decoder } = createMemoryDecoder(type)
      const cluster = text(3, 4096)
      const packed = compressed(type, cluster)
      const [host, guest] = [memory.take(packed.length + 1000).fill(0x5a), memory.take(6000)]
      host.set(packed, 77)
      for (const [length, at] of [
        [packed.length, 1001],
        [packed.length + 900, 0],
        [packed.length, 8],
      ] as const) {
        guest.fill(0)
        decoder.decode(host.byteOffset + 77, length, guest.byteOffset + at, 4096)
        t.ok(cluster.equals(guest.subarray(at, at + 4096)))
        t.ok(
          guest.every((byte, index) => byte === 0 || (index >= at && index < at + 4096)),
          'nothing around it is written',
        )
      }
    },
  )

  t.test(`${type}: two decoders know nothing of each other`, async (t) => {
    const [one, other] = [createMemoryDecoder(type), createMemoryDecoder(type)] as const
    const clusters = [text(1, 4096), text(2, 65536)] as const
    t.ok(decodeGuarded(one, compressed(type, clusters[0]), 4096).bytes.equals(clusters[0]))
    t.ok(decodeGuarded(other, compressed(type, clusters[1]), 65536).bytes.equals(clusters[1]))
    t.type(decodeGuarded(one, pattern(1, 100), 4096).refusal, 'string')
    t.ok(decodeGuarded(other, compressed(type, clusters[0]), 4096).bytes.equals(clusters[0]))
  })
}
