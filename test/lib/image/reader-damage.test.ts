/**
 * Compressed clusters that do not decode to exactly one cluster: named, with what lies beside them still readable.
 */
import { constants, deflateRawSync } from 'node:zlib'
import t from 'tap'
import { Qcow2FormatError, Qcow2SourceError, type Qcow2OpenOptions } from '../../../lib/index.js'
import { compressZstd } from '../../fixtures/compress.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type BuiltImage } from '../../fixtures/image-builder.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { filled, pattern, text } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { SparseSource } from '../../fixtures/sparse-source.js'
import { zstdFrame } from '../../fixtures/zstd-frames.js'

const SIZE = 65536

type Compression = 'zlib' | 'zstd'

/** Clusters 0, 1 and 3 are fine, cluster 2 holds the payload. */
const around = (compression: Compression, payload: Uint8Array, guest?: Uint8Array): BuiltImage =>
  buildImage({
    compression,
    clusters: [
      [0, { kind: 'compressed', bytes: text(0, SIZE) }],
      [1, { kind: 'compressed', bytes: text(1, SIZE) }],
      [2, { kind: 'compressed-raw', payload, ...(guest === undefined ? {} : { guest }) }],
      [3, { kind: 'compressed', bytes: text(3, SIZE) }],
    ],
  })

const flipped = (bytes: Buffer, at: number): Buffer => {
  bytes[at]! ^= 0x55
  return bytes
}

const DAMAGED: readonly (readonly [what: string, compression: Compression, payload: Uint8Array])[] = [
  ['garbage', 'zlib', pattern(1, 3000)],
  ['zeros', 'zlib', Buffer.alloc(2000)],
  ['a byte too little', 'zlib', deflateRawSync(text(2, SIZE - 1))],
  ['no bytes at all', 'zlib', deflateRawSync(Buffer.alloc(0))],
  ['a flipped byte', 'zlib', flipped(deflateRawSync(pattern(2, SIZE), { level: 0 }), 2)],
  ['zstd data', 'zlib', compressZstd(text(2, SIZE))],
  ['deflate data', 'zstd', deflateRawSync(text(2, SIZE))],
  ['garbage', 'zstd', pattern(1, 3000)],
  ['zeros', 'zstd', Buffer.alloc(2000)],
  ['a byte too little', 'zstd', compressZstd(text(2, SIZE - 1))],
  ['a byte too many', 'zstd', compressZstd(text(2, SIZE + 1))],
  ['a wrong checksum', 'zstd', zstdFrame([{ kind: 'raw', bytes: text(2, SIZE) }], { checksum: 0x12345678 })],
]

for (const threads of [0, 2]) {
  for (const [what, compression, payload] of DAMAGED) {
    t.test(`${compression}: refuses a cluster with ${what}, with ${threads} threads`, async (t) => {
      const built = around(compression, payload)
      const options: Qcow2OpenOptions = { threads }
      const image = await opened(t, new SparseSource(2 ** 24, [0, built.bytes]), options)
      for (const [offset, length] of [
        [0, 4 * SIZE],
        [SIZE, 2 * SIZE],
        [2 * SIZE, SIZE],
        [2 * SIZE + 5, 1],
      ] as const) {
        const error = await rejection(t, image.read(Buffer.alloc(length), offset))
        expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER', {
          layer: 'image from a source',
          guestOffset: 2 * SIZE,
          hostOffset: built.layout.clusterOffsets.get(2),
          field: 'compressed cluster',
        })
        t.match(
          (error as Error).message,
          /cluster of guest offset 0x20000 at host offset 0x[\da-f]+, up to \d+ bytes: ./,
        )
      }
      t.ok((await readBytes(image, 0, 2 * SIZE)).equals(built.guest.subarray(0, 2 * SIZE)), 'those before it are fine')
      t.ok((await readBytes(image, 3 * SIZE)).equals(built.guest.subarray(3 * SIZE)), 'those behind it too')
      await image.close()
    })
  }
}

t.test('zlib: ignores output beyond the cluster', async (t) => {
  for (const length of [SIZE + 1, 2 * SIZE, 10 * SIZE + 3]) {
    const whole = text(2, length)
    const built = around('zlib', deflateRawSync(whole), whole.subarray(0, SIZE))
    t.ok((await readBytes(await opened(t, built.bytes))).equals(built.guest), `${length} bytes`)
  }
})

t.test('zlib: a cluster that would yield a thousand times too much costs little memory', async (t) => {
  // 64 MiB of zeros in about 64 KiB, in pieces so that making them takes no memory either.
  const piece = deflateRawSync(Buffer.alloc(2 ** 20), { level: 9, finishFlush: constants.Z_FULL_FLUSH })
  const built = around('zlib', Buffer.concat(Array<Buffer>(64).fill(piece)), Buffer.alloc(SIZE))
  const image = await opened(t, built.bytes, { threads: 0 })
  await readBytes(image, 0, SIZE)
  const before = process.resourceUsage().maxRSS
  t.ok((await readBytes(image, 2 * SIZE, SIZE)).equals(Buffer.alloc(SIZE)))
  const grown = (process.resourceUsage().maxRSS - before) / 1024
  t.ok(grown < 32, `${grown} MiB more`)
})

t.test('the part of a cluster that was decoded is not passed off as all of it', async (t) => {
  const cut = deflateRawSync(pattern(2, SIZE)).subarray(0, 40000)
  const built = around('zlib', cut)
  const image = await opened(t, built.bytes.subarray(0, built.layout.clusterOffsets.get(2)! + cut.length))
  const error = await rejection(t, image.read(Buffer.alloc(10), 2 * SIZE))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER', { guestOffset: 2 * SIZE })
})

t.test('a damaged cluster below the image is named by its own file', async (t) => {
  const built = around('zlib', pattern(1, 3000))
  const top = buildImage({ virtualSize: 4 * SIZE, clusters: [[0, { kind: 'zero' }]] })
  const image = await opened(t, top.bytes, { backingFile: new RecordingSource(built.bytes), backingFormat: 'qcow2' })
  const error = await rejection(t, readBytes(image))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER', {
    layer: 'image from a source',
    guestOffset: 2 * SIZE,
    hostOffset: built.layout.clusterOffsets.get(2),
  })
})

t.test('a read that fails leaves nothing that writes to the target', async (t) => {
  const clusters = [0, 1, 2, 3].map((i) => [i, { kind: 'data', bytes: filled(i + 1, SIZE), copied: true }] as const)
  const built = buildImage({
    clusters: [3, 1, 2, 0].map((i) => clusters[i]!),
  })
  const failing = built.layout.clusterOffsets.get(1)!
  const source = new RecordingSource(built.bytes, {
    beforeRead: async (_n, offset) => {
      if (offset === failing) throw new Error('EIO')
      if (offset >= failing - SIZE) await new Promise(setImmediate)
    },
  })
  const image = await opened(t, source)
  const target = Buffer.alloc(4 * SIZE)
  const error = await rejection(t, image.read(target, 0))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { hostOffset: failing })
  t.equal(source.underWay, 0, 'no read is under way')
})
