/**
 * Snapshot tables that go on past the bytes that were read first, past the file, or past what is allowed.
 */
import t from 'tap'
import { Qcow2FormatError, Qcow2Image } from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type SnapshotSpec } from '../../fixtures/image-builder.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { pattern } from '../../fixtures/patterns.js'
import { SparseSource } from '../../fixtures/sparse-source.js'

const CLUSTER = 4096
const MOST_BYTES = 64 * 2 ** 20

const snapshots = (count: number, nameLength: number): SnapshotSpec[] =>
  Array.from({ length: count }, (_, index) => ({
    id: `id ${index}`,
    name: `${index} `.padEnd(nameLength, 'n'),
    clusters: [[0, { kind: 'data', bytes: pattern(index, 100) }]],
  }))

for (const [count, nameLength, mostReads] of [
  [1, 10, 1],
  [12, 5000, 1],
  [14, 5000, 2],
  [20, 60000, 5],
] as const) {
  t.test(`lists ${count} snapshots with names of ${nameLength} bytes, each readable`, async (t) => {
    const wanted = snapshots(count, nameLength)
    const built = buildImage({ clusterBits: 12, snapshots: wanted })
    const { snapshotsOffset } = built.layout
    const source = new SparseSource(built.bytes.length, [0, built.bytes])
    const image = await opened(t, source, { snapshot: `id ${count - 1}` })
    t.strictSame(
      image.snapshots.map(({ id, name }) => ({ id, name })),
      wanted.map(({ id, name }) => ({ id, name })),
    )
    t.strictSame(await readBytes(image), built.snapshots.at(-1)?.guest)
    const reads = source.reads.filter(({ offset }) => offset === snapshotsOffset)
    t.ok(reads.length <= mostReads, `takes ${reads.length} reads`)
  })
}

t.test('misses entries that lie past the end of the file', async (t) => {
  const built = buildImage({ clusterBits: 12, snapshots: snapshots(3, 3000) })
  const { snapshotsOffset, snapshots: entries } = built.layout
  const last = entries.at(-1)!.entryOffset
  for (const end of [snapshotsOffset - 1, snapshotsOffset, snapshotsOffset + 39, last + 20, last + 2000]) {
    const error = await rejection(t, Qcow2Image.open(built.bytes.subarray(0, end)))
    expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_TRUNCATED', {
      layer: 'image in memory',
      hostOffset: snapshotsOffset,
      field: 'snapshotsOffset',
      actual: end,
    })
    t.match((error as Error).message, /3 entries, goes on past the end of the file$/)
  }
})

t.test('refuses a table of more than 64 MiB, having read no more than that', async (t) => {
  const { bytes, layout } = buildImage({
    clusterBits: 12,
    snapshots: [{}],
    header: { nbSnapshots: 65536 },
  })
  // The longest names there are, in an entry of 40 bytes and two times 65535 more.
  const entry = Buffer.from(bytes.subarray(layout.snapshotsOffset, layout.snapshotsOffset + 40))
  entry.writeUInt16BE(0xffff, 12)
  entry.writeUInt16BE(0xffff, 14)
  entry.writeUInt32BE(0, 36)
  const stride = Math.ceil((40 + 2 * 0xffff) / 8) * 8
  const start = Math.ceil(bytes.length / CLUSTER) * CLUSTER
  bytes.writeBigUInt64BE(BigInt(start), 64)
  const entries = Array.from(
    { length: 1 + Math.ceil(MOST_BYTES / stride) },
    (_, i) => [start + i * stride, entry] as const,
  )
  const source = new SparseSource(2 ** 40, [0, bytes], ...entries)
  const error = await rejection(t, Qcow2Image.open(source))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_SNAPSHOT_TABLE', {
    layer: 'image from a source',
    hostOffset: start,
    field: 'snapshotsOffset',
  })
  t.match((error as Error).message, /65536 entries, is longer than 67108864 bytes$/)
  t.ok(
    source.reads.every(({ offset, length }) => offset + length <= start + MOST_BYTES),
    'nothing behind it is read',
  )
})

t.test('refuses a malformed entry where it is found', async (t) => {
  const built = buildImage({
    clusterBits: 12,
    snapshots: [...snapshots(2, 20), { fields: { l1TableOffset: 4097 } }],
  })
  const error = await rejection(t, Qcow2Image.open(built.bytes))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_SNAPSHOT_TABLE', {
    layer: 'image in memory',
    hostOffset: built.layout.snapshots[2]!.entryOffset,
  })
})
