/**
 * The mapping of one layer: every kind of cluster, in every kind of table, reads as the specification says.
 */
import t from 'tap'
import { buildImage, type ClusterSpec, type ImageSpec } from '../../fixtures/image-builder.js'
import { opened, readBytes, readDisk } from '../../fixtures/opened-image.js'
import { filled, pattern, text } from '../../fixtures/patterns.js'

/** One of each kind, with neighbours of the same and of another kind. */
function clustersOfEveryKind(clusterBytes: number, version: 2 | 3, isExtended: boolean): [number, ClusterSpec][] {
  const shared: ClusterSpec = { kind: 'data', bytes: pattern(7, clusterBytes) }
  const clusters: [number, ClusterSpec][] = [
    [1, { kind: 'data', bytes: pattern(1, clusterBytes) }],
    [2, { kind: 'data', bytes: pattern(2, clusterBytes) }],
    [5, { kind: 'data', bytes: pattern(5, clusterBytes), copied: false }],
    [4, { kind: 'data', bytes: pattern(4, clusterBytes), copied: true }],
    [7, shared],
    [8, shared],
    [9, { kind: 'compressed', bytes: text(9, clusterBytes) }],
    [10, { kind: 'compressed', bytes: text(10, clusterBytes) }],
    [12, { kind: 'raw-entry', entry: 0n }],
    [13, { kind: 'compressed', bytes: filled(0x55, clusterBytes) }],
  ]
  if (version === 3) {
    clusters.push(
      [14, { kind: 'zero' }],
      [15, { kind: 'zero', preallocated: true }],
      [16, { kind: 'zero', preallocated: true, copied: false }],
      [18, { kind: 'zero' }],
    )
  }
  if (isExtended) {
    const bytes = pattern(20, clusterBytes)
    clusters.push(
      [20, { kind: 'subclusters', allocated: 0x0000_0001, zero: 0x8000_0000, bytes }],
      [21, { kind: 'subclusters', allocated: 0xf0f0_f0f0, zero: 0x0101_0101, bytes }],
      [22, { kind: 'subclusters', allocated: 0, zero: 0xffff_0000, preallocated: true }],
      [23, { kind: 'subclusters', allocated: 0, zero: 0x0000_ffff }],
      [24, { kind: 'subclusters', allocated: 0, zero: 0, preallocated: true }],
      [25, { kind: 'subclusters', allocated: 0x8000_0001, zero: 0x7fff_fffe, bytes }],
      [26, { kind: 'subclusters', allocated: 0xffff_ffff, zero: 0, bytes }],
    )
  }
  return clusters
}

const CASES: readonly ImageSpec[] = [
  { version: 2, clusterBits: 9 },
  { version: 2, clusterBits: 16 },
  { clusterBits: 9 },
  { clusterBits: 12 },
  { clusterBits: 16, compression: 'zstd' },
  { clusterBits: 14, extendedL2: true },
  { clusterBits: 16, extendedL2: true, compression: 'zstd' },
  { clusterBits: 21 },
]

for (const spec of CASES) {
  const { version = 3, clusterBits = 16, extendedL2 = false, compression = 'zlib' } = spec
  const title = `version ${version}, ${2 ** clusterBits} bytes, ${compression}${extendedL2 ? ', subclusters' : ''}`
  t.test(`reads every kind of cluster: ${title}`, async (t) => {
    const bytes = 2 ** clusterBits
    const clusters = clustersOfEveryKind(bytes, version, extendedL2)
    const built = buildImage({ ...spec, virtualSize: 27 * bytes + bytes / 2 + 1, clusters })
    const image = await opened(t, built.bytes)
    t.ok(built.guest.equals(await readBytes(image)), 'the whole disk at once')
    for (let at = 0; at < built.guest.length; at += bytes - 512 + 13) {
      const expected = built.guest.subarray(at, at + bytes)
      if (!expected.equals(await readBytes(image, at, bytes))) t.fail(`a cluster's worth from ${at} on`)
    }
    t.pass('and piece by piece')
  })
}

t.test('goes from one L2 table to the next, over tables that are not there', async (t) => {
  const bytes = 512
  const entries = bytes / 8
  const clusters: [number, ClusterSpec][] = [0, entries - 1, entries, 3 * entries, 5 * entries - 1, 9 * entries].map(
    (index) => [index, { kind: 'data', bytes: pattern(index, bytes) }],
  )
  const built = buildImage({ clusterBits: 9, virtualSize: 11 * entries * bytes + 77, clusters })
  t.ok(built.guest.equals(await readDisk(built.bytes)))
})

t.test('reads a disk whose size is no multiple of anything', async (t) => {
  for (const virtualSize of [1, 511, 513, 4095, 4097, 10000, 65537]) {
    const built = buildImage({
      clusterBits: 12,
      virtualSize,
      clusters: [[Math.floor((virtualSize - 1) / 4096), { kind: 'data', bytes: pattern(1, 4096) }]],
    })
    t.strictSame(await readDisk(built.bytes), built.guest, `${virtualSize} bytes`)
  }
})

t.test('reads a disk of no bytes', async (t) => {
  const image = await opened(t, buildImage({ virtualSize: 0, clusters: [] }).bytes)
  t.equal(image.virtualSize, 0)
  t.equal(await image.read(Buffer.alloc(10), 0), 0)
})

t.test('reads the far end of the largest disk that can be described', async (t) => {
  const clusterBits = 21
  const virtualSize = 2 ** 53 - 1
  const last = Math.floor(virtualSize / 2 ** clusterBits)
  const built = buildImage({ clusterBits, virtualSize, clusters: [[last, { kind: 'data', bytes: pattern(1, 1000) }]] })
  const image = await opened(t, built.bytes)
  const start = last * 2 ** clusterBits
  t.strictSame(await readBytes(image, start - 10, 1010), Buffer.concat([Buffer.alloc(10), pattern(1, 1000)]))
  t.strictSame(await readBytes(image, virtualSize - 5, 100), Buffer.alloc(5))
  t.strictSame(await readBytes(image, 2 ** 50, 100), Buffer.alloc(100))
})

t.test('ignores L1 entries behind the end of the disk', async (t) => {
  const built = buildImage({
    clusterBits: 9,
    virtualSize: 1000,
    clusters: [
      [0, { kind: 'data', bytes: pattern(1, 512) }],
      [640, { kind: 'data', bytes: pattern(2, 512) }],
    ],
  })
  t.ok(built.layout.l1Size > 1)
  t.strictSame(await readDisk(built.bytes), built.guest)
})

t.test('reads clusters that several guest clusters share, and tables shared with a snapshot', async (t) => {
  const shared: ClusterSpec = { kind: 'data', bytes: pattern(1, 4096) }
  const packed: ClusterSpec = { kind: 'compressed', bytes: text(2, 4096) }
  const built = buildImage({
    clusterBits: 12,
    clusters: [
      [0, shared],
      [3, shared],
      [1, packed],
      [2, packed],
    ],
    snapshots: [{}],
  })
  t.ok(built.guest.equals(await readDisk(built.bytes)))
  t.ok(built.guest.equals(await readDisk(built.bytes, { snapshot: '1' })))
})
