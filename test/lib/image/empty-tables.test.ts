/**
 * Disks that are empty in a roundabout way: a hostile image can say so with a million entries that all lead to one table.
 */
import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createReadStream, type Qcow2Image } from '../../../lib/index.js'
import { diskOf } from '../../../lib/image/image.js'
import { chunksOf, closing } from '../../fixtures/consume.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { pattern } from '../../fixtures/patterns.js'

const CLUSTER = 2 ** 14
const REACH = 2 ** 24
const TABLES = 4096

interface Case {
  readonly what: string
  /** Both words of entry `index`. */
  readonly words: (index: number) => readonly [bigint, bigint]
}

const ALL = 0xffff_ffff_0000_0000n
const CASES: readonly Case[] = [
  { what: 'zero clusters between unallocated ones', words: (index) => [0n, index % 2 === 0 ? ALL : 0n] },
  { what: 'zero subclusters between unallocated ones', words: () => [0n, 0x5555_5555_0000_0000n] },
  { what: 'preallocated clusters, none of which is used', words: () => [BigInt(CLUSTER), 0xf0f0_0000_0000_0000n] },
]

/** A disk of 64 GiB whose tables are one and the same. */
function image({ words }: Case): Buffer {
  return buildImage({
    clusterBits: 14,
    extendedL2: true,
    virtualSize: TABLES * REACH,
    clusters: [[0, { kind: 'zero' }]],
    patch: (bytes, { l1TableOffset, l2TableOffsets }) => {
      const table = l2TableOffsets.get(0)!
      for (let index = 0; index < 1024; index++) {
        const [entry, bitmap] = words(index)
        bytes.writeBigUInt64BE(entry, table + index * 16)
        bytes.writeBigUInt64BE(bitmap, table + index * 16 + 8)
      }
      for (let index = 0; index < TABLES; index++) {
        bytes.copy(bytes, l1TableOffset + index * 8, l1TableOffset, l1TableOffset + 8)
      }
    },
  }).bytes
}

/** Counts how often the image itself is mapped. */
function countMaps(t: Test, disk: Qcow2Image): { count: number } {
  const maps = { count: 0 }
  const layer = diskOf(disk).chain.layers[0]
  const { map } = layer
  t.capture(layer, 'map', (...parameters: Parameters<typeof map>) => {
    maps.count++
    return map(...parameters)
  })
  return maps
}

for (const one of CASES) {
  t.test(`reads ${one.what} as one run of zeros, and looks at their table once`, async (t) => {
    const disk = await opened(t, image(one))
    const maps = countMaps(t, disk)
    const chunks = await chunksOf(createReadStream(disk, { objectMode: true }))
    t.same(
      chunks.map(({ kind, guestOffset, length }) => ({ kind, guestOffset, length })),
      [{ kind: 'zeros', guestOffset: 0, length: TABLES * REACH }],
    )
    t.ok(maps.count < 5, `mapped ${maps.count} times`)
    t.ok((await readBytes(disk, 77 * REACH - 5, 10)).equals(Buffer.alloc(10)))
  })
}

t.test('lists what they say all the same', async (t) => {
  const disk = await opened(t, image(CASES[0]!))
  await readBytes(disk, 0, 10)
  const kinds: string[] = []
  for await (const { offset, length, kind } of disk.extents({ offset: 5 * REACH, length: 3 * CLUSTER })) {
    kinds.push(`${offset - 5 * REACH} ${length} ${kind}`)
  }
  t.same(kinds, [`0 ${CLUSTER} zero`, `${CLUSTER} ${CLUSTER} unallocated`, `${2 * CLUSTER} ${CLUSTER} zero`])
})

t.test('zeros of an overlay hide what lies below, however often', async (t) => {
  const base = Buffer.alloc(4 * REACH, 0xaa)
  const bytes = buildImage({
    clusterBits: 14,
    extendedL2: true,
    virtualSize: 2 * REACH,
    clusters: [0, 1024].map((first) => [first, { kind: 'zero' }]),
    backingFile: { name: 'base', format: 'raw' },
  }).bytes
  const disk = await opened(t, bytes, { backingFile: base })
  for (let round = 0; round < 2; round++) {
    const found = await readBytes(disk)
    for (const first of [0, REACH]) {
      t.ok(found.subarray(first, first + CLUSTER).equals(Buffer.alloc(CLUSTER)))
      t.ok(found.subarray(first + CLUSTER, first + REACH).equals(base.subarray(0, REACH - CLUSTER)))
    }
  }
})

t.test('lets others have their turn while much is mapped, and ends when nobody wants it any more', async (t) => {
  // Under a base every zero counts, so that there is no short way.
  const disk = await opened(t, image(CASES[1]!), { backingFile: pattern(1, 512), backingFormat: 'raw' })
  let now = 0
  t.intercept(performance, 'now', { value: () => (now += 21) })
  const stream = createReadStream(disk, { objectMode: true })
  const maps = countMaps(t, disk)
  let hasEnded = false
  stream.on('end', () => (hasEnded = true)).resume()
  while (maps.count < 20) await setImmediate()
  stream.destroy()
  await closing(stream)
  t.equal(hasEnded, false, 'that is not the end of the disk')
  t.ok(maps.count < 100, `mapped ${maps.count} times`)
})
