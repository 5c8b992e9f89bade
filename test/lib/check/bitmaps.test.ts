/**
 * What persistent bitmaps use, in an image built in memory: directory, table and clusters behind everything else.
 */
import t from 'tap'
import { checkedBytes, setRefcount, type Found } from '../../fixtures/checked.js'
import { buildImage } from '../../fixtures/image-builder.js'
import type { Qcow2CheckResult } from '../../../lib/index.js'

const CLUSTER = 4096
const BITMAPS = 0x23852875

interface Places {
  readonly directory: number
  readonly table: number
  readonly cluster: number
}

interface Setting {
  readonly count?: number
  readonly directorySize?: number
  readonly shift?: number
  readonly isVouchedFor?: boolean
}

/** An image with as many bitmaps as asked for, which share one table with one cluster (and two entries without). */
async function withBitmaps(
  damage: (bytes: Buffer, places: Places) => void = () => undefined,
  { count = 1, directorySize, shift = 0, isVouchedFor = true }: Setting = {},
): Promise<Qcow2CheckResult & { readonly found: Found }> {
  const data = Buffer.alloc(24)
  const built = buildImage({
    clusterBits: 12,
    virtualSize: 2 ** 20,
    autoclearFeatures: isVouchedFor ? 1n : 0n,
    extensions: [{ type: BITMAPS, data }],
    patch: (bytes, layout) => {
      const at = bytes.indexOf(Buffer.from('2385287500000018', 'hex')) + 8
      bytes.writeUInt32BE(count, at)
      bytes.writeBigUInt64BE(BigInt(directorySize ?? 32 * count), at + 8)
      bytes.writeBigUInt64BE(BigInt(bytes.length + shift), at + 16)
      for (let i = 0; i < 3; i++) setRefcount(bytes, layout, bytes.length / CLUSTER + i, 1)
    },
  })
  const directory = built.bytes.length
  const places = { directory, table: directory + CLUSTER, cluster: directory + 2 * CLUSTER }
  const bytes = Buffer.concat([built.bytes, Buffer.alloc(3 * CLUSTER)])
  for (let i = 0; i < count; i++) {
    const at = directory + i * 32
    bytes.writeBigUInt64BE(BigInt(places.table), at)
    bytes.writeUInt32BE(3, at + 8)
    bytes.writeUInt8(1, at + 16)
    bytes.writeUInt8(16, at + 17)
    bytes.writeUInt16BE(1, at + 18)
    bytes.write('a', at + 24)
  }
  bytes.writeBigUInt64BE(BigInt(places.cluster), places.table)
  bytes.writeBigUInt64BE(1n, places.table + 8)
  damage(bytes, places)
  const result = await checkedBytes(bytes)
  return { ...result, found: [result.leaks, result.corruptions, result.checkErrors] }
}

t.test('directory, table and clusters are used', async (t) => {
  t.strictSame((await withBitmaps()).findings, [])
})

t.test('bitmaps that the image does not vouch for use nothing', async (t) => {
  t.strictSame((await withBitmaps(undefined, { isVouchedFor: false })).found, [3, 0, 0])
})

t.test('entries that are malformed are corruptions', async (t) => {
  const { found, findings } = await withBitmaps((bytes, { table, cluster }) => {
    bytes.writeBigUInt64BE(BigInt(cluster) + 1n, table)
    bytes.writeBigUInt64BE(BigInt(cluster) + 512n, table + 16)
  })
  t.strictSame(found, [1, 2, 0])
  t.match(
    findings[0]?.message,
    /^bitmap table entry at host offset 0x[\da-f]+, 0x[\da-f]+01: reserved bits are set, or/,
  )
})

t.test('bitmaps that share a table are corruptions', async (t) => {
  t.strictSame((await withBitmaps(undefined, { count: 3 })).found, [0, 2, 0])
})

t.test('a cluster, a table and a directory past the end', async (t) => {
  const cluster = await withBitmaps((bytes, { table }) => {
    bytes.writeBigUInt64BE(BigInt(bytes.length), table)
  })
  t.strictSame(cluster.found, [1, 1, 0])
  t.match(cluster.findings[0]?.message, /^a cluster of a bitmap at .* ends past the end of the file/)
  const table = await withBitmaps((bytes, { directory }) => {
    bytes.writeBigUInt64BE(BigInt(bytes.length) + 4096n, directory)
  })
  t.strictSame(table.found, [2, 1, 0])
  t.match(table.findings[0]?.message, /^the table of a bitmap at .*, 24 bytes, ends past the end of the file/)
  const directory = await withBitmaps(undefined, { shift: 2 ** 30 })
  t.strictSame(directory.found, [3, 2, 0])
  t.match(directory.findings[1]?.message, /^the bitmap directory at .*, entry 0: it does not fit/)
})

t.test('a directory that is malformed or of an impossible size', async (t) => {
  const malformed = await withBitmaps((bytes, { directory }) => {
    bytes.writeUInt8(9, directory + 16)
  })
  t.strictSame(malformed.found, [2, 1, 0])
  t.match(malformed.findings[0]?.message, /^the bitmap directory at .*, entry 0: its type is 9/)
  for (const directorySize of [0, 65535 * 1024 + 1]) {
    const { found, findings } = await withBitmaps(undefined, { directorySize })
    t.strictSame(found, [3, 1, 0])
    t.match(
      findings[0]?.message,
      /^the bitmap directory at host offset 0x4000, it has \d+ bytes, allowed are 1 to 67107840/,
    )
  }
})
