/**
 * Images that end too early: what lies wholly past the end is missing, a last cluster that is cut is padded with zeros.
 */
import t from 'tap'
import { Qcow2FormatError, Qcow2SourceError } from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type ClusterSpec } from '../../fixtures/image-builder.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { pattern, text } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'

const CLUSTER = 4096
const data = (seed: number): ClusterSpec => ({ kind: 'data', bytes: pattern(seed, CLUSTER) })

t.test('misses an L1 table or L2 table that the end of the file cuts, at each edge', async (t) => {
  const built = buildImage({ clusterBits: 12, virtualSize: 3 * 512 * CLUSTER, clusters: [[1, data(1)]] })
  const { l1TableOffset, l2TableOffsets } = built.layout
  const l2 = l2TableOffsets.get(0)!
  const cases: [end: number, hostOffset: number, says: RegExp][] = [
    [l1TableOffset - 1, l1TableOffset, /the L1 table at host offset 0x[\da-f]+, 24 bytes, lies past the end/],
    [l1TableOffset, l1TableOffset, /the L1 table/],
    [l1TableOffset + 23, l1TableOffset, /the L1 table/],
    [l1TableOffset + 24, l2, /the L2 table of L1 entry 0 at host offset 0x[\da-f]+, 4096 bytes, lies past the end/],
    [l2, l2, /the L2 table of L1 entry 0/],
    [l2 + CLUSTER - 1, l2, /the L2 table of L1 entry 0/],
  ]
  for (const [end, hostOffset, says] of cases) {
    const image = await opened(t, built.bytes.subarray(0, end))
    const error = await rejection(t, image.read(Buffer.alloc(1), 0))
    expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_TRUNCATED', {
      layer: 'image in memory',
      hostOffset,
      actual: end,
    })
    t.match((error as Error).message, says, `${end}`)
  }
  const image = await opened(t, built.bytes.subarray(0, l2 + CLUSTER))
  t.strictSame(await readBytes(image, 0, 10), Buffer.alloc(10), 'the tables are whole: what they leave out is zeros')
})

t.test('pads the last cluster with zeros, and misses a cluster of which nothing is left', async (t) => {
  const built = buildImage({ clusterBits: 12, clusters: [0, 1, 2].map((index) => [index, data(index)]) })
  const last = built.layout.clusterOffsets.get(2)!
  for (const left of [1, 511, 512, CLUSTER - 1]) {
    const image = await opened(t, built.bytes.subarray(0, last + left))
    const expected = Buffer.from(built.guest)
    expected.fill(0, 2 * CLUSTER + left)
    t.ok(expected.equals(await readBytes(image)), `${left} bytes are left`)
    t.strictSame(await readBytes(image, 3 * CLUSTER - 4, 4), expected.subarray(-4), 'also when only the rest is read')
  }
  for (const [end, guestOffset, hostOffset] of [
    [last, 2 * CLUSTER, last],
    [last - 1, 2 * CLUSTER, last],
    [last - CLUSTER, CLUSTER, last - CLUSTER],
  ] as const) {
    const image = await opened(t, built.bytes.subarray(0, end))
    const error = await rejection(t, readBytes(image))
    expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_TRUNCATED', {
      layer: 'image in memory',
      guestOffset,
      hostOffset,
      field: 'cluster',
      actual: end,
    })
    const before = Buffer.from(built.guest.subarray(0, guestOffset))
    before.fill(0, guestOffset + end - hostOffset)
    t.ok((await readBytes(image, 0, guestOffset)).equals(before), 'the rest is there')
  }
})

t.test('names the part that was asked for, if that lies past the end', async (t) => {
  const built = buildImage({ clusterBits: 12, clusters: [0, 1, 2, 3].map((index) => [index, data(index)]) })
  const offsets = built.layout.clusterOffsets
  const image = await opened(t, built.bytes.subarray(0, offsets.get(1)))
  for (const index of [1, 2, 3]) {
    const error = await rejection(t, image.read(Buffer.alloc(10), index * CLUSTER))
    expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_TRUNCATED', {
      guestOffset: index * CLUSTER,
      hostOffset: offsets.get(index),
    })
  }
})

t.test('misses subclusters only with their whole cluster', async (t) => {
  const size = 2 ** 14
  const built = buildImage({
    clusterBits: 14,
    extendedL2: true,
    clusters: [
      [0, { kind: 'subclusters', allocated: 0x0000_00ff, zero: 0, bytes: pattern(1, size) }],
      [1, { kind: 'subclusters', allocated: 0xff00_0000, zero: 0, bytes: pattern(2, size) }],
    ],
  })
  const last = built.layout.clusterOffsets.get(1)!
  const cut = await opened(t, built.bytes.subarray(0, last + 1))
  const expected = Buffer.from(built.guest)
  expected.fill(0, size + 1)
  t.ok(expected.equals(await readBytes(cut)))
  const short = await opened(t, built.bytes.subarray(0, last))
  const error = await rejection(t, readBytes(short))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_TRUNCATED', {
    guestOffset: size + 24 * (size / 32),
    hostOffset: last + 24 * (size / 32),
  })
})

t.test('misses a compressed cluster that begins past the end', async (t) => {
  const built = buildImage({
    clusterBits: 12,
    clusters: [0, 1, 2].map((index) => [index, { kind: 'compressed', bytes: text(index, CLUSTER) }]),
  })
  const offsets = built.layout.clusterOffsets
  for (const index of [1, 2]) {
    const end = offsets.get(index)!
    const image = await opened(t, built.bytes.subarray(0, end))
    const error = await rejection(t, readBytes(image))
    expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_TRUNCATED', {
      layer: 'image in memory',
      guestOffset: index * CLUSTER,
      hostOffset: end,
      actual: end,
    })
    const before = built.guest.subarray(0, index * CLUSTER)
    t.ok((await readBytes(image, 0, index * CLUSTER)).equals(before), 'those before it are there')
  }
})

t.test('refuses offsets that no file can have', async (t) => {
  for (const entry of [0x00ff_ffff_ffff_f000n, 0x0020_0000_0000_0000n, 0x001f_ffff_ffff_f000n]) {
    const built = buildImage({ clusterBits: 12, clusters: [[0, { kind: 'raw-entry', entry }]] })
    const error = await rejection(t, readBytes(await opened(t, built.bytes)))
    expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_TRUNCATED', { guestOffset: 0, hostOffset: Number(entry) })
  }
})

t.test('reports a file that shrinks while it is read', async (t) => {
  const built = buildImage({ clusterBits: 12, clusters: [0, 1].map((index) => [index, data(index)]) })
  const shrunk = built.layout.clusterOffsets.get(1)! + 100
  const whole = new RecordingSource(built.bytes)
  const short = new RecordingSource(built.bytes.subarray(0, shrunk))
  let isShort = false
  const image = await opened(t, {
    size: built.bytes.length,
    read: (target: Uint8Array, offset: number) => (isShort ? short : whole).read(target, offset),
    close: () => whole.close(),
  })
  t.ok((await readBytes(image)).equals(built.guest))
  isShort = true
  const error = await rejection(t, readBytes(image))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', {
    layer: 'image from a source',
    hostOffset: shrunk,
  })
  t.match((error as Error).message, /the file ended, though its size is/)
})
