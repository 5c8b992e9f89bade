/**
 * How the disk is stored: extents that tile what was asked for exactly, from any start, each as long as it can be.
 */
import { writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Qcow2FormatError, Qcow2UsageError, type Qcow2Extent, type Qcow2Image } from '../../../lib/index.js'
import { openHoleMap } from '../../../lib/source/holes.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type ClusterSpec } from '../../fixtures/image-builder.js'
import { mixedDisk } from '../../fixtures/mixed-disk.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { pattern, text } from '../../fixtures/patterns.js'

const CLUSTER = 4096

const collect = async (
  image: Qcow2Image,
  range?: { offset?: number; length?: number; isDetailed?: boolean },
): Promise<Qcow2Extent[]> => {
  const extents: Qcow2Extent[] = []
  for await (const extent of image.extents(range)) extents.push(extent)
  return extents
}

const continues = (a: Qcow2Extent, b: Qcow2Extent): boolean =>
  a.kind === b.kind &&
  a.depth === b.depth &&
  (a.kind !== 'data' || b.kind !== 'data' || (a.file === b.file && a.hostOffset + a.length === b.hostOffset))

const isTiling = (t: Test, extents: readonly Qcow2Extent[], from: number, to: number): void => {
  let at = from
  for (const [i, extent] of extents.entries()) {
    if (extent.offset !== at || extent.length < 1) t.fail(`extent ${i} is at ${extent.offset}, expected at ${at}`)
    const before = extents[i - 1]
    if (before !== undefined && continues(before, extent)) t.fail(`extent ${i} goes on with the one before`)
    at += extent.length
  }
  t.equal(at, Math.max(from, to), `tiles ${from} to ${to}`)
}

/** The part of the extents between `from` and `to`. */
const clipped = (extents: readonly Qcow2Extent[], from: number, to: number): Qcow2Extent[] =>
  extents.flatMap((extent): Qcow2Extent[] => {
    const offset = Math.max(extent.offset, from)
    const length = Math.min(extent.offset + extent.length, to) - offset
    if (length <= 0) return []
    return extent.kind === 'data'
      ? [{ ...extent, offset, length, hostOffset: extent.hostOffset + offset - extent.offset }]
      : [{ ...extent, offset, length }]
  })

t.test('says where each kind of cluster is', async (t) => {
  const size = 2 ** 14
  const built = buildImage({
    clusterBits: 14,
    extendedL2: true,
    virtualSize: 12 * size + 100,
    clusters: [
      [1, { kind: 'data', bytes: pattern(1, size) }],
      [2, { kind: 'data', bytes: pattern(2, size) }],
      [3, { kind: 'compressed', bytes: text(3, size) }],
      [4, { kind: 'compressed', bytes: text(4, size) }],
      [5, { kind: 'zero' }],
      [6, { kind: 'zero', preallocated: true }],
      [8, { kind: 'subclusters', allocated: 0x0000_000c, zero: 0x0000_0030, bytes: pattern(8, size) }],
      [12, { kind: 'data', bytes: pattern(12, size) }],
    ],
  })
  const at = built.layout.clusterOffsets
  const sub = size / 32
  const file = 'image in memory'
  t.strictSame(await collect(await opened(t, built.bytes)), [
    { kind: 'unallocated', offset: 0, length: size, depth: 0 },
    { kind: 'data', offset: size, length: 2 * size, depth: 0, hostOffset: at.get(1), file, isEncrypted: false },
    { kind: 'compressed', offset: 3 * size, length: 2 * size, depth: 0 },
    { kind: 'zero', offset: 5 * size, length: 2 * size, depth: 0 },
    { kind: 'unallocated', offset: 7 * size, length: size + 2 * sub, depth: 0 },
    {
      kind: 'data',
      offset: 8 * size + 2 * sub,
      length: 2 * sub,
      depth: 0,
      hostOffset: at.get(8)! + 2 * sub,
      file,
      isEncrypted: false,
    },
    { kind: 'zero', offset: 8 * size + 4 * sub, length: 2 * sub, depth: 0 },
    { kind: 'unallocated', offset: 8 * size + 6 * sub, length: 4 * size - 6 * sub, depth: 0 },
    { kind: 'data', offset: 12 * size, length: 100, depth: 0, hostOffset: at.get(12), file, isEncrypted: false },
  ])
})

t.test('says which layer and which file the bytes are in', async (t) => {
  const base = pattern(9, 6 * CLUSTER)
  const middle = buildImage({
    clusterBits: 12,
    virtualSize: 10 * CLUSTER,
    backingFile: { name: 'base', format: 'raw', contents: base },
    dataFile: { name: 'middle.data' },
    clusters: [[1, { kind: 'data', bytes: pattern(1, CLUSTER) }]],
  })
  const top = buildImage({
    clusterBits: 12,
    virtualSize: 12 * CLUSTER,
    backingFile: { name: 'middle', format: 'qcow2', contents: middle.guest },
    clusters: [
      [0, { kind: 'zero' }],
      [3, { kind: 'data', bytes: pattern(3, CLUSTER) }],
    ],
  })
  const folder = t.testdir()
  writeFileSync(join(folder, 'base'), base)
  writeFileSync(join(folder, 'middle'), middle.bytes)
  writeFileSync(join(folder, 'middle.data'), middle.dataFile)
  const path = join(folder, 'top')
  writeFileSync(path, top.bytes)
  const data = (index: number, count: number, depth: number, hostOffset: number, file: string): Qcow2Extent => ({
    kind: 'data',
    offset: index * CLUSTER,
    length: count * CLUSTER,
    depth,
    hostOffset,
    file,
    isEncrypted: false,
  })
  t.strictSame(await collect(await opened(t, path)), [
    { kind: 'zero', offset: 0, length: CLUSTER, depth: 0 },
    data(1, 1, 1, CLUSTER, join(folder, 'middle.data')),
    data(2, 1, 2, 2 * CLUSTER, join(folder, 'base')),
    data(3, 1, 0, top.layout.clusterOffsets.get(3)!, path),
    data(4, 2, 2, 4 * CLUSTER, join(folder, 'base')),
    { kind: 'unallocated', offset: 6 * CLUSTER, length: 6 * CLUSTER, depth: 2 },
  ])
})

t.test('tiles any part of the disk as it tiles the whole', async (t) => {
  const built = mixedDisk()
  const image = await opened(t, built.bytes)
  const size = image.virtualSize
  const whole = await collect(image)
  isTiling(t, whole, 0, size)
  t.ok(whole.length > 5)
  for (const [offset, length] of [
    [0, 1],
    [1, 16384],
    [100, 3000000],
    [16384 * 130 + 5, 16384 * 50],
    [size - 1, 1],
    [size - 1, 100],
    [size, 1],
    [size + 5, 10],
    [0, 0],
    [5, 0],
    [0, Number.MAX_SAFE_INTEGER],
    [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  ] as const) {
    const part = await collect(image, { offset, length })
    t.strictSame(part, clipped(whole, offset, offset + length), `${length} bytes from ${offset} on`)
  }
  for (let offset = 0; offset < size; offset += 99991) {
    t.strictSame(await collect(image, { offset }), clipped(whole, offset, size), `from ${offset} on`)
  }
  t.strictSame(await collect(image, { length: 70000 }), clipped(whole, 0, 70000))
})

t.test('the bytes of each extent are where it says', async (t) => {
  const built = mixedDisk()
  const image = await opened(t, built.bytes)
  for await (const extent of image.extents()) {
    const { offset, length } = extent
    const guest = await readBytes(image, offset, length)
    if (extent.kind === 'data') {
      t.ok(guest.equals(built.bytes.subarray(extent.hostOffset, extent.hostOffset + length)), `data at ${offset}`)
    } else if (extent.kind !== 'compressed') {
      t.ok(
        guest.every((byte) => byte === 0),
        `${extent.kind} at ${offset}`,
      )
    }
  }
})

t.test('an extent is as long as it can be, over any number of batches and tables', async (t) => {
  const entries = 64
  const tables = 400
  const count = tables * entries
  const cluster = 512
  const whole = [{ offset: 0, length: count * cluster, depth: 0 }]
  const zeros = Array.from({ length: count }, (_, i): [number, ClusterSpec] => [i, { kind: 'zero' }])
  const zero = buildImage({ clusterBits: 9, clusters: zeros })
  t.strictSame(await collect(await opened(t, zero.bytes)), [{ kind: 'zero', ...whole[0] }])

  const packed: ClusterSpec = { kind: 'compressed', bytes: text(1, cluster) }
  const compressed = buildImage({ clusterBits: 9, clusters: zeros.map(([i]) => [i, packed]) })
  t.strictSame(await collect(await opened(t, compressed.bytes)), [{ kind: 'compressed', ...whole[0] }])

  const data = buildImage({
    clusterBits: 9,
    clusters: zeros.slice(0, 10000).map(([i]) => [i, { kind: 'data', bytes: Buffer.of(i % 251) }]),
  })
  const [only, ...more] = await collect(await opened(t, data.bytes))
  t.match(only, { kind: 'data', offset: 0, length: 10000 * cluster })
  t.strictSame(more, [])

  // Empty entries in tables that are there, over a base that covers some of them, and over none.
  const entry: ClusterSpec = { kind: 'raw-entry', entry: 0n }
  const empty = buildImage({ clusterBits: 9, clusters: zeros.map(([i]) => [i, entry]) })
  const unallocated = { kind: 'unallocated', offset: 0, length: count * cluster }
  t.strictSame(await collect(await opened(t, empty.bytes)), [{ ...unallocated, depth: 0 }])
  for (const virtualSize of [0, 5000, 10 * cluster * entries, 2 * count * cluster]) {
    const backingFile = buildImage({ clusterBits: 9, virtualSize, clusters: [] }).bytes
    const image = await opened(t, empty.bytes, { backingFile, backingFormat: 'qcow2' })
    t.strictSame(await collect(image), [{ ...unallocated, depth: 1 }], `over ${virtualSize} bytes`)
  }
})

t.test('an empty disk of petabytes is one extent', async (t) => {
  const virtualSize = 2 ** 50 + 1
  const built = buildImage({ clusterBits: 21, virtualSize })
  t.strictSame(await collect(await opened(t, built.bytes)), [
    { kind: 'unallocated', offset: 0, length: virtualSize, depth: 0 },
  ])
})

t.test('a disk of no bytes has no extents', async (t) => {
  t.strictSame(await collect(await opened(t, buildImage({ virtualSize: 0, clusters: [] }).bytes)), [])
})

t.test('extents before a damaged table are still to be had', async (t) => {
  const built = buildImage({
    clusterBits: 9,
    clusters: [0, 64, 128].map((index) => [index, { kind: 'data', bytes: pattern(index, 512) }]),
    patch: (bytes, layout) => bytes.writeBigUInt64BE(1n << 60n, layout.l2EntryOffset(128)),
  })
  const image = await opened(t, built.bytes)
  isTiling(t, await collect(image, { length: 128 * 512 }), 0, 128 * 512)
  const error = await rejection(t, collect(image))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_L2_ENTRY', { guestOffset: 128 * 512 })
})

t.test('refuses what is no range', async (t) => {
  const image = await opened(t, buildImage().bytes)
  for (const value of [null, -1, 0.5, NaN, -Infinity, 2 ** 53, 10n, '1']) {
    for (const field of ['offset', 'length']) {
      const error = await rejection(t, collect(image, { [field]: value as number }))
      expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field, actual: value })
    }
  }
  expectError(t, await rejection(t, collect(image, { offset: Infinity })), Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', {
    field: 'offset',
  })
  t.equal((await collect(image, { length: Infinity })).length, 1, 'an infinite length means up to the end')
})

t.test('in detail: room that is kept for zeros and for what is not stored', async (t) => {
  const size = 2 ** 14
  const { bytes, layout } = buildImage({
    clusterBits: 14,
    extendedL2: true,
    virtualSize: 4 * size,
    clusters: [
      [0, { kind: 'zero', preallocated: true }],
      [1, { kind: 'subclusters', allocated: 1, zero: 2, bytes: pattern(1, size) }],
      [2, { kind: 'zero' }],
    ],
  })
  const image = await opened(t, bytes)
  const [first, second] = [0, 1].map((cluster) => layout.clusterOffsets.get(cluster)!)
  const part = size / 32
  t.strictSame(await collect(image, { isDetailed: true }), [
    { kind: 'zero', offset: 0, length: size, depth: 0, hostOffset: first },
    {
      kind: 'data',
      offset: size,
      length: part,
      depth: 0,
      hostOffset: second,
      file: image.backingChain[0]!.file,
      isEncrypted: false,
      isHole: false,
    },
    { kind: 'zero', offset: size + part, length: part, depth: 0, hostOffset: second! + part },
    { kind: 'unallocated', offset: size + 2 * part, length: 30 * part, depth: 0, hostOffset: second! + 2 * part },
    { kind: 'zero', offset: 2 * size, length: size, depth: 0 },
    { kind: 'unallocated', offset: 3 * size, length: size, depth: 0 },
  ])
  const plain = await collect(image)
  t.strictSame(
    plain.map(({ kind, offset }) => [kind, offset]),
    [
      ['zero', 0],
      ['data', size],
      ['zero', size + part],
      ['unallocated', size + 2 * part],
      ['zero', 2 * size],
      ['unallocated', 3 * size],
    ],
  )
  t.ok(plain.every((extent) => !('isHole' in extent) && (extent.kind === 'data' || !('hostOffset' in extent))))
})

t.test('in detail: data that lies in holes of a raw backing file', async (t) => {
  const folder = t.testdir()
  const handle = await open(join(folder, 'base.raw'), 'w')
  await handle.write(Buffer.alloc(65536, 1), 0, 65536, 2 ** 20)
  await handle.truncate(2 ** 21)
  const map = await openHoleMap(handle.fd, Infinity)
  if (map === undefined) {
    await handle.close()
    return void t.pass('no map of holes', { skip: 'koffi is not here, or the file system does not tell of holes' })
  }
  await handle.close()
  const { bytes } = buildImage({ virtualSize: 2 ** 21, backingFile: { name: 'base.raw', format: 'raw' } })
  writeFileSync(join(folder, 'top.qcow2'), bytes)
  const image = await opened(t, join(folder, 'top.qcow2'))
  const extents = await collect(image, { isDetailed: true })
  t.match(extents, [
    { kind: 'data', offset: 0, length: 2 ** 20, hostOffset: 0, isHole: true },
    { kind: 'data', offset: 2 ** 20, length: 65536, hostOffset: 2 ** 20, isHole: false },
    { kind: 'data', offset: 2 ** 20 + 65536, isHole: true },
  ])
  t.equal(extents.length, 3)
  t.equal((await collect(image)).length, 1)
})
