/** Extents as the rows of qemu-img's map; the oracle tests compare them with the real ones. */
import t from 'tap'
import { mapRows, type MapRow } from '../../../bin/info/map-rows.js'
import type { Qcow2ChainLink, Qcow2Extent } from '../../../lib/index.js'

const link = (format: 'raw' | 'qcow2', virtualSize: number): Qcow2ChainLink => ({
  file: format,
  format,
  virtualSize,
  dataFile: undefined,
  encryption: undefined,
})

async function rowsOf(chain: Qcow2ChainLink[], ...extents: Qcow2Extent[]): Promise<MapRow[]> {
  const rows: MapRow[] = []
  async function* each(): AsyncGenerator<Qcow2Extent> {
    yield* extents
  }
  for await (const row of mapRows(each(), chain)) rows.push(row)
  return rows
}

const place = { offset: 0, length: 10, depth: 0 }
const data = { ...place, kind: 'data', hostOffset: 70, file: 'x', isEncrypted: false, isHole: false } as const
const row = { start: 0, length: 10, depth: 0, present: true, zero: false, data: true, compressed: false }

t.test('each kind of extent', async (t) => {
  const chain = [link('qcow2', 10), link('raw', 10)]
  const cases: [title: string, extent: Qcow2Extent, expected: MapRow][] = [
    ['data', data, { ...row, offset: 70 }],
    ['encrypted data, whose place is of no use', { ...data, isEncrypted: true }, row],
    ['a hole of an image', { ...data, isHole: true }, { ...row, zero: true, offset: 70 }],
    [
      'a hole of a raw file',
      { ...data, depth: 1, isHole: true },
      { ...row, depth: 1, zero: true, data: false, offset: 70 },
    ],
    ['compressed', { ...place, kind: 'compressed' }, { ...row, compressed: true }],
    ['zeros', { ...place, kind: 'zero' }, { ...row, zero: true, data: false }],
    ['zeros with room', { ...place, kind: 'zero', hostOffset: 5 }, { ...row, zero: true, data: false, offset: 5 }],
  ]
  for (const [title, extent, expected] of cases) t.strictSame(await rowsOf(chain, extent), [expected], title)
})

t.test('nothing comes from the lowest layer that reaches so far', async (t) => {
  const chain = [link('qcow2', 100), link('qcow2', 30), link('qcow2', 60)]
  const nothing: Qcow2Extent = { offset: 10, length: 90, depth: 2, kind: 'unallocated' }
  const empty = { present: false, zero: true, data: false, compressed: false }
  t.strictSame(await rowsOf(chain, nothing), [
    { start: 10, length: 20, depth: 2, ...empty },
    { start: 30, length: 70, depth: 0, ...empty },
  ])
  t.strictSame(await rowsOf([link('qcow2', 100)], { ...nothing, hostOffset: 500 }), [
    { start: 10, length: 90, depth: 0, ...empty, offset: 500 },
  ])
})
