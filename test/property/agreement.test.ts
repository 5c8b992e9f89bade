// Every way to read an image agrees with what was put into it: read at any place, streams, conversions.
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { convert, createReadStream } from '../../lib/index.js'
import { bytesOf, bytesOfChunks, chunksOf } from '../fixtures/consume.js'
import { open, randomImage, runs } from '../fixtures/random-images.js'

/** A place from 0 to a little past the end of a disk, and a length from there. */
const slice = fc.record({ from: fc.nat(1000), length: fc.nat(1000) })

function placeOf({ from, length }: { from: number; length: number }, size: number): { start: number; end: number } {
  const start = Math.floor(((size + 10) * from) / 1000)
  return { start, end: start + Math.floor((size * length) / 1000) }
}

t.test('read fills its target with the slice of the disk, whatever its place and length', async (t) => {
  await fc.assert(
    fc.asyncProperty(randomImage, fc.array(slice, { minLength: 1, maxLength: 8 }), async (random, slices) => {
      for (const { snapshot, guest } of random.disks) {
        await using image = await open(random, snapshot)
        if (image.virtualSize !== guest.length) throw new Error(`size ${image.virtualSize}, not ${guest.length}`)
        // All at once: concurrent reads must not disturb each other.
        await Promise.all(
          slices.map(async (one) => {
            const { start, end } = placeOf(one, guest.length)
            const target = Buffer.alloc(end - start, 0xee)
            const expected = guest.subarray(start, end)
            const count = await image.read(target, start)
            if (count !== expected.length) throw new Error(`read ${count} bytes at ${start}, not ${expected.length}`)
            if (!target.subarray(0, count).equals(expected)) throw new Error(`wrong bytes in ${start} to ${end}`)
            if (target.subarray(count).some((byte) => byte !== 0xee)) throw new Error('wrote behind the end')
          }),
        )
      }
    }),
    runs(80),
  )
  t.pass('no counterexample')
})

t.test('a stream emits the slice of the disk, whatever its range and chunks', async (t) => {
  const options = fc.record({
    place: slice,
    highWaterMark: fc.oneof(fc.integer({ min: 100, max: 5000 }), fc.integer({ min: 5000, max: 2 ** 21 })),
  })
  await fc.assert(
    fc.asyncProperty(randomImage, options, async (random, { place, highWaterMark }) => {
      for (const { snapshot, guest } of random.disks) {
        await using image = await open(random, snapshot)
        const { start, end } = placeOf(place, guest.length)
        const expected = guest.subarray(start, end + 1)
        const bytes = await bytesOf(createReadStream(image, { start, end, highWaterMark }))
        if (!bytes.equals(expected)) throw new Error(`wrong bytes in ${start} to ${end}`)
        const chunks = await chunksOf(createReadStream(image, { start, end, objectMode: true }))
        if (!bytesOfChunks(chunks).equals(expected)) throw new Error(`wrong chunks in ${start} to ${end}`)
        let at = start
        for (const { guestOffset, length } of chunks) {
          if (guestOffset !== at || length < 1) throw new Error(`a chunk of ${length} at ${guestOffset}, not ${at}`)
          at += length
        }
      }
    }),
    runs(80),
  )
  t.pass('no counterexample')
})

t.test('a conversion writes the disk, with holes or without, whole or in part', async (t) => {
  const out = join(t.testdir(), 'out')
  const options = fc.record({ place: slice, sparse: fc.boolean(), isWhole: fc.boolean() })
  await fc.assert(
    fc.asyncProperty(randomImage, options, async (random, { place, sparse, isWhole }) => {
      const { image, base, baseFormat } = random
      for (const { snapshot, guest } of random.disks) {
        rmSync(out, { force: true })
        const { start, end } = isWhole ? { start: 0, end: Infinity } : placeOf(place, guest.length)
        const expected = guest.subarray(start, end + 1)
        const result = await convert(image.bytes, out, {
          start,
          end,
          sparse,
          snapshot,
          backingFile: base,
          backingFormat: baseFormat,
        })
        if (!readFileSync(out).equals(expected)) throw new Error('wrong bytes')
        if (result.length !== expected.length) throw new Error(`length ${result.length}`)
        const { bytesWritten } = result
        if (sparse ? bytesWritten > expected.length : bytesWritten !== expected.length) {
          throw new Error(`${bytesWritten} bytes written`)
        }
      }
    }),
    runs(80),
  )
  t.pass('no counterexample')
})
