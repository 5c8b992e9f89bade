/**
 * Tables that are damaged, missing or beyond the end of the file: each is named, and the rest stays readable.
 */
import t from 'tap'
import { Qcow2FormatError, type Qcow2ErrorCode } from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type ClusterSpec, type ImageSpec } from '../../fixtures/image-builder.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { pattern } from '../../fixtures/patterns.js'

const CLUSTER = 4096
const data = (seed: number): ClusterSpec => ({ kind: 'data', bytes: pattern(seed, CLUSTER) })

const BAD_L2: readonly (readonly [what: string, entry: bigint, spec?: ImageSpec, bitmap?: bigint])[] = [
  ['a reserved high bit', (1n << 61n) | 0x7000n],
  ['a reserved low bit', 0x7002n],
  ['a reserved bit in a zero cluster', 0x0101n],
  ['an unaligned offset', 0x7200n],
  ['an unaligned offset in a zero cluster', 0x7201n],
  ['a zero flag in version 2', 1n, { version: 2 }],
  ['a zero flag beside subclusters', 0x10001n, { extendedL2: true, clusterBits: 16 }],
  ['subclusters allocated and zero', 0x70000n, { extendedL2: true, clusterBits: 16 }, 0x0000_0001_0000_0001n],
  ['subclusters allocated nowhere', 0n, { extendedL2: true, clusterBits: 16 }, 0x8000_0000n],
  ['a compressed cluster with a bitmap', (1n << 62n) | 0x70000n, { extendedL2: true, clusterBits: 16 }, 1n],
]

for (const [what, entry, spec = {}, bitmap = 0n] of BAD_L2) {
  t.test(`refuses an L2 entry with ${what}, and reads the clusters beside it`, async (t) => {
    const clusterBits = spec.clusterBits ?? 12
    const size = 2 ** clusterBits
    const built = buildImage({
      clusterBits,
      ...spec,
      clusters: [
        [0, { kind: 'data', bytes: pattern(0, size) }],
        [1, { kind: 'raw-entry', entry, bitmap }],
        [2, { kind: 'data', bytes: pattern(2, size) }],
      ],
    })
    const image = await opened(t, built.bytes)
    for (const [offset, length] of [
      [size, 1],
      [2 * size - 1, 1],
      [size - 1, 2],
      [0, 3 * size],
    ] as const) {
      const error = await rejection(t, image.read(Buffer.alloc(length), offset))
      expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_L2_ENTRY', {
        layer: 'image in memory',
        hostOffset: built.layout.l2EntryOffset(1),
        guestOffset: size,
        field: 'L2 entry',
        actual: entry,
      })
    }
    t.ok((await readBytes(image, 0, size)).equals(pattern(0, size)))
    t.ok((await readBytes(image, 2 * size, size)).equals(pattern(2, size)))
  })
}

/** Reach of an L2 table, and an image with one cluster in each of four tables. */
const REACH = 64 * 512
const fourTables = (patch: ImageSpec['patch']): ReturnType<typeof buildImage> =>
  buildImage({
    clusterBits: 9,
    virtualSize: 4 * REACH,
    clusters: [0, 64, 128, 192].map((index) => [index, { kind: 'data', bytes: pattern(index, 512) }]),
    ...(patch === undefined ? {} : { patch }),
  })

const BAD_L1: readonly (readonly [what: string, entry: bigint, code: Qcow2ErrorCode])[] = [
  ['a reserved high bit', 1n << 62n, 'ERR_QCOW2_BAD_L1_ENTRY'],
  ['a reserved low bit', 0x600n | 1n, 'ERR_QCOW2_BAD_L1_ENTRY'],
  ['an offset past the end of the file', 0x00ff_ffff_0000_0000n, 'ERR_QCOW2_TRUNCATED'],
]

for (const [what, entry, code] of BAD_L1) {
  t.test(`refuses an L1 entry with ${what}, and reads what other entries describe`, async (t) => {
    const built = fourTables((bytes, layout) => bytes.writeBigUInt64BE(entry, layout.l1EntryOffset(2)))
    const image = await opened(t, built.bytes)
    for (const [offset, length] of [
      [2 * REACH, 1],
      [3 * REACH - 1, 1],
      [REACH, REACH + 1],
      [0, 4 * REACH],
    ] as const) {
      const error = await rejection(t, image.read(Buffer.alloc(length), offset))
      expectError(
        t,
        error,
        Qcow2FormatError,
        code,
        code === 'ERR_QCOW2_TRUNCATED'
          ? { layer: 'image in memory', hostOffset: Number(entry), actual: built.bytes.length }
          : {
              layer: 'image in memory',
              hostOffset: built.layout.l1EntryOffset(2),
              field: 'L1 entry',
              actual: entry,
            },
      )
    }
    t.ok((await readBytes(image, 0, 2 * REACH)).equals(built.guest.subarray(0, 2 * REACH)), 'all that lies before it')
    t.ok((await readBytes(image, 3 * REACH)).equals(built.guest.subarray(3 * REACH)), 'all that lies behind it')
  })
}

t.test('a damaged L1 entry behind empty space does not keep that from being read', async (t) => {
  const built = buildImage({
    clusterBits: 9,
    virtualSize: 8 * REACH,
    clusters: [[7 * 64, { kind: 'data', bytes: pattern(1, 512) }]],
    patch: (bytes, layout) => bytes.writeBigUInt64BE(1n, layout.l1EntryOffset(5)),
  })
  const image = await opened(t, built.bytes)
  t.strictSame(await readBytes(image, 0, 5 * REACH), Buffer.alloc(5 * REACH))
  await t.rejects(image.read(Buffer.alloc(1), 5 * REACH), { code: 'ERR_QCOW2_BAD_L1_ENTRY' })
  t.ok((await readBytes(image, 6 * REACH)).equals(built.guest.subarray(6 * REACH)))
})

t.test('refuses an unaligned L2 table', async (t) => {
  const built = buildImage({
    clusterBits: 12,
    clusters: [[0, data(1)]],
    patch: (bytes, layout) => bytes.writeBigUInt64BE(0x3200n, layout.l1EntryOffset(0)),
  })
  const error = await rejection(t, (await opened(t, built.bytes)).read(Buffer.alloc(1), 0))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_L1_ENTRY', { actual: 0x3200n })
})

t.test('an L1 entry may point at the L1 table, or anywhere else in the file', async (t) => {
  for (const place of ['l1TableOffset', 'refcountTableOffset'] as const) {
    const built = buildImage({
      clusterBits: 12,
      virtualSize: 512 * CLUSTER * 3,
      clusters: [[512, data(1)]],
      patch: (bytes, layout) => bytes.writeBigUInt64BE(BigInt(layout[place]), layout.l1EntryOffset(0)),
    })
    const image = await opened(t, built.bytes, { tableCacheBytes: 2 ** 20 })
    const at = built.layout[place]
    const table = built.bytes.subarray(at, at + CLUSTER)
    for (let i = 0; i < 512; i++) {
      const entry = Number(table.readBigUInt64BE(i * 8) & 0x7fff_ffff_ffff_ffffn)
      const expected = entry === 0 ? Buffer.alloc(CLUSTER) : built.bytes.subarray(entry, entry + CLUSTER)
      if (!(await readBytes(image, i * CLUSTER, CLUSTER)).equals(expected)) t.fail(`cluster ${i} from ${place}`)
    }
    t.ok((await readBytes(image, 512 * CLUSTER, CLUSTER)).equals(pattern(1, CLUSTER)), place)
  }
})

t.test('reads tables again for a snapshot whose L1 table lies in the active one', async (t) => {
  const built = buildImage({
    clusterBits: 9,
    virtualSize: 4 * REACH,
    clusters: [0, 64, 128, 192].map((index) => [index, { kind: 'data', bytes: pattern(index, 512) }]),
    snapshots: [{ virtualSize: REACH }],
    patch: (bytes, layout) => bytes.writeBigUInt64BE(BigInt(layout.l1TableOffset), layout.snapshots[0]!.entryOffset),
  })
  const image = await opened(t, built.bytes, { snapshot: '1' })
  t.ok((await readBytes(image)).equals(built.guest.subarray(0, REACH)))
})
