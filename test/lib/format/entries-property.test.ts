// Tables of random entries of every shape, decoded by the library and by a second, slow reader; and cut into slices.
import fc from 'fast-check'
import t from 'tap'
import { isDeepStrictEqual } from 'node:util'
import { Qcow2FormatError } from '../../../lib/errors.js'
import type { Geometry } from '../../../lib/format/entries.js'
import { sliceExtent } from '../../../lib/format/extents.js'
import { decode, plain, shapeOf } from '../../fixtures/l2-decoding.js'
import { naiveCluster, naiveExtents, type Piece } from '../../fixtures/naive-l2-decoder.js'

const CLUSTERS = 6
const MAX_32 = 0xffff_ffff

// Offsets stay below 2^53: beyond it a number is not exact, and no file is that long.
const BELOW_2_53 = 0xff1f_ffff_ffff_ffffn

interface Case {
  readonly geometry: Geometry
  readonly words: readonly bigint[]
  /** Of the table. */
  readonly start: number
  /** Within the table's clusters. */
  readonly from: number
  readonly to: number
}

/** One entry of the cluster at guest offset `start`: mostly sound, now and then any 64 bits. */
function entryOf(geometry: Geometry, start: bigint): fc.Arbitrary<bigint[]> {
  const size = BigInt(geometry.clusterSize)
  const x = BigInt(62 - (geometry.clusterBits - 8))
  const copied = fc.constantFrom(0n, 1n << 63n)
  const place = fc.oneof(
    { weight: 4, arbitrary: fc.constant(start) },
    { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: 40n }).map((n) => n * size) },
    { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: 2n ** 53n - 1n }).map((n) => n - (n % size)) },
  )
  const flag = geometry.hasZeroFlag ? fc.constantFrom(0n, 0n, 0n, 1n) : fc.constant(0n)
  const standard = fc.tuple(copied, place, flag).map(([bit63, offset, zero]) => bit63 | offset | zero)
  const compressed = fc
    .tuple(
      fc.bigInt({ min: 0n, max: (1n << (x < 53n ? x : 53n)) - 1n }),
      fc.bigInt({ min: 0n, max: (1n << (62n - x)) - 1n }),
    )
    .map(([host, sectors]) => (1n << 62n) | (sectors << x) | host)
  const anything = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((word) => word & BELOW_2_53)
  const entry = fc.oneof(
    { weight: 3, arbitrary: fc.constant(0n) },
    { weight: 12, arbitrary: standard },
    { weight: 4, arbitrary: geometry.hasExternalDataFile ? standard : compressed },
    { weight: 1, arbitrary: anything },
  )
  if (!geometry.hasExtendedL2) return entry.map((word) => [word])
  const mask = fc.oneof(fc.constantFrom(0, MAX_32, 0x0000_ffff), fc.integer({ min: 0, max: MAX_32 }))
  return fc.tuple(entry, mask, mask, fc.integer({ min: 0, max: 19 })).map(([word, first, second, luck]) => {
    const isCompressed = ((word >> 62n) & 1n) === 1n
    const isAllocated = (word & 0x00ff_ffff_ffff_fe00n) !== 0n || (geometry.hasExternalDataFile && word >> 63n === 1n)
    // One in twenty gets a bitmap that need not go with the entry.
    const allocated = luck === 0 ? BigInt(second) : isAllocated ? BigInt(second) & ~BigInt(first) : 0n
    const bitmap = (BigInt(first) << 32n) | allocated
    return [word, isCompressed && luck !== 0 ? 0n : bitmap]
  })
}

const shapes: readonly Geometry[] = [
  ...[9, 10, 12, 13, 14, 16, 21].flatMap((clusterBits) => [
    shapeOf({ clusterBits, version: 2 }),
    shapeOf({ clusterBits, version: 3 }),
    shapeOf({ clusterBits, hasExternalDataFile: true }),
  ]),
  ...[14, 16, 21].flatMap((clusterBits) => [
    shapeOf({ clusterBits, hasExtendedL2: true }),
    shapeOf({ clusterBits, hasExtendedL2: true, hasExternalDataFile: true }),
  ]),
]

const cases: fc.Arbitrary<Case> = fc
  .tuple(fc.constantFrom(...shapes), fc.constantFrom(0, 0, 1, 5, 1000))
  .chain(([geometry, table]) => {
    const start = table * geometry.l2Reach
    const end = CLUSTERS * geometry.clusterSize
    const edge = fc.oneof(
      fc.constantFrom(0, end),
      fc.integer({ min: 0, max: CLUSTERS }).map((n) => n * geometry.clusterSize),
      fc.integer({ min: 0, max: end }),
    )
    const entries = Array.from({ length: CLUSTERS }, (_, i) =>
      entryOf(geometry, BigInt(start + i * geometry.clusterSize)),
    )
    return fc.tuple(fc.tuple(...entries), edge, edge).map(([words, a, b]) => ({
      geometry,
      words: words.flat(),
      start,
      from: start + Math.min(a, b),
      to: start + Math.max(a, b),
    }))
  })
  .filter(({ from, to }) => from < to)

/** What the slow reader makes of it: extents, or the index of the first entry in the range that cannot be. */
function naive({ geometry, words, start, from, to }: Case): object[] | number {
  const { clusterSize } = geometry
  const pieces: Piece[] = []
  for (let index = Math.floor((from - start) / clusterSize); start + index * clusterSize < to; index++) {
    const [entry, bitmap] = geometry.hasExtendedL2 ? words.slice(index * 2, index * 2 + 2) : [words[index], 0n]
    const found = naiveCluster(entry!, bitmap, BigInt(start + index * clusterSize), geometry)
    if (found === undefined) return index
    pieces.push(...found)
  }
  return naiveExtents(pieces, BigInt(from), BigInt(to), BigInt(clusterSize))
}

t.test(
  'entries of every shape are read as a second reader reads them, and refused where it refuses them',
  async (t) => {
    const seen = { sound: 0, refused: 0, kinds: new Set<string>() }
    fc.assert(
      fc.property(cases, (one) => {
        const expected = naive(one)
        const { geometry, words, start, from, to } = one
        try {
          const found = decode(words, geometry, { tableGuestOffset: start, from, to })
          seen.sound++
          for (const { kind } of found) seen.kinds.add(kind)
          return isDeepStrictEqual(plain(found), expected)
        } catch (error) {
          if (!(error instanceof Qcow2FormatError) || typeof expected !== 'number') throw error
          seen.refused++
          return (
            error.code === 'ERR_QCOW2_BAD_L2_ENTRY' &&
            error.hostOffset === 0x40000 + expected * geometry.l2EntryBytes &&
            error.guestOffset === start + expected * geometry.clusterSize
          )
        }
      }),
      { numRuns: 3000 },
    )
    t.ok(seen.sound > 300, `${seen.sound} tables were sound`)
    t.ok(seen.refused > 300, `${seen.refused} tables were refused`)
    t.strictSame([...seen.kinds].sort(), ['compressed', 'data', 'unallocated', 'zero'])
  },
)

t.test('a slice of the extents of a table is what decoding that slice alone gives', async (t) => {
  let compared = 0
  fc.assert(
    fc.property(cases, ({ geometry, words, start, from, to }) => {
      let whole
      try {
        whole = decode(words, geometry, { tableGuestOffset: start })
      } catch (error) {
        return error instanceof Qcow2FormatError
      }
      const slices = whole
        .map((extent) => {
          const a = Math.max(extent.guestOffset, from)
          const b = Math.min(extent.guestOffset + extent.length, to)
          return a < b ? [sliceExtent(extent, a, b - a)] : []
        })
        .flat()
      compared++
      return isDeepStrictEqual(plain(slices), plain(decode(words, geometry, { tableGuestOffset: start, from, to })))
    }),
    { numRuns: 3000 },
  )
  t.ok(compared > 300, `${compared} tables were sound`)
})
