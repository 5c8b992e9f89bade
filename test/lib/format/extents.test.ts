// Extents: merging them as they are found, and cutting parts out of them.
import fc from 'fast-check'
import t from 'tap'
import { ExtentList, sliceExtent, type CompressedExtent, type LayerExtent } from '../../../lib/format/extents.js'
import { plain } from '../../fixtures/l2-decoding.js'

function listOf(add: (list: ExtentList) => void, depth = 0): object[] {
  const list = new ExtentList(depth)
  add(list)
  return plain(list.extents)
}

const cluster = (guest: number, host: number, bytes = 512) => ({ guest, size: 4096, host, bytes })

t.test('a list begins empty', async (t) => {
  t.strictSame(new ExtentList(0).extents, [])
})

t.test('each extent says which layer it is of', async (t) => {
  const found = listOf((list) => {
    list.data(0, 10, 4096)
    list.zero(10, 10)
    list.unallocated(20, 4076)
    list.compressed(4096, 4096, cluster(4096, 77))
  }, 5)
  t.strictSame(found, [
    { kind: 'data', depth: 5, guestOffset: 0, length: 10, hostOffset: 4096 },
    { kind: 'zero', depth: 5, guestOffset: 10, length: 10 },
    { kind: 'unallocated', depth: 5, guestOffset: 20, length: 4076 },
    {
      kind: 'compressed',
      depth: 5,
      guestOffset: 4096,
      length: 4096,
      clusterGuestOffset: 4096,
      clusterSize: 4096,
      hostOffsets: [77],
      hostLengths: [512],
    },
  ])
})

t.test('data is merged where both the guest and the host go on', async (t) => {
  const rows: [title: string, second: [guest: number, length: number, host: number], count: number][] = [
    ['both go on', [100, 50, 1100], 1],
    ['a gap on the host', [100, 50, 1101], 2],
    ['an overlap on the host', [100, 50, 1099], 2],
    ['the same place on the host', [100, 50, 1000], 2],
    ['backwards on the host', [100, 50, 950], 2],
    ['a gap in the guest', [101, 50, 1100], 2],
  ]
  for (const [title, second, count] of rows) {
    const found = listOf((list) => {
      list.data(0, 100, 1000)
      list.data(...second)
    })
    t.equal(found.length, count, title)
    t.match(found.at(-1), count === 1 ? { guestOffset: 0, length: 150, hostOffset: 1000 } : { guestOffset: second[0] })
  }
})

t.test('zeros and unallocated bytes are merged with their own kind, where the guest goes on', async (t) => {
  for (const kind of ['zero', 'unallocated'] as const) {
    const other = kind === 'zero' ? 'unallocated' : 'zero'
    const found = listOf((list) => {
      list[kind](0, 10)
      list[kind](10, 20)
      list[kind](40, 10)
      list[other](50, 5)
      list[kind](55, 5)
    })
    t.strictSame(found, [
      { kind, depth: 0, guestOffset: 0, length: 30 },
      { kind, depth: 0, guestOffset: 40, length: 10 },
      { kind: other, depth: 0, guestOffset: 50, length: 5 },
      { kind, depth: 0, guestOffset: 55, length: 5 },
    ])
  }
})

t.test('data is not merged with zeros whose place it would continue', async (t) => {
  const found = listOf((list) => {
    list.data(0, 10, 0)
    list.zero(10, 10)
    list.data(20, 10, 20)
  })
  t.equal(found.length, 3)
})

t.test('compressed clusters are merged in guest order, wherever they are stored', async (t) => {
  const found = listOf((list) => {
    list.compressed(8000, 192, cluster(4096, 9000, 700))
    list.compressed(8192, 4096, cluster(8192, 100, 812))
    list.compressed(12288, 5, cluster(12288, 9000, 700))
    list.compressed(20480, 4096, cluster(20480, 5, 507))
  })
  t.strictSame(found, [
    {
      kind: 'compressed',
      depth: 0,
      guestOffset: 8000,
      length: 4293,
      clusterGuestOffset: 4096,
      clusterSize: 4096,
      hostOffsets: [9000, 100, 9000],
      hostLengths: [700, 812, 700],
    },
    {
      kind: 'compressed',
      depth: 0,
      guestOffset: 20480,
      length: 4096,
      clusterGuestOffset: 20480,
      clusterSize: 4096,
      hostOffsets: [5],
      hostLengths: [507],
    },
  ])
})

t.test('two parts of one compressed cluster do not pass for two clusters', async (t) => {
  const found = listOf((list) => {
    list.compressed(4096, 100, cluster(4096, 9000))
    list.compressed(4196, 100, cluster(4096, 9000))
  })
  t.match(found, [
    { guestOffset: 4096, length: 100, hostOffsets: [9000] },
    { guestOffset: 4196, length: 100, clusterGuestOffset: 4096, hostOffsets: [9000] },
  ])
})

const oneOf = (add: (list: ExtentList) => void): LayerExtent => {
  const list = new ExtentList(2)
  add(list)
  return list.extents[0]!
}

t.test('a slice that is the whole is the extent itself', async (t) => {
  const extent = oneOf((list) => list.data(4096, 100, 500))
  t.equal(sliceExtent(extent, 4096, 100), extent)
})

t.test('a slice of zeros or unallocated bytes is shorter, and the extent stays as it is', async (t) => {
  for (const kind of ['zero', 'unallocated'] as const) {
    const extent = oneOf((list) => list[kind](1000, 100))
    for (const [from, length] of [
      [1000, 99],
      [1001, 99],
      [1050, 1],
    ] as const) {
      t.strictSame(sliceExtent(extent, from, length), { kind, depth: 2, guestOffset: from, length })
    }
    t.strictSame({ ...extent }, { kind, depth: 2, guestOffset: 1000, length: 100 })
  }
})

t.test('a slice of data begins as much later on the host as in the guest', async (t) => {
  const extent = oneOf((list) => list.data(1000, 100, 5000))
  const cut = (from: number, length: number) => ({ ...sliceExtent(extent, from, length) })
  t.strictSame(cut(1000, 1), { kind: 'data', depth: 2, guestOffset: 1000, length: 1, hostOffset: 5000 })
  t.strictSame(cut(1099, 1), { kind: 'data', depth: 2, guestOffset: 1099, length: 1, hostOffset: 5099 })
  t.strictSame(cut(1000, 100), { kind: 'data', depth: 2, guestOffset: 1000, length: 100, hostOffset: 5000 })
})

t.test('a slice of compressed clusters keeps those that it needs', async (t) => {
  const extent = oneOf((list) => {
    list.compressed(5000, 3192, cluster(4096, 10, 1))
    list.compressed(8192, 4096, cluster(8192, 20, 2))
    list.compressed(12288, 1000, cluster(12288, 30, 3))
  }) as CompressedExtent
  const rows: [from: number, length: number, clusterGuestOffset: number, kept: number[]][] = [
    [5000, 1, 4096, [10]],
    [5000, 3192, 4096, [10]],
    [8191, 1, 4096, [10]],
    [8191, 2, 4096, [10, 20]],
    [8192, 1, 8192, [20]],
    [8192, 4096, 8192, [20]],
    [8192, 4097, 8192, [20, 30]],
    [5001, 8287, 4096, [10, 20, 30]],
    [13287, 1, 12288, [30]],
  ]
  for (const [from, length, clusterGuestOffset, hostOffsets] of rows) {
    t.strictSame(
      { ...sliceExtent(extent, from, length) },
      {
        kind: 'compressed',
        depth: 2,
        guestOffset: from,
        length,
        clusterGuestOffset,
        clusterSize: 4096,
        hostOffsets,
        hostLengths: hostOffsets.map((host) => host / 10),
      },
      `${length} bytes from ${from} on`,
    )
  }
  t.strictSame(extent.hostOffsets, [10, 20, 30], 'the extent stays as it is')
})

t.test('tells where room is kept for what is not stored, if that is asked for', async (t) => {
  const fill = (list: ExtentList): LayerExtent[] => {
    list.zero(0, 10, 500)
    list.zero(10, 10, 510)
    list.zero(20, 10, 600)
    list.zero(30, 10)
    list.zero(40, 10)
    list.unallocated(50, 10, 700)
    list.unallocated(60, 10)
    return list.extents
  }
  t.strictSame(fill(new ExtentList(0, true)), [
    { kind: 'zero', depth: 0, guestOffset: 0, length: 20, hostOffset: 500 },
    { kind: 'zero', depth: 0, guestOffset: 20, length: 10, hostOffset: 600 },
    { kind: 'zero', depth: 0, guestOffset: 30, length: 20 },
    { kind: 'unallocated', depth: 0, guestOffset: 50, length: 10, hostOffset: 700 },
    { kind: 'unallocated', depth: 0, guestOffset: 60, length: 10 },
  ])
  t.strictSame(fill(new ExtentList(0)), [
    { kind: 'zero', depth: 0, guestOffset: 0, length: 50 },
    { kind: 'unallocated', depth: 0, guestOffset: 50, length: 20 },
  ])
})

t.test('a part of a run for which room is kept has its own part of the room', async (t) => {
  const [zero, nothing] = (() => {
    const list = new ExtentList(0, true)
    list.zero(100, 50, 1000)
    list.zero(150, 50)
    return list.extents
  })()
  t.strictSame(sliceExtent(zero!, 110, 20), { kind: 'zero', depth: 0, guestOffset: 110, length: 20, hostOffset: 1010 })
  t.strictSame(sliceExtent(nothing!, 160, 20), { kind: 'zero', depth: 0, guestOffset: 160, length: 20 })
})

t.test('whatever is added in guest order, the extents tile it, and each is as long as it can be', async (t) => {
  const piece = fc.record({
    kind: fc.constantFrom('data', 'zero', 'unallocated', 'compressed'),
    length: fc.integer({ min: 1, max: 4096 }),
    jump: fc.integer({ min: -1, max: 1 }),
  })
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
      const list = new ExtentList(0)
      let guest = 0
      let host = 1e6
      for (const { kind, length, jump } of pieces) {
        if (kind === 'compressed') {
          const start = Math.ceil(guest / 4096) * 4096
          if (start > guest) list.zero(guest, start - guest)
          list.compressed(start, 4096, cluster(start, host))
          guest = start + 4096
          continue
        }
        if (kind === 'data') {
          host += jump * 8192
          list.data(guest, length, host)
          host += length
        } else {
          list[kind as 'zero'](guest, length)
        }
        guest += length
      }
      let end = 0
      let last: LayerExtent | undefined
      for (const extent of list.extents) {
        if (extent.guestOffset !== end || extent.length <= 0) return false
        if (last?.kind === extent.kind) {
          const isContinued =
            last.kind !== 'data' || last.hostOffset + last.length === (extent as typeof last).hostOffset
          if (isContinued) return false
        }
        end = extent.guestOffset + extent.length
        last = extent
      }
      return end === guest
    }),
    { numRuns: 500 },
  )
  t.pass('for all lists tried')
})
