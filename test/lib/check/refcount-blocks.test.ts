/**
 * Refcount table, blocks and the comparison, in images built in memory and damaged by hand.
 */
import t from 'tap'
import { checked, checkedBytes, CLEAN, readEntry, setRefcount } from '../../fixtures/checked.js'
import { buildImage, type ImageSpec, type Layout } from '../../fixtures/image-builder.js'
import { filled } from '../../fixtures/patterns.js'

const CLUSTER = 512
const data = (byte: number) => ({ kind: 'data', bytes: filled(byte, CLUSTER) }) as const
const clusters = (count: number) => Array.from({ length: count }, (_, index) => [index, data(index % 256)] as const)

const SPEC: ImageSpec = { clusterBits: 9, clusters: clusters(3) }

t.test('every width of refcounts, with several blocks', async (t) => {
  for (const refcountOrder of [0, 1, 2, 3, 4, 5, 6]) {
    const { found, imageEndOffset } = await checked({ ...SPEC, clusters: clusters(700), refcountOrder })
    t.strictSame(found, CLEAN, `${2 ** refcountOrder} bits`)
    t.ok(imageEndOffset >= 700 * CLUSTER && imageEndOffset % CLUSTER === 0)
  }
})

t.test('refcounts above and below the number of uses', async (t) => {
  const { found, findings } = await checked(SPEC, (bytes, layout) => {
    setRefcount(bytes, layout, 0, 7)
    setRefcount(bytes, layout, layout.clusterOffsets.get(1)! / CLUSTER, 0)
    setRefcount(bytes, layout, layout.refcountTableOffset / CLUSTER, 0)
  })
  // The L2 entry says that the refcount is one.
  t.strictSame(found, [1, 3, 0])
  t.match(findings, [
    { kind: 'corruption', message: /^L2 entry 1/ },
    { kind: 'leak', hostOffset: 0, message: 'host cluster at 0x0: refcount 7, but 1 use: leaked' },
    {
      kind: 'corruption',
      hostOffset: CLUSTER,
      message: 'host cluster at 0x200: refcount 0, but 1 use, and it holds metadata',
    },
    { kind: 'corruption', message: /refcount 0, but 1 use$/ },
  ])
})

t.test('the image ends behind the last cluster that has a refcount or is used', async (t) => {
  const { bytes, layout } = buildImage(SPEC)
  const longer = Buffer.concat([bytes, Buffer.alloc(10 * CLUSTER)])
  t.match(await checkedBytes(longer), { imageEndOffset: bytes.length, findingCount: 0 })
  setRefcount(longer, layout, bytes.length / CLUSTER + 4, 1)
  t.match(await checkedBytes(longer), { imageEndOffset: bytes.length + 5 * CLUSTER, leaks: 1, findingCount: 1 })
})

const tableEntry = ({ refcountTableOffset }: Layout, index: number): number => refcountTableOffset + index * 8

t.test('a block that is nowhere, with reserved bits, in mid-cluster or past the end', async (t) => {
  const built = async (entry: (block: bigint) => bigint): Promise<Awaited<ReturnType<typeof checked>>> =>
    checked({ ...SPEC, clusterBits: 10 }, (bytes, layout) => {
      bytes.writeBigUInt64BE(entry(readEntry(bytes, tableEntry(layout, 0))), tableEntry(layout, 0))
    })
  // Header, refcount table, L1 table, L2 table, 3 of data; bit 63 of the latter four is wrong then.
  t.strictSame((await built(() => 0n)).found, [0, 7 + 4, 0])
  const reserved = await built((block) => block + 1n)
  t.strictSame(reserved.found, [1, 1, 0])
  t.match(reserved.messages, [/^refcount table entry 0 at .*: reserved bits are set/, /leaked/])
  const unaligned = await built((block) => block + 512n)
  t.strictSame(unaligned.found, [0, 1, 8])
  t.match(unaligned.findings, [
    { kind: 'corruption', message: /the offset is not a multiple of the cluster size 1024/ },
    { kind: 'error', hostOffset: 0, message: /^the refcounts of 8 host clusters from 0x0 on cannot be read/ },
  ])
  const past = await built(() => 2n ** 63n)
  t.strictSame(past.found, [0, 1 + 7 + 4, 0])
  t.match(past.messages[4], /it lies past the end of the file/)
})

t.test('a block that two entries point to', async (t) => {
  const { messages, found } = await checked(SPEC, (bytes, layout) => {
    bytes.copy(bytes, tableEntry(layout, 1), tableEntry(layout, 0), tableEntry(layout, 1))
  })
  t.match(messages, [/^refcount table entry 1 at .*: 2 uses of its cluster/, /2 uses, and it holds metadata/])
  t.strictSame(found, [0, 2, 0])
})

t.test('metadata that is used otherwise as well is a corruption, though its refcount allows for it', async (t) => {
  const { found, messages } = await checked(SPEC, (bytes, layout) => {
    bytes.writeBigUInt64BE(BigInt(layout.l1TableOffset), layout.l2EntryOffset(2))
    setRefcount(bytes, layout, layout.l1TableOffset / CLUSTER, 2)
    setRefcount(bytes, layout, layout.clusterOffsets.get(2)! / CLUSTER, 0)
  })
  t.strictSame(found, [0, 1, 0])
  t.match(messages, [/^host cluster at 0x[\da-f]+: 2 uses, though it holds metadata/])
})

t.test('a refcount of 64 bits beyond what is counted', async (t) => {
  const spec: ImageSpec = {
    clusterBits: 9,
    refcountOrder: 6,
    virtualSize: 64 * CLUSTER,
    clusters: [],
    // Each of these entries is another use of the same cluster, which holds no table that anything follows from.
    snapshots: Array.from({ length: 1025 }, () => ({ clusters: [], virtualSize: 0 })),
  }
  const tables = 2 ** 22
  const { bytes, layout } = buildImage(spec)
  // One L1 table of 32 MiB behind everything, whose entries all point to the same L2 table.
  const l1 = Buffer.alloc(tables * 8)
  const image = Buffer.concat([bytes, Buffer.alloc(CLUSTER), l1])
  const table = bytes.length
  for (let index = 0; index < tables; index++) image.writeBigUInt64BE(BigInt(table), table + CLUSTER + index * 8)
  for (const { entryOffset } of layout.snapshots) {
    image.writeBigUInt64BE(BigInt(table + CLUSTER), entryOffset)
    image.writeUInt32BE(tables, entryOffset + 8)
  }
  const cluster = table / CLUSTER
  const at = layout.refcountBlockOffsets[Math.floor(cluster / 64)]! + (cluster % 64) * 8
  t.ok(at > 0)
  // Fewer than there are for sure.
  image.writeBigUInt64BE(2n ** 32n - 2n, at)
  t.equal((await checkedBytes(image)).checkErrors, 0)
  image.writeBigUInt64BE(2n ** 32n - 1n, at)
  t.equal((await checkedBytes(image)).checkErrors, 1)
  image.writeBigUInt64BE(2n ** 32n + 1n, at)
  const { checkErrors, findings } = await checkedBytes(image)
  t.equal(checkErrors, 1)
  t.ok(findings.some(({ kind, hostOffset }) => kind === 'error' && hostOffset === table))
})
