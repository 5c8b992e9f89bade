/**
 * Data that lies in holes of its host file becomes zeros; everything else stays what it was.
 */
import t from 'tap'
import { dataAndHoles, splitAtHoles } from '../../../lib/image/holes.js'
import type { Layer } from '../../../lib/image/layer.js'
import type { DataExtent, LayerExtent } from '../../../lib/format/extents.js'
import { guestOffset, hostOffset } from '../../../lib/format/units.js'
import type { HoleMap } from '../../../lib/source/holes.js'

const layerOver = (holes: HoleMap | undefined): Layer => ({ dataFile: { holes } }) as unknown as Layer

/** A file that holds data in these places, and holes elsewhere. */
const mapOf = (data: readonly (readonly [from: number, to: number])[]): HoleMap => ({
  nextData: (offset) => Math.max(offset, data.find(([, to]) => to > offset)?.[0] ?? Infinity),
  nextHole: (offset) => data.find(([from, to]) => from <= offset && offset < to)?.[1] ?? offset,
})

const GUEST = 100000
const HOST = 5000
const LENGTH = 1000
const extent: DataExtent = {
  kind: 'data',
  depth: 1,
  guestOffset: guestOffset(GUEST),
  length: LENGTH,
  hostOffset: hostOffset(HOST),
}

const data = (from: number, length: number): DataExtent => ({
  ...extent,
  guestOffset: guestOffset(GUEST + from),
  length,
  hostOffset: hostOffset(HOST + from),
})
const zero = (from: number, length: number): LayerExtent => ({
  kind: 'zero',
  depth: 1,
  guestOffset: guestOffset(GUEST + from),
  length,
})

const CASES: readonly (readonly [
  what: string,
  data: readonly (readonly [from: number, to: number])[],
  LayerExtent[],
])[] = [
  ['data all over', [[0, 100000]], [data(0, 1000)]],
  ['data exactly there', [[5000, 6000]], [data(0, 1000)]],
  ['no data at all', [], [zero(0, 1000)]],
  ['data before and behind', [[0, 5000], [6000, 7000]], [zero(0, 1000)]], // prettier-ignore
  ['a hole at the start', [[5400, 9000]], [zero(0, 400), data(400, 600)]],
  ['a hole at the end', [[0, 5999]], [data(0, 999), zero(999, 1)]],
  ['a hole in the middle', [[0, 5100], [5200, 9000]], [data(0, 100), zero(100, 100), data(200, 800)]], // prettier-ignore
  ['data in the middle', [[5001, 5002]], [zero(0, 1), data(1, 1), zero(2, 998)]],
]

for (const [what, places, expected] of CASES) {
  t.test(what, async (t) => {
    const layers = [layerOver(undefined), layerOver(mapOf(places))]
    t.strictSame([...splitAtHoles(extent, layers)], expected)
    const parts = [...dataAndHoles(extent, layers)]
    t.strictSame(
      parts.map(({ part, isHole }) => ({ ...part, isHole })),
      expected.map(({ kind, guestOffset, length }) => ({
        ...data(guestOffset - GUEST, length),
        isHole: kind === 'zero',
      })),
    )
  })
}

t.test('leaves data alone if nothing is known of its file', async (t) => {
  t.strictSame([...splitAtHoles(extent, [layerOver(mapOf([])), layerOver(undefined)])], [extent])
})

t.test('leaves everything else alone', async (t) => {
  const { guestOffset, length, depth } = extent
  const others: LayerExtent[] = [
    { kind: 'zero', depth, guestOffset, length },
    { kind: 'unallocated', depth, guestOffset, length },
    {
      kind: 'compressed',
      depth,
      guestOffset,
      length,
      clusterGuestOffset: guestOffset,
      clusterSize: 1000,
      hostOffsets: [HOST],
      hostLengths: [512],
    },
  ]
  for (const other of others) {
    t.strictSame([...splitAtHoles(other, [layerOver(mapOf([])), layerOver(mapOf([]))])], [other], other.kind)
  }
})

t.test('goes on if data turns into a hole while it is asked about', async (t) => {
  let isPunched = false
  const changing: HoleMap = {
    nextData: (offset) => (isPunched ? Infinity : offset),
    nextHole: (offset) => {
      isPunched = true
      return offset
    },
  }
  const parts = [...splitAtHoles(extent, [layerOver(undefined), layerOver(changing)])]
  let end = GUEST
  for (const { guestOffset, length } of parts) {
    t.equal(guestOffset, end)
    t.ok(length > 0, 'no part is empty')
    end += length
  }
  t.equal(end, GUEST + LENGTH)
})

t.test('says so if the file is closed before the next part is asked for', async (t) => {
  const closed = new Error('closed')
  let isClosed = false
  const dataFile = {
    get holes(): HoleMap {
      if (isClosed) throw closed
      return mapOf([[5100, 5200]])
    },
  }
  const parts = splitAtHoles(extent, [layerOver(undefined), { dataFile } as unknown as Layer])
  t.strictSame(parts.next().value, zero(0, 100))
  isClosed = true
  t.throws(() => parts.next(), closed)
})
