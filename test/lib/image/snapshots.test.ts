/**
 * Internal snapshots: listed as the image stores them, each readable as a disk of its own.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Qcow2FormatError, Qcow2Image, Qcow2UsageError } from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type BuiltImage, type ClusterSpec, type SnapshotSpec } from '../../fixtures/image-builder.js'
import { opened, readBytes, readDisk } from '../../fixtures/opened-image.js'
import { pattern, text } from '../../fixtures/patterns.js'

const CLUSTER = 4096
const data = (seed: number): ClusterSpec => ({ kind: 'data', bytes: pattern(seed, CLUSTER) })

const withSnapshots = (...snapshots: SnapshotSpec[]): BuiltImage =>
  buildImage({
    clusterBits: 12,
    virtualSize: 4 * CLUSTER,
    clusters: [
      [0, data(0)],
      [1, { kind: 'compressed', bytes: text(1, CLUSTER) }],
    ],
    snapshots,
  })

t.test('lists what the table says, in its order', async (t) => {
  const { bytes, layout } = withSnapshots(
    {
      id: '7',
      name: 'before the update',
      dateSeconds: 1234567890,
      dateNanoseconds: 987654321,
      vmClockNanoseconds: 2n ** 60n + 1n,
      vmStateBytes: 5_000_000_000,
      icount: 12345n,
      virtualSize: 100000,
    },
    { id: '', name: '', extraData: 0 },
    { id: 'a\0b', name: Uint8Array.from([0x66, 0xff]), extraData: 16 },
  )
  const image = await opened(t, bytes)
  t.equal(image.snapshot, undefined)
  t.match(image.snapshots[0], {
    id: '7',
    name: 'before the update',
    date: new Date(1234567890987),
    vmClockNanoseconds: 2n ** 60n + 1n,
    vmStateSize: 5_000_000_000,
    icount: 12345n,
    virtualSize: 100000,
    l1TableOffset: layout.snapshots[0]!.l1TableOffset,
    l1Size: layout.snapshots[0]!.l1Size,
  })
  t.match(image.snapshots[1], { id: '', name: '', icount: undefined, virtualSize: 4 * CLUSTER, vmStateSize: 0 })
  t.match(image.snapshots[2], { id: 'a', name: 'f\ufffd', icount: undefined })
})

t.test('reads each snapshot as it was, and the active disk as it is', async (t) => {
  const shared = data(9)
  const built = buildImage({
    clusterBits: 12,
    virtualSize: 4 * CLUSTER,
    clusters: [
      [0, data(0)],
      [1, shared],
      [2, { kind: 'zero' }],
    ],
    snapshots: [
      { clusters: [[1, shared]] },
      { clusters: [[0, { kind: 'compressed', bytes: text(5, CLUSTER) }]] },
      { clusters: [] },
      {},
      { ownTables: true, vmState: pattern(6, 3 * CLUSTER) },
    ],
  })
  t.ok((await readDisk(built.bytes)).equals(built.guest))
  for (const [index, { guest }] of built.snapshots.entries()) {
    const image = await opened(t, built.bytes, { snapshot: String(index + 1) })
    t.equal(image.snapshot, image.snapshots[index])
    t.ok((await readBytes(image)).equals(guest), `snapshot ${index + 1}`)
  }
})

t.test('a snapshot has its own size', async (t) => {
  const built = withSnapshots(
    { virtualSize: 2 * CLUSTER + 100, clusters: [[2, data(2)]] },
    { virtualSize: 4000 * CLUSTER + 5, clusters: [[4000, data(3)]] },
    { virtualSize: 0, clusters: [] },
  )
  for (const [index, expected] of built.snapshots.entries()) {
    const image = await opened(t, built.bytes, { snapshot: `snapshot-${index + 1}` })
    t.equal(image.virtualSize, Number(expected.virtualSize))
    t.ok((await readBytes(image)).equals(expected.guest))
    t.equal(await image.read(Buffer.alloc(1), image.virtualSize), 0)
    t.equal(image.header.size, 4 * CLUSTER, 'the header speaks of the active disk')
  }
})

t.test('a snapshot that does not record its size has that of the disk, as far as its L1 table goes', async (t) => {
  const size = 1024 * CLUSTER
  const built = buildImage({
    version: 2,
    clusterBits: 12,
    virtualSize: size,
    clusters: [[1000, data(1)]],
    snapshots: [{ virtualSize: 512 * CLUSTER, clusters: [[3, data(2)]], extraData: 0 }],
  })
  t.equal(built.layout.snapshots[0]?.l1Size, 1)
  const image = await opened(t, built.bytes, { snapshot: '1' })
  t.equal(image.virtualSize, size)
  const expected = Buffer.alloc(size)
  pattern(2, CLUSTER).copy(expected, 3 * CLUSTER)
  t.ok((await readBytes(image)).equals(expected))
})

t.test('looks at ids first, then at names', async (t) => {
  const built = withSnapshots(
    { id: '1', name: '2', clusters: [[0, data(1)]] },
    { id: '2', name: 'twice', clusters: [[0, data(2)]] },
    { id: '3', name: 'twice', clusters: [[0, data(3)]] },
    { id: '4', name: '4', clusters: [[0, data(4)]] },
    { id: '5', name: 'ünïque name', clusters: [[0, data(5)]] },
    { id: '6', name: '6', clusters: [[0, data(6)]] },
    { id: '6', name: '6', clusters: [[0, data(7)]] },
  )
  for (const [wanted, seed] of [
    ['1', 1],
    ['2', 2],
    ['3', 3],
    ['4', 4],
    ['ünïque name', 5],
  ] as const) {
    const image = await opened(t, built.bytes, { snapshot: wanted })
    t.ok((await readBytes(image, 0, CLUSTER)).equals(pattern(seed, CLUSTER)), wanted)
  }
  for (const [wanted, says] of [
    ['twice', /2 internal snapshots are called "twice"; choose one by its id$/],
    ['6', /2 internal snapshots are called "6"/],
    ['none', /no internal snapshot has the id or name "none"; there are "1" \("2"\), "2" \("twice"\), .*"6" \("6"\)$/],
    ['', /no internal snapshot has the id or name ""/],
    ['x\u001b[31m', /"x\\u001b\[31m"/],
  ] as const) {
    const error = await rejection(t, Qcow2Image.open(built.bytes, { snapshot: wanted }))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_SNAPSHOT_NOT_FOUND', {
      layer: 'image in memory',
      field: 'snapshot',
      actual: wanted,
    })
    t.match((error as Error).message, says)
  }
})

t.test('finds no snapshot in an image that has none', async (t) => {
  const error = await rejection(t, Qcow2Image.open(buildImage().bytes, { snapshot: '1' }))
  expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_SNAPSHOT_NOT_FOUND', { actual: '1' })
  t.match((error as Error).message, /there are none$/)
})

t.test('the backing file shows through a snapshot too', async (t) => {
  const base = pattern(8, 4 * CLUSTER)
  const built = buildImage({
    clusterBits: 12,
    virtualSize: 4 * CLUSTER,
    backingFile: { name: 'base', format: 'raw', contents: base },
    clusters: [[0, data(0)]],
    snapshots: [{ clusters: [[3, data(3)]] }, { virtualSize: 6 * CLUSTER, clusters: [] }],
  })
  const path = join(t.testdir({ base }), 'image')
  writeFileSync(path, built.bytes)
  for (const [index, { guest }] of built.snapshots.entries()) {
    t.ok((await readDisk(path, { snapshot: `${index + 1}` })).equals(guest))
  }
})

t.test('misses tables of a snapshot that lie past the end of the file', async (t) => {
  const built = withSnapshots({
    virtualSize: 4 * CLUSTER,
    clusters: [],
    fields: { l1TableOffset: 2 ** 40, l1Size: 1 },
  })
  const image = await opened(t, built.bytes, { snapshot: '1' })
  const error = await rejection(t, readBytes(image))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_TRUNCATED', {
    layer: 'image in memory',
    hostOffset: 2 ** 40,
    actual: built.bytes.length,
  })
  t.ok((await readDisk(built.bytes)).equals(built.guest), 'the active disk does not need them')
})
