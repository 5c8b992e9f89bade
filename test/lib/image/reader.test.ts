/**
 * From compressed clusters to bytes: packed over borders, cut at the end of the file, read together or alone. Run for
 * both compression types, decoding here and in threads.
 */
import t from 'tap'
import { buildImage, type ClusterSpec, type ImageSpec } from '../../fixtures/image-builder.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { filled, pattern, text } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { SparseSource } from '../../fixtures/sparse-source.js'
import { startedThreads } from '../../fixtures/worker-threads.js'

// Whole disks that are read before anything else: threads come when 8 MiB have been decoded without them.
const WAYS = {
  inline: { threads: 0, wholeReads: 1 },
  'in threads': { threads: 2, wholeReads: 8 },
} as const

const compressed = (seed: number, size: number): ClusterSpec => {
  switch (seed % 4) {
    case 0:
      return { kind: 'compressed', bytes: pattern(seed, Math.max(size / 2, size - 700)) }
    case 1:
      return { kind: 'compressed', bytes: filled(seed, size) }
    default:
      return { kind: 'compressed', bytes: text(seed, size) }
  }
}

const SPECS: readonly ImageSpec[] = [
  ...[9, 12, 16, 18].map((clusterBits) => ({ clusterBits, compression: 'zlib' as const })),
  ...[9, 12, 16, 18].map((clusterBits) => ({ clusterBits, compression: 'zstd' as const })),
  { version: 2, clusterBits: 12 },
  { extendedL2: true, clusterBits: 14, compression: 'zlib' },
  { extendedL2: true, clusterBits: 16, compression: 'zstd' },
]

for (const [how, { threads, wholeReads }] of Object.entries(WAYS)) {
  for (const spec of SPECS) {
    const { clusterBits = 16, compression = 'zlib', version = 3, extendedL2 = false } = spec
    const title = `${compression}, ${2 ** clusterBits} bytes, version ${version}${extendedL2 ? ', subclusters' : ''}`
    t.test(`reads compressed clusters packed over the borders of host clusters: ${title}, ${how}`, async (t) => {
      const size = 2 ** clusterBits
      const count = 2 ** 21 / size
      const clusters: [number, ClusterSpec][] = []
      for (let i = 0; i < count; i++) if (i % 11 !== 5) clusters.push([i, compressed(i, size)])
      clusters.push([5, { kind: 'data', bytes: pattern(5, size) }])
      const built = buildImage({ ...spec, virtualSize: count * size - 100, clusters })
      const offsets = [...built.layout.clusterOffsets.values()]
      t.ok(
        offsets.some((offset) => offset % 512 !== 0),
        'not all begin on a sector',
      )
      const threadsBefore = startedThreads()
      const image = await opened(t, built.bytes, { threads })
      for (let turn = 0; turn < wholeReads; turn++) {
        t.ok((await readBytes(image)).equals(built.guest), 'the whole disk at once')
      }
      t.equal(startedThreads() > threadsBefore, threads > 0, 'decoded where it should be')
      for (let at = 0; at < built.guest.length; at += Math.ceil(size * 2.7)) {
        const length = Math.ceil(size * 1.9)
        if (!(await readBytes(image, at, length)).equals(built.guest.subarray(at, at + length))) {
          t.fail(`${length} bytes from ${at} on`)
        }
      }
      await image.close()
    })
  }
}

t.test('decodes what is there of a last sector that the end of the file cuts', async (t) => {
  for (const compression of ['zlib', 'zstd'] as const) {
    for (const clusterBits of [9, 16]) {
      const size = 2 ** clusterBits
      const clusters = [0, 1].map((index): [number, ClusterSpec] => [
        index,
        { kind: 'compressed', bytes: text(index, size) },
      ])
      const built = buildImage({ clusterBits, compression, clusters, trimEnd: true })
      t.not(built.bytes.length % 512, 0, 'the file ends in mid-sector')
      t.ok((await readBytes(await opened(t, built.bytes))).equals(built.guest), `${compression}, ${size} bytes`)
    }
  }
})

t.test(
  'reads a cluster whose descriptor counts more sectors than it needs, past the end of the file even',
  async (t) => {
    for (const compression of ['zlib', 'zstd'] as const) {
      const cluster: ClusterSpec = { kind: 'compressed', bytes: text(1, 65536), additionalSectors: 255 }
      const built = buildImage({ compression, clusters: [[0, cluster]], trimEnd: true })
      t.ok((await readBytes(await opened(t, built.bytes))).equals(built.guest), compression)
    }
  },
)

t.test('ignores what follows the compressed data in its last sector', async (t) => {
  for (const compression of ['zlib', 'zstd'] as const) {
    const built = buildImage({
      clusterBits: 12,
      compression,
      clusters: [
        [0, { kind: 'compressed', bytes: text(1, 4096), trailing: pattern(9, 300) }],
        [1, { kind: 'compressed', bytes: text(2, 4096), leadBytes: 77, trailing: Buffer.from('28b52ffd', 'hex') }],
        [2, { kind: 'compressed', bytes: text(3, 4096) }],
      ],
    })
    t.ok((await readBytes(await opened(t, built.bytes))).equals(built.guest), compression)
  }
})

t.test('reads clusters that share, overlap or reverse their places on the host', async (t) => {
  const built = buildImage({
    clusterBits: 12,
    virtualSize: 8 * 4096,
    clusters: [0, 1, 2].map((index) => [index, { kind: 'compressed', bytes: text(index, 4096) }]),
    patch: (bytes, { l2EntryOffset }) => {
      const entries = [0, 1, 2].map((index) => bytes.readBigUInt64BE(l2EntryOffset(index)))
      const more = (entry: bigint): bigint => entry + (3n << 58n)
      const order = [entries[2]!, entries[0]!, entries[0]!, more(entries[0]!), entries[1]!, entries[0]!, entries[2]!]
      for (const [index, entry] of order.entries()) bytes.writeBigUInt64BE(entry, l2EntryOffset(index))
    },
  })
  const texts = [2, 0, 0, 0, 1, 0, 2].map((seed) => text(seed, 4096))
  const expected = Buffer.concat([...texts, Buffer.alloc(4096)])
  const source = new RecordingSource(built.bytes)
  const image = await opened(t, source)
  t.ok((await readBytes(image)).equals(expected))
  for (let at = 0; at < expected.length; at += 3000) {
    if (!(await readBytes(image, at, 3000)).equals(expected.subarray(at, at + 3000))) t.fail(`from ${at} on`)
  }
})

t.test('reads neighbouring clusters in one read, and a cluster of which a part was asked for once', async (t) => {
  const size = 4096
  const built = buildImage({
    clusterBits: 12,
    clusters: Array.from({ length: 30 }, (_, i) => [i, { kind: 'compressed', bytes: text(i, size) }]),
  })
  const first = built.layout.clusterOffsets.get(0)!
  const source = new RecordingSource(built.bytes)
  const image = await opened(t, source)
  const dataReads = (): number => source.reads.filter(({ offset }) => offset >= first).length
  t.ok((await readBytes(image)).equals(built.guest))
  t.equal(dataReads(), 1, 'the whole disk')
  await readBytes(image, 5 * size + 1, 3 * size)
  t.equal(dataReads(), 4, 'two parts and what lies between them')
  const before = dataReads()
  const parts = Array.from({ length: 8 }, (_, i) => readBytes(image, 20 * size + i * 500, 400))
  for (const [i, part] of (await Promise.all(parts)).entries()) {
    t.ok(part.equals(built.guest.subarray(20 * size + i * 500, 20 * size + i * 500 + 400)))
  }
  await readBytes(image, 20 * size + 4000, 96)
  t.equal(dataReads(), before + 1, 'parts of one cluster, at the same time and later')
})

t.test('does not read what lies between clusters far apart on the host', async (t) => {
  const size = 512
  const count = 64
  const gap = 2 ** 16
  const built = buildImage({
    clusterBits: 9,
    clusters: Array.from({ length: count }, (_, i) => [i, { kind: 'compressed', bytes: filled(i, size) }]),
  })
  // Spreads the payloads over a long file; each takes less than a sector.
  const pieces: [number, Uint8Array][] = [[0, built.bytes]]
  for (let i = 0; i < count; i++) {
    const from = built.layout.clusterOffsets.get(i)!
    const to = 2 ** 20 + i * gap
    pieces.push([to, Buffer.from(built.bytes.subarray(from, from + 512))])
    built.bytes.writeBigUInt64BE((1n << 62n) | BigInt(to), built.layout.l2EntryOffset(i))
  }
  const source = new SparseSource(2 ** 30, ...pieces)
  const image = await opened(t, source)
  const before = source.bytesRead
  t.ok((await readBytes(image)).equals(built.guest))
  t.ok(source.bytesRead - before < 20 * count * size, `${source.bytesRead - before} bytes were read`)
})
