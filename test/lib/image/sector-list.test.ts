/**
 * Encrypted extents become whole sectors, and fragments where a range begins or ends inside of one.
 */
import fc from 'fast-check'
import t from 'tap'
import type { DataExtent } from '../../../lib/format/extents.js'
import { guestOffset, hostOffset } from '../../../lib/format/units.js'
import { SectorList, type Fragment, type Piece } from '../../../lib/image/sector-list.js'

const extentOf = (guest: number, host: number, length: number): DataExtent => ({
  kind: 'data',
  depth: 0,
  guestOffset: guestOffset(guest),
  hostOffset: hostOffset(host),
  length,
})

const GUEST = 10 * 65536
const HOST = 3 * 65536

/** What becomes of `length` bytes, so far from the beginning of a cluster, that go to 1000 of the target. */
function split(from: number, length: number, method: 'luks' | 'aes' = 'luks'): SectorList {
  const list = new SectorList(method)
  list.add(extentOf(GUEST + from, HOST + from, length), 1000)
  return list
}

const rows: readonly (readonly [
  title: string,
  from: number,
  length: number,
  pieces: readonly (readonly [from: number, length: number])[],
  fragments: readonly (readonly [from: number, length: number, skip: number])[],
])[] = [
  ['nothing', 0, 0, [], []],
  ['nothing, from inside of a sector', 5, 0, [], []],
  ['one sector', 0, 512, [[0, 512]], []],
  ['many sectors', 1024, 65536, [[0, 65536]], []],
  ['the first byte of a sector', 512, 1, [], [[0, 1, 0]]],
  ['the last byte of a sector', 511, 1, [], [[0, 1, 511]]],
  ['a sector but its first byte', 1, 511, [], [[0, 511, 1]]],
  ['a sector but its last byte', 0, 511, [], [[0, 511, 0]]],
  ['what is inside of a sector', 100, 300, [], [[0, 300, 100]]],
  [
    'the last byte of a sector and the first of the next',
    511,
    2,
    [],
    [
      [0, 1, 511],
      [1, 1, 0],
    ],
  ],
  ['the end of a sector and one more', 500, 12 + 512, [[12, 512]], [[0, 12, 500]]],
  ['a sector and the beginning of the next', 1024, 512 + 7, [[0, 512]], [[512, 7, 0]]],
  [
    'the end of a sector, many, and the beginning of one',
    2000,
    48 + 51200 + 511,
    [[48, 51200]],
    [
      [0, 48, 464],
      [51248, 511, 0],
    ],
  ],
]

for (const [title, from, length, pieces, fragments] of rows) {
  t.test(`splits ${title}`, async (t) => {
    for (const method of ['luks', 'aes'] as const) {
      const expected = (at: number, length: number): Piece => ({
        hostOffset: HOST + from + at,
        guestOffset: GUEST + from + at,
        length,
        at: 1000 + at,
        sector: Math.floor(((method === 'luks' ? HOST : GUEST) + from + at) / 512),
      })
      const list = split(from, length, method)
      t.strictSame(
        list.pieces,
        pieces.map(([at, length]) => expected(at, length)),
        `${method}: whole sectors`,
      )
      t.strictSame(
        list.fragments,
        fragments.map(([at, length, skip]): Fragment => ({ ...expected(at, length), skip })),
        `${method}: fragments`,
      )
      t.strictSame(
        [...list.runs()],
        list.pieces.flatMap(({ at, length, sector }) => [at, length, sector]),
      )
    }
  })
}

t.test('counts sectors of the host for LUKS, and of the guest for the old method', async (t) => {
  const sectors = (method: 'luks' | 'aes'): number[] => {
    const { pieces, fragments } = split(5, 2000, method)
    return [...fragments, ...pieces].map(({ sector }) => sector)
  }
  t.strictSame(sectors('luks'), [384, 387, 385])
  t.strictSame(sectors('aes'), [1280, 1283, 1281])
})

t.test('numbers sectors beyond 2^32', async (t) => {
  const list = new SectorList('luks')
  list.add(extentOf(0, 2 ** 52, 1024), 0)
  t.strictSame([...list.runs()], [0, 1024, 2 ** 43])
})

t.test('collects several extents, each with its place', async (t) => {
  const list = new SectorList('luks')
  list.add(extentOf(65536 - 100, 65536 * 4 - 100, 100 + 512), 0)
  list.add(extentOf(65536 * 5, 65536 * 2, 512 + 9), 700)
  t.strictSame([...list.runs()], [100, 512, 512, 700, 512, 256])
  t.strictSame(
    list.fragments.map(({ at, length, skip, sector }) => [at, length, skip, sector]),
    [
      [0, 100, 412, 511],
      [1212, 9, 0, 257],
    ],
  )
  t.strictSame([...new SectorList('aes').runs()], [])
})

t.test('whatever the range, its parts tile it, and only whole sectors are pieces', async () => {
  const cluster = fc.nat(2 ** 30).map((n) => n * 512)
  fc.assert(
    fc.property(cluster, cluster, fc.nat(5000), fc.nat(5000), fc.boolean(), (guest, host, from, length, isLuks) => {
      const list = new SectorList(isLuks ? 'luks' : 'aes')
      list.add(extentOf(guest + from, host + from, length), 77)
      const parts = [...list.pieces, ...list.fragments].sort((a, b) => a.at - b.at)
      let end = 77
      for (const part of parts) {
        const moved = part.at - 77
        const counted = isLuks ? part.hostOffset : part.guestOffset
        if (part.at !== end || part.length <= 0 || part.sector !== Math.floor(counted / 512)) return false
        if (part.hostOffset !== host + from + moved || part.guestOffset !== guest + from + moved) return false
        end += part.length
      }
      return (
        end === 77 + length &&
        list.pieces.length <= 1 &&
        list.pieces.every(({ guestOffset, length }) => guestOffset % 512 === 0 && length % 512 === 0) &&
        list.fragments.every(
          ({ guestOffset, length, skip }) => guestOffset % 512 === skip && length < 512 && skip + length <= 512,
        )
      )
    }),
    { numRuns: 1000 },
  )
})
