// Extents: from any start they tile the disk exactly, and each says the truth about its bytes.
import fc from 'fast-check'
import t from 'tap'
import type { Qcow2Extent } from '../../lib/index.js'
import { open, randomImage, runs } from '../fixtures/random-images.js'

async function all(extents: AsyncIterable<Qcow2Extent>): Promise<Qcow2Extent[]> {
  const list: Qcow2Extent[] = []
  for await (const extent of extents) list.push(extent)
  return list
}

/** Throws unless the extents follow each other from `start` to `end`, neighbours differing. */
function expectTiles(extents: readonly Qcow2Extent[], start: number, end: number): void {
  let at = start
  let last: Qcow2Extent | undefined
  for (const extent of extents) {
    if (extent.offset !== at || extent.length < 1) throw new Error(`${JSON.stringify(extent)} at ${at}`)
    at += extent.length
    const isSplit =
      last?.kind === extent.kind &&
      last.depth === extent.depth &&
      (last.kind !== 'data' || extent.kind !== 'data' || last.hostOffset + last.length === extent.hostOffset)
    if (isSplit) throw new Error(`${JSON.stringify(last)} goes on as ${JSON.stringify(extent)}`)
    last = extent
  }
  if (at !== end) throw new Error(`they end at ${at}, not at ${end}`)
}

t.test('extents tile the disk from any start, each as long as it can be', async (t) => {
  await fc.assert(
    fc.asyncProperty(randomImage, fc.nat(1000), fc.nat(1000), async (random, from, part) => {
      for (const { snapshot, guest } of random.disks) {
        await using image = await open(random, snapshot)
        expectTiles(await all(image.extents()), 0, guest.length)
        const offset = Math.floor((guest.length * from) / 900)
        const length = Math.floor((guest.length * part) / 900)
        const end = Math.max(offset, Math.min(guest.length, offset + length))
        expectTiles(await all(image.extents({ offset, length })), offset, end)
        expectTiles(await all(image.extents({ offset })), offset, Math.max(offset, guest.length))
      }
    }),
    runs(80),
  )
  t.pass('no counterexample')
})

t.test('extents of a part are the part of the extents', async (t) => {
  await fc.assert(
    fc.asyncProperty(randomImage, fc.nat(1000), async (random, from) => {
      await using image = await open(random)
      const offset = Math.floor((image.virtualSize * from) / 1001)
      const [first] = await all(image.extents({ offset, length: 1 }))
      const whole = (await all(image.extents())).find((one) => one.offset + one.length > offset)
      if (first === undefined || whole === undefined) {
        if (image.virtualSize > 0) throw new Error(`nothing at ${offset}`)
        return
      }
      const shift = offset - whole.offset
      const expected = {
        ...whole,
        offset,
        length: 1,
        ...(whole.kind === 'data' ? { hostOffset: whole.hostOffset + shift } : {}),
      }
      for (const [name, value] of Object.entries(expected)) {
        if (first[name as 'offset'] !== value) throw new Error(`${name} of ${JSON.stringify(first)} is not ${value}`)
      }
    }),
    runs(60),
  )
  t.pass('no counterexample')
})

t.test('what an extent calls zeros is zeros, and what it calls data lies where it says', async (t) => {
  await fc.assert(
    fc.asyncProperty(randomImage, async (random) => {
      const [{ guest } = { guest: Buffer.alloc(0) }] = random.disks
      await using image = await open(random)
      for await (const extent of image.extents()) {
        const expected = guest.subarray(extent.offset, extent.offset + extent.length)
        if (extent.kind === 'data') {
          const file = extent.depth === 0 ? random.image.bytes : (random.base ?? Buffer.alloc(0))
          const found = Buffer.alloc(extent.length)
          found.set(file.subarray(extent.hostOffset, extent.hostOffset + extent.length))
          if (!found.equals(expected)) throw new Error(`other bytes at ${JSON.stringify(extent)}`)
        } else if (extent.kind !== 'compressed' && expected.some((byte) => byte !== 0)) {
          throw new Error(`no zeros at ${JSON.stringify(extent)}`)
        }
      }
    }),
    runs(60),
  )
  t.pass('no counterexample')
})
