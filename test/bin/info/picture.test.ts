/** The picture of a disk: blocks in guest order, each told by its colour or, without colours, by its letter. */
import t from 'tap'
import { picture } from '../../../bin/info/picture.js'
import type { Qcow2Extent } from '../../../lib/index.js'

type Kind = 'data' | 'hole' | 'compressed' | 'backing' | 'zero' | 'unallocated'

/** Extents one after another. */
async function* disk(...parts: [kind: Kind, length: number][]): AsyncGenerator<Qcow2Extent> {
  let offset = 0
  for (const [kind, length] of parts) {
    const place = { offset, length, depth: kind === 'backing' ? 1 : 0 }
    if (kind === 'compressed' || kind === 'zero' || kind === 'unallocated') {
      yield { ...place, kind }
    } else {
      yield { ...place, kind: 'data', hostOffset: 0, file: 'x', isEncrypted: false, isHole: kind === 'hole' }
    }
    offset += length
  }
}

const PLAIN = { width: 20, hasColours: false }
const COLOURED = { width: 20, hasColours: true }
const WIDE = { width: 80, hasColours: false }
const CLUSTER = 512

t.test('a small disk has a block for each cluster', async (t) => {
  const extents = disk(
    ['data', CLUSTER],
    ['compressed', CLUSTER],
    ['backing', CLUSTER],
    ['zero', CLUSTER],
    ['hole', CLUSTER],
    ['unallocated', 2 * CLUSTER],
  )
  t.strictSame(await picture(extents, 7 * CLUSTER, CLUSTER, WIDE), [
    'DCB00..',
    'd data 512 bytes   c compressed 512 bytes   b backing 512 bytes   0 zero 1 KiB',
    '. unallocated 1 KiB',
    'each block 512 bytes; capitals: more than half of it is stored',
  ])
})

t.test('a large disk has eight lines, whatever its size', async (t) => {
  const size = 2 ** 50
  const [first, ...rest] = await picture(disk(['data', CLUSTER], ['unallocated', size - CLUSTER]), size, CLUSTER, PLAIN)
  t.equal(first, `d${'.'.repeat(19)}`, 'a single cluster is seen')
  t.strictSame(
    rest.slice(0, 7),
    Array.from({ length: 7 }, () => '.'.repeat(20)),
  )
  t.strictSame(rest.slice(7, -1), ['d data 512 bytes', '. unallocated 1024 TiB'])
  t.equal(rest.at(-1), 'each block 6.4 TiB; capitals: more than half of it is stored')
})

t.test('a block is what most of its stored bytes are', async (t) => {
  const block = 2 * CLUSTER
  const size = 8 * 20 * block
  const parts: [Kind, number][] = [
    ['compressed', 900],
    ['data', block - 900],
    ['data', 100],
    ['zero', block - 100],
    ['zero', 600],
    ['unallocated', size - 2 * block - 600],
  ]
  const [first] = await picture(disk(...parts), size, CLUSTER, PLAIN)
  t.equal(first!.slice(0, 4), 'Cd0.')
})

t.test('with colours, one for each run of a kind, and blocks as full as they are', async (t) => {
  const size = 160 * CLUSTER * 4
  const block = 4 * CLUSTER
  const parts: [Kind, number][] = [
    ['data', block],
    ['data', (block * 3) / 4],
    ['zero', block / 4],
    ['data', block / 2],
    ['zero', block / 2],
    ['data', 1],
    ['zero', block - 1],
    ['compressed', block],
    ['zero', block],
    ['unallocated', size - 6 * block],
  ]
  const [first, ...rest] = await picture(disk(...parts), size, CLUSTER, COLOURED)
  t.equal(first, `\u001b[32m█▓▒░\u001b[0m\u001b[36m█\u001b[0m\u001b[34m·\u001b[0m\u001b[90m${'·'.repeat(14)}\u001b[0m`)
  const legend = rest.slice(7).join('   ')
  t.ok(legend.startsWith('\u001b[32m█\u001b[0m data 4.5 KiB   \u001b[36m█\u001b[0m compressed 2 KiB'), legend)
  t.equal(rest.at(-1), 'each block 2 KiB; ▒: half of it or less is stored')
})

t.test('a narrow terminal is taken for one of 20 columns', async (t) => {
  const [first] = await picture(disk(['data', 100 * CLUSTER]), 100 * CLUSTER, CLUSTER, { width: 0, hasColours: false })
  t.equal(first, 'D'.repeat(20))
})

t.test('an empty disk has no blocks', async (t) => {
  t.strictSame(await picture(disk(), 0, CLUSTER, PLAIN), [
    'each block 512 bytes; capitals: more than half of it is stored',
  ])
})
