/**
 * Which data may lie in holes: that of raw disks, and that of images with many more clusters in use than they have room for.
 */
import t from 'tap'
import { findHoles } from '../../../lib/image/preallocation.js'
import type { Layer } from '../../../lib/image/layer.js'
import { HostFile } from '../../../lib/source/source.js'
import { SparseSource } from '../../fixtures/sparse-source.js'

const CLUSTER = 512
const TABLE = CLUSTER
const BLOCK = 2 * CLUSTER

interface Shape {
  readonly refcountOrder: number
  /** Clusters of the file. */
  readonly clusters: number
  /** The first block's bytes. */
  readonly block: Uint8Array
  /** Clusters that the file system has room for; undefined: nobody knows. */
  readonly stored: number | undefined
  /** Where the first block is. */
  readonly blockOffset?: number
  readonly clusterBits?: number
}

/** A layer of that shape, and how often it was asked for holes. */
function layerOf({ refcountOrder, clusters, block, stored, blockOffset = BLOCK, clusterBits = 9 }: Shape): {
  layer: Layer
  asked: number[]
} {
  const table = Buffer.alloc(CLUSTER)
  table.writeBigUInt64BE(BigInt(blockOffset))
  const asked: number[] = []
  const file = new HostFile(new SparseSource(clusters * CLUSTER, [TABLE, table], [BLOCK, block]), {
    label: 'disk.qcow2',
    allocatedBytes: stored === undefined ? undefined : stored * CLUSTER,
    findHoles: () => {
      asked.push(1)
      return Promise.resolve(undefined)
    },
  })
  const header = { clusterBits, refcountOrder, refcountTableOffset: TABLE, refcountTableClusters: 1 }
  return { layer: { file, dataFile: file, metadata: { header } } as unknown as Layer, asked }
}

/** A block whose first refcounts are 1. */
function blockWith(used: number, bits: number): Buffer {
  const block = Buffer.alloc(CLUSTER)
  for (let index = 0; index < used; index++) {
    const bit = index * bits
    if (bits < 8) block[Math.floor(bit / 8)]! |= 1 << (bit % 8)
    else block[bit / 8 + bits / 8 - 1] = 1
  }
  return block
}

for (const refcountOrder of [0, 1, 2, 3, 4, 5, 6]) {
  const bits = 2 ** refcountOrder
  t.test(`refcounts of ${bits} bits`, async (t) => {
    const clusters = 60
    for (const [used, isPreallocated] of [
      [44, true],
      [43, false],
      [0, false],
    ] as const) {
      // Room for 40: a tenth more is 44.
      const { layer, asked } = layerOf({ refcountOrder, clusters, block: blockWith(used, bits), stored: 40 })
      const hasHoles = await findHoles([layer])
      t.equal(hasHoles(0), isPreallocated, `${used} of ${clusters} clusters in use`)
      t.equal(asked.length, isPreallocated ? 1 : 0)
    }
  })
}

t.test('counts the bits of a refcount that is large', async (t) => {
  const block = Buffer.alloc(CLUSTER)
  for (let at = 0; at < 10; at += 2) block[at] = 0x80
  const shape = { refcountOrder: 4, clusters: 60, block, stored: 3 }
  t.equal((await findHoles([layerOf(shape).layer]))(0), true)
})

t.test('a file with room for all of its clusters needs no look at refcounts', async (t) => {
  const shape = { refcountOrder: 4, clusters: 60, block: blockWith(60, 16) }
  t.equal((await findHoles([layerOf({ ...shape, stored: 60 }).layer]))(0), false)
  t.equal((await findHoles([layerOf({ ...shape, stored: undefined }).layer]))(0), false, 'nor one of unknown room')
})

t.test('a table that leads past the end of the file says nothing', async (t) => {
  const block = blockWith(60, 16)
  const shape = { refcountOrder: 4, clusters: 60, block, stored: 2, blockOffset: 2 ** 40 }
  t.equal((await findHoles([layerOf(shape).layer]))(0), false)
  const intoCluster = { ...shape, clusterBits: 10, blockOffset: 1536 }
  t.equal((await findHoles([layerOf(intoCluster).layer]))(0), false, 'nor one into a cluster')
})

t.test('is found out once for each layer', async (t) => {
  const { layer, asked } = layerOf({ refcountOrder: 4, clusters: 60, block: blockWith(60, 16), stored: 3 })
  const [first, second] = await Promise.all([findHoles([layer]), findHoles([layer])])
  t.strictSame([first(0), second(0)], [true, true])
  t.equal(asked.length, 2, 'the file itself remembers its holes')
})

t.test('each layer is asked for itself, and raw ones always', async (t) => {
  const full = layerOf({ refcountOrder: 4, clusters: 60, block: blockWith(60, 16), stored: 60 })
  const raw = layerOf({ refcountOrder: 4, clusters: 60, block: blockWith(0, 16), stored: 60 })
  const hasHoles = await findHoles([full.layer, { ...raw.layer, metadata: undefined }])
  t.strictSame([hasHoles(0), hasHoles(1)], [false, true])
  t.strictSame([full.asked.length, raw.asked.length], [0, 1])
})
