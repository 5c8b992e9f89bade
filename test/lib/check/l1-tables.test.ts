/**
 * L1 tables and what their entries say of L2 tables, in images built in memory and damaged by hand.
 */
import t from 'tap'
import { checked, checkedBytes, CLEAN, readEntry, setRefcount } from '../../fixtures/checked.js'
import { buildImage, type ImageSpec } from '../../fixtures/image-builder.js'
import { filled } from '../../fixtures/patterns.js'

const CLUSTER = 512
// An L2 table of 512 bytes describes 64 clusters.
const REACH = 64
const data = (byte: number) => ({ kind: 'data', bytes: filled(byte, CLUSTER) }) as const

const SPEC: ImageSpec = {
  clusterBits: 9,
  clusters: [
    [0, data(1)],
    [REACH, data(2)],
    [3 * REACH, data(3)],
  ],
}

t.test('an image with several L2 tables is clean', async (t) => {
  const { found, findings, totalClusters, allocatedClusters } = await checked(SPEC)
  t.strictSame(found, CLEAN)
  t.strictSame(findings, [])
  t.equal(totalClusters, 3 * REACH + 1)
  t.equal(allocatedClusters, 3)
})

t.test('reserved bits of an entry are a corruption, and its table is followed all the same', async (t) => {
  const { found, findings } = await checked(SPEC, (bytes, layout) => {
    bytes[layout.l1EntryOffset(1)]! |= 0x40
  })
  t.strictSame(found, [0, 1, 0])
  t.match(findings, [
    { guestOffset: REACH * CLUSTER, message: /^L1 entry 1 at host offset 0x[\da-f]+, 0xc0[\da-f]+: reserved bits/ },
  ])
})

t.test('an entry with flags and no offset is a corruption', async (t) => {
  for (const [entry, what] of [
    [1n << 63n, /bit 63 is set, but there is no offset/],
    [1n << 60n, /reserved bits are set/],
  ] as const) {
    const { found, messages } = await checked(SPEC, (bytes, { l1TableOffset }) => {
      bytes.writeBigUInt64BE(entry, l1TableOffset + 2 * 8)
    })
    t.strictSame(found, [0, 1, 0])
    t.match(messages[0], what)
  }
})

t.test('bit 63 has to agree with the refcount of the L2 table', async (t) => {
  const cleared = await checked(SPEC, (bytes, layout) => {
    bytes[layout.l1EntryOffset(3)]! &= 0x7f
  })
  t.strictSame(cleared.found, [0, 1, 0])
  t.match(cleared.findings, [{ guestOffset: 3 * REACH * CLUSTER, message: /bit 63 is not set, but its refcount is 1/ }])
  const set = await checked(SPEC, (bytes, layout) => {
    setRefcount(bytes, layout, layout.l2TableOffsets.get(0)! / CLUSTER, 2)
  })
  t.strictSame(set.found, [1, 1, 0])
  t.match(set.messages, [/bit 63 is set, but its refcount is not 1/, /refcount 2, but 1 use: leaked/])
})

t.test('an offset in mid-cluster is a corruption, and what is there is no table', async (t) => {
  const { found, messages } = await checked({ ...SPEC, clusterBits: 10 }, (bytes, layout) => {
    const at = layout.l1EntryOffset(0)
    bytes.writeBigUInt64BE(readEntry(bytes, at) + 512n, at)
  })
  t.match(messages, [
    /L2 table offset 0x[\da-f]+ is not a multiple of the cluster size 1024/,
    /2 uses/,
    /0 uses: leaked/,
    /0 uses: leaked/,
  ])
  t.strictSame(found, [2, 2, 0])
})

t.test('an L2 table past the end of the file is a corruption', async (t) => {
  const { found, messages } = await checked(SPEC, (bytes, layout) => {
    bytes.writeBigUInt64BE(0x00ff_ffff_ffff_fe00n, layout.l1EntryOffset(0))
  })
  // Its old table and the cluster of that are leaked.
  t.strictSame(found, [2, 1, 0])
  t.match(messages[0], /L1 entry 0 .* its L2 table lies past the end of the file/)
})

t.test('an L1 table past the end of the file is a corruption', async (t) => {
  const { bytes } = buildImage({ ...SPEC, header: { l1TableOffset: 2 ** 40 } })
  const { corruptions, leaks, allocatedClusters, findings } = await checkedBytes(bytes)
  t.equal(corruptions, 1)
  t.equal(leaks, 1 + 3 + 3)
  t.equal(allocatedClusters, 0)
  t.match(findings[0]?.message, /^the L1 table at host offset 0x10000000000, 32 bytes, ends past/)
})

t.test('two entries may not lead to one table with a refcount of one', async (t) => {
  const { found, allocatedClusters } = await checked(SPEC, (bytes, { l1TableOffset }) => {
    bytes.copy(bytes, l1TableOffset + 8, l1TableOffset, l1TableOffset + 8)
  })
  // One table and its cluster are used twice, another table and its cluster by nobody.
  t.strictSame(found, [2, 2, 0])
  t.equal(allocatedClusters, 3)
})

const SHARED: ImageSpec = { ...SPEC, snapshots: [{}, { clusters: [[0, data(9)]] }] }

t.test('tables and clusters that are shared with snapshots count once for each', async (t) => {
  const { found, allocatedClusters } = await checked(SHARED)
  t.strictSame(found, CLEAN)
  t.equal(allocatedClusters, 3)
})

t.test('in snapshots bit 63 says nothing, but reserved bits do', async (t) => {
  const damaged = async (mask: number): Promise<unknown> => {
    const { found, findings } = await checked(SHARED, (bytes, layout) => {
      bytes[layout.snapshots[1]!.l1EntryOffset(0)]! ^= mask
    })
    return [found, findings.map(({ message, guestOffset }) => [message.replace(/ at .*:/, ':'), guestOffset])]
  }
  t.strictSame(await damaged(0x80), [CLEAN, []])
  t.strictSame(await damaged(0x10), [[0, 1, 0], [['an L1 entry of a snapshot: reserved bits are set', undefined]]])
})

t.test('a snapshot whose L1 table is past the end', async (t) => {
  const { found, messages } = await checked({
    ...SPEC,
    snapshots: [{ fields: { l1TableOffset: 2 ** 40 } }, { fields: { l1TableOffset: 0, l1Size: 0 }, virtualSize: 0 }],
  })
  t.equal(found[1], 1)
  t.match(messages[0], /^the L1 table of a snapshot at host offset 0x10000000000/)
})

t.test('thousands of large L1 tables that lie on top of each other are read once', async (t) => {
  // All of them begin in the same tables and go on past the end of the file; each is 32 MiB.
  const count = 3000
  const { bytes, layout } = buildImage({
    ...SPEC,
    snapshots: Array.from({ length: count }, () => ({ clusters: [], fields: { l1Size: 2 ** 22 } })),
  })
  layout.snapshots.forEach(({ entryOffset }) => {
    bytes.writeBigUInt64BE(BigInt(layout.l1TableOffset), entryOffset)
  })
  const { corruptions, findings } = await checkedBytes(bytes)
  t.ok(corruptions > count, `${corruptions} corruptions`)
  t.equal(findings.length, 1000)
})
