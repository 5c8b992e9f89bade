/**
 * How tables are read: each once, in one read, however many ask; and again when there was no room to keep them.
 */
import t from 'tap'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type BuiltImage } from '../../fixtures/image-builder.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { Qcow2SourceError } from '../../../lib/index.js'
import { Gate, turns } from '../../fixtures/turns.js'

const REACH = 64 * 512
const L1_PIECE_BYTES = 65536

/** 512-byte clusters; one cluster in every table of `tables`. */
const spread = (tables: readonly number[], tableCount = Math.max(...tables) + 1): BuiltImage =>
  buildImage({
    clusterBits: 9,
    virtualSize: tableCount * REACH,
    clusters: tables.map((table) => [table * 64 + (table % 64), { kind: 'data', bytes: pattern(table, 512) }]),
  })

const readsOf = (source: RecordingSource, from: number, length: number): { offset: number; length: number }[] =>
  source.reads.filter(({ offset }) => offset >= from && offset < from + length)

t.test('reads each table once, whole, also when many ask at the same time', async (t) => {
  const tables = [0, 1, 2, 5, 6]
  const built = spread(tables)
  const gate = new Gate()
  const { l1TableOffset, l1Size, l2TableOffsets } = built.layout
  const places = [l1TableOffset, ...l2TableOffsets.values()]
  const source = new RecordingSource(built.bytes, {
    beforeRead: (_n, offset) => (places.includes(offset) ? gate.opened : undefined),
  })
  const image = await opened(t, source)
  const starts = Array.from({ length: 7 * 8 }, (_, i) => (i * REACH) / 8)
  const reads = [...starts, ...starts].map(async (start) => ({ start, bytes: await readBytes(image, start, 700) }))
  await turns(3)
  gate.open()
  for (const { start, bytes } of await Promise.all(reads)) {
    if (!bytes.equals(built.guest.subarray(start, start + 700))) t.fail(`the bytes from ${start} on`)
  }
  await readBytes(image)
  t.strictSame(readsOf(source, l1TableOffset, l1Size * 8), [{ offset: l1TableOffset, length: l1Size * 8 }])
  for (const offset of l2TableOffsets.values()) {
    t.strictSame(readsOf(source, offset, 512), [{ offset, length: 512 }], `the L2 table at ${offset}`)
  }
})

t.test('reads a long L1 table piece by piece, and only the pieces it needs', async (t) => {
  const pieceEntries = L1_PIECE_BYTES / 8
  const tables = [3, pieceEntries - 1, pieceEntries, 2 * pieceEntries + 100]
  const built = spread(tables, 3 * pieceEntries - 5)
  const { l1TableOffset, l1Size } = built.layout
  const piece = (index: number): { offset: number; length: number } => ({
    offset: l1TableOffset + index * L1_PIECE_BYTES,
    length: Math.min(L1_PIECE_BYTES, l1Size * 8 - index * L1_PIECE_BYTES),
  })
  const source = new RecordingSource(built.bytes)
  const image = await opened(t, source)
  const read = async (table: number): Promise<void> => {
    const cluster = table * 64 + (table % 64)
    t.ok((await readBytes(image, cluster * 512, 512)).equals(built.guestCluster(cluster)), `table ${table}`)
  }
  const piecesRead = (): unknown => readsOf(source, l1TableOffset, l1Size * 8)
  await read(3)
  t.strictSame(piecesRead(), [piece(0)])
  await read(2 * pieceEntries + 100)
  t.strictSame(piecesRead(), [piece(0), piece(2)])
  await read(pieceEntries - 1)
  await read(pieceEntries)
  t.strictSame(piecesRead(), [piece(0), piece(2), piece(1)])

  const border = pieceEntries * REACH
  const bytes = await readBytes(image, border - REACH, 2 * REACH)
  for (const cluster of [(pieceEntries - 1) * 64 + 63, pieceEntries * 64]) {
    const at = cluster * 512 - (border - REACH)
    t.ok(bytes.subarray(at, at + 512).equals(built.guestCluster(cluster)), 'over the border of two pieces')
    bytes.fill(0, at, at + 512)
  }
  t.ok(bytes.every((byte) => byte === 0))
  t.strictSame(piecesRead(), [piece(0), piece(2), piece(1)], 'no piece was read again')
})

t.test('a small read in an empty part of a large disk looks at its own part of the L1 table only', async (t) => {
  const built = spread([0], 5 * (L1_PIECE_BYTES / 8))
  const { l1TableOffset, l1Size } = built.layout
  const source = new RecordingSource(built.bytes)
  const image = await opened(t, source)
  t.strictSame(await readBytes(image, 10 * REACH, 4096), Buffer.alloc(4096))
  t.strictSame(readsOf(source, l1TableOffset, l1Size * 8), [{ offset: l1TableOffset, length: L1_PIECE_BYTES }])
})

t.test('reads tables again that did not fit into the cache', async (t) => {
  const tables = [0, 1, 2, 3]
  const built = spread(tables)
  for (const [tableCacheBytes, isKept] of [
    [1, false],
    [511, false],
    [512, false],
    [2 ** 20, true],
  ] as const) {
    const source = new RecordingSource(built.bytes)
    const image = await opened(t, source, { tableCacheBytes })
    for (let round = 0; round < 2; round++) {
      for (const table of tables) {
        const expected = built.guest.subarray(table * REACH, (table + 1) * REACH)
        if (!(await readBytes(image, table * REACH, REACH)).equals(expected)) t.fail(`table ${table}`)
      }
    }
    for (const offset of built.layout.l2TableOffsets.values()) {
      const count = readsOf(source, offset, 512).length
      t.equal(count === 1, isKept, `${tableCacheBytes} bytes: read ${count} times`)
    }
  }
})

t.test('a table that could not be read is read again by the next who needs it', async (t) => {
  const built = spread([0, 1])
  const table = built.layout.l2TableOffsets.get(1)!
  let failures = 1
  const source = new RecordingSource(built.bytes, {
    beforeRead: (_n, offset) => {
      if (offset === table && failures-- > 0) throw new Error('EIO')
    },
  })
  const image = await opened(t, source)
  const errors = await Promise.all([1, 2, 3].map(() => rejection(t, readBytes(image, REACH, 1000))))
  for (const error of errors) {
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { hostOffset: table })
  }
  t.equal(readsOf(source, table, 512).length, 1, 'all three waited for the one read')
  t.ok((await readBytes(image)).equals(built.guest))
  t.equal(readsOf(source, table, 512).length, 2)
})

t.test('keeps the tables of all layers in one cache without mixing them up', async (t) => {
  // Both images have their tables at the same offsets.
  const base = spread([0, 1, 2, 3])
  const top = spread([0, 2], 4)
  const sources = [top, base].map(({ bytes }) => new RecordingSource(bytes))
  const image = await opened(t, sources[0]!, { backingFile: sources[1]!, backingFormat: 'qcow2' })
  const expected = Buffer.from(base.guest)
  for (const table of [0, 2]) pattern(table, 512).copy(expected, (table * 64 + table) * 512)
  for (let round = 0; round < 2; round++) t.ok((await readBytes(image)).equals(expected))
  for (const [i, { layout }] of [top, base].entries()) {
    for (const offset of layout.l2TableOffsets.values()) t.equal(readsOf(sources[i]!, offset, 512).length, 1)
  }
})
