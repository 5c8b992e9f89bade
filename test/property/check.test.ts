// Checks of images of all kinds: as they are built they are clean, and any other refcount is told.
import fc from 'fast-check'
import t from 'tap'
import { checkedBytes } from '../fixtures/checked.js'
import { randomImage, runs } from '../fixtures/random-images.js'

t.test('images of every kind are clean', async (t) => {
  await fc.assert(
    fc.asyncProperty(randomImage, async ({ image }) => {
      const { findings } = await checkedBytes(image.bytes)
      if (findings.length > 0) throw new Error(findings.map(({ message }) => message).join('\n'))
    }),
    runs(300),
  )
  t.pass('no counterexample')
})

t.test('a refcount that is changed is a leak or a corruption', async (t) => {
  await fc.assert(
    fc.asyncProperty(randomImage, fc.nat(2 ** 20), async ({ image: { bytes, layout } }, place) => {
      const clusters = Math.ceil(bytes.length / layout.clusterBytes)
      const width = 2 ** (bytes.readUInt32BE(4) === 3 ? bytes.readUInt32BE(96) : 4)
      // Of the first block; refcounts narrower than a byte fill it from its least significant bit.
      const changed = place % Math.min(clusters * width, layout.clusterBytes * 8)
      const copy = Buffer.from(bytes)
      copy[layout.refcountBlockOffsets[0]! + Math.floor(changed / 8)]! ^= 1 << (changed % 8)
      const { leaks, corruptions } = await checkedBytes(copy)
      if (leaks + corruptions === 0) throw new Error(`nothing is told of bit ${changed}`)
    }),
    runs(300),
  )
  t.pass('no counterexample')
})
