/**
 * L2 entries of all kinds, standard and extended, in images built in memory and damaged by hand.
 */
import t from 'tap'
import { checked, checkedBytes, CLEAN, readEntry, setRefcount } from '../../fixtures/checked.js'
import { buildImage, type ImageSpec } from '../../fixtures/image-builder.js'
import { filled, pattern } from '../../fixtures/patterns.js'

const CLUSTER = 4096
const data = (byte: number) => ({ kind: 'data', bytes: filled(byte, CLUSTER) }) as const

const SPEC: ImageSpec = {
  clusterBits: 12,
  virtualSize: 20 * CLUSTER,
  clusters: [
    [0, data(1)],
    [1, data(2)],
    [5, { kind: 'zero' }],
    [6, { kind: 'zero', preallocated: true }],
    [8, { kind: 'compressed', bytes: filled(3, CLUSTER) }],
    [9, { kind: 'compressed', bytes: pattern(4, CLUSTER).fill(0, 3800) }],
  ],
}

t.test('data, zeros with a place and compressed clusters are allocated', async (t) => {
  const result = await checked(SPEC)
  t.strictSame(result.found, CLEAN)
  t.match(result, {
    totalClusters: 20,
    allocatedClusters: 5,
    compressedClusters: 2,
    fragmentedClusters: 2,
    findingCount: 0,
  })
})

t.test('clusters that do not follow each other on the host are fragmented', async (t) => {
  const { fragmentedClusters } = await checked({
    ...SPEC,
    clusters: [
      [0, data(1)],
      [3, data(2)],
      [1, data(3)],
    ],
  })
  t.equal(fragmentedClusters, 2)
})

t.test('bit 63 has to agree with the refcount of the cluster', async (t) => {
  const cleared = await checked(SPEC, (bytes, layout) => {
    bytes[layout.l2EntryOffset(1)]! &= 0x7f
  })
  t.strictSame(cleared.found, [0, 1, 0])
  t.match(cleared.findings, [
    {
      kind: 'corruption',
      guestOffset: CLUSTER,
      message: /^L2 entry 1 at .*: bit 63 is not set, but the refcount is 1/,
    },
  ])
  const raised = await checked(SPEC, (bytes, layout) => {
    setRefcount(bytes, layout, layout.clusterOffsets.get(6)! / CLUSTER, 2)
  })
  t.strictSame(raised.found, [1, 1, 0])
  t.match(raised.messages[0], /^L2 entry 6 at .*: bit 63 is set, but the refcount is not 1/)
})

t.test('bit 63 of a compressed cluster is a corruption', async (t) => {
  const { found, messages } = await checked(SPEC, (bytes, layout) => {
    bytes[layout.l2EntryOffset(8)]! |= 0x80
  })
  t.strictSame(found, [0, 1, 0])
  t.match(messages[0], /bit 63 is set for a compressed cluster/)
})

t.test('reserved bits are a corruption', async (t) => {
  const { found, messages } = await checked(SPEC, (bytes, layout) => {
    bytes[layout.l2EntryOffset(0)]! |= 0x20
    bytes[layout.l2EntryOffset(1) + 7]! |= 0x02
    bytes[layout.l2EntryOffset(3) + 6]! |= 0x01
  })
  t.strictSame(found, [0, 3, 0])
  for (const message of messages) t.match(message, /reserved bits are set/)
})

t.test('an offset in mid-cluster is a corruption, and two clusters are used', async (t) => {
  const { found, messages } = await checked(SPEC, (bytes, layout) => {
    const at = layout.l2EntryOffset(0)
    bytes.writeBigUInt64BE(readEntry(bytes, at) + 512n, at)
  })
  t.strictSame(found, [0, 2, 0])
  t.match(messages, [/^L2 entry 0 .* is not a multiple of the cluster size 4096/, /2 uses$/])
})

t.test('a cluster that is used twice, and one that nobody uses', async (t) => {
  const { found, findings } = await checked(SPEC, (bytes, layout) => {
    bytes.writeBigUInt64BE(readEntry(bytes, layout.l2EntryOffset(1)), layout.l2EntryOffset(0))
  })
  t.strictSame(found, [1, 1, 0])
  t.match(findings, [
    { kind: 'leak', message: /refcount 1, but 0 uses: leaked$/ },
    { kind: 'corruption', message: /refcount 1, but 2 uses$/ },
  ])
})

t.test('clusters past the end of the file are corruptions', async (t) => {
  const { found, messages, allocatedClusters } = await checked(SPEC, (bytes, layout) => {
    bytes.writeBigUInt64BE(BigInt(bytes.length), layout.l2EntryOffset(12))
    bytes.writeBigUInt64BE((1n << 62n) | BigInt(bytes.length), layout.l2EntryOffset(13))
    // The last sectors may reach less than a cluster past the end.
    bytes.writeBigUInt64BE((1n << 62n) | BigInt(bytes.length - 512), layout.l2EntryOffset(14))
  })
  t.match(messages, [
    /^L2 entry 12 .*: its cluster, up to 4096 bytes, lies past/,
    /refcount 2, but 3 uses/,
    /refcount 0, but 1 use$/,
  ])
  t.strictSame(found, [0, 3, 0])
  t.equal(allocatedClusters, 8)
})

t.test('a file that was cut off: what is recorded of clusters past its end counts for bit 63', async (t) => {
  const { bytes, layout } = buildImage({
    ...SPEC,
    clusters: [0, 1, 2, 3].map((index) => [index, data(index)] as const),
  })
  const { findings, corruptions } = await checkedBytes(bytes.subarray(0, layout.clusterOffsets.get(2)))
  t.equal(corruptions, 2)
  for (const { message } of findings) t.match(message, /lies past the end of the file/)
})

t.test(
  'entries of snapshots count as often as their table is used, and have no place on the active disk',
  async (t) => {
    const shared = data(7)
    const { found, findings } = await checked(
      { ...SPEC, clusters: [[0, shared]], snapshots: [{ clusters: [[1, data(8)]] }, { clusters: [[1, data(9)]] }] },
      (bytes, layout) => {
        bytes[layout.snapshots[1]!.l2EntryOffset(1)]! ^= 0xa0
      },
    )
    t.strictSame(found, [0, 1, 0])
    t.match(findings, [{ guestOffset: undefined, message: /^an L2 entry of a snapshot at .*: reserved bits are set/ }])
  },
)

t.test('what is wrong in a table that snapshots share counts once for each', async (t) => {
  const { found, findings } = await checked({ ...SPEC, snapshots: [{}, {}] }, (bytes, layout) => {
    bytes[layout.l2EntryOffset(0)]! |= 0x20
  })
  t.strictSame(found, [0, 3, 0])
  t.equal(findings.length, 1)
})

t.test('extended L2 entries', async (t) => {
  const size = 16384
  const spec: ImageSpec = {
    clusterBits: 14,
    extendedL2: true,
    virtualSize: 8 * size,
    clusters: [
      [0, { kind: 'data', bytes: filled(1, size) }],
      [1, { kind: 'subclusters', allocated: 3, zero: 12, bytes: filled(2, size) }],
      [2, { kind: 'zero' }],
      [3, { kind: 'compressed', bytes: filled(3, size) }],
    ],
  }
  const clean = await checked(spec)
  t.strictSame(clean.found, CLEAN)
  t.match(clean, { allocatedClusters: 3, compressedClusters: 1 })
  const { found, messages } = await checked(spec, (bytes, layout) => {
    bytes.writeUInt32BE(1, layout.l2EntryOffset(0) + 8)
    bytes.writeUInt32BE(6, layout.l2EntryOffset(2) + 12)
    bytes.writeUInt32BE(1, layout.l2EntryOffset(3) + 12)
    bytes[layout.l2EntryOffset(1) + 7]! |= 0x04
  })
  t.match(messages.slice(0, 4), [
    /^L2 entry 0 .*: subclusters 0x1 are both allocated and zero/,
    /^L2 entry 1 .*: reserved bits/,
    /^L2 entry 2 .*: subclusters 0x6 are allocated in a cluster that is not/,
    /^L2 entry 3 .*: a compressed cluster with a subcluster bitmap/,
  ])
  // The compressed cluster is used by nobody then.
  t.strictSame(found, [1, 4, 0])
})

t.test('with an external data file clusters are allocated, and count nowhere in the image', async (t) => {
  const spec: ImageSpec = {
    ...SPEC,
    dataFile: { name: 'a.data' },
    clusters: [
      [0, data(1)],
      [1, data(2)],
      [3, { kind: 'zero' }],
    ],
  }
  const clean = await checked(spec)
  t.strictSame(clean.found, CLEAN)
  t.match(clean, { allocatedClusters: 2, fragmentedClusters: 0 })
  const damaged = await checked(spec, (bytes, layout) => {
    bytes[layout.l2EntryOffset(1)]! &= 0x7f
    bytes.writeBigUInt64BE((1n << 62n) | 4096n, layout.l2EntryOffset(4))
    // Neither of them is anywhere.
    bytes[layout.l2EntryOffset(3)]! |= 0x80
  })
  t.strictSame(damaged.found, [0, 2, 0])
  t.match(damaged.messages, [
    /^L2 entry 1 .*: bit 63 is not set, but the refcount is 1/,
    /^L2 entry 4 .*: a compressed cluster in an image with an external data file/,
  ])
})
