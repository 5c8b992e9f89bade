/**
 * zlib's clusters against zlib itself: streams of random blocks and random codes, such as no compressor makes. Verdict and
 * bytes must be the same; which streams are tried depends on a seed and on nothing else.
 */
import t from 'tap'
import { randomDeflate } from '../../fixtures/random-deflate.js'
import { runs } from '../../fixtures/random-images.js'
import { randomNumbers } from '../../fixtures/random-writes.js'
import { ZlibComparison } from '../../fixtures/zlib-comparison.js'

t.test('random blocks with random codes, whole and cut off', async (t) => {
  const { numRuns, seed } = runs(4800)
  const comparison = new ZlibComparison()
  for (let run = 0; run < numRuns; run++) {
    const random = randomNumbers(seed + run)
    const upTo = (limit: number): number => Math.floor(random() * limit)
    const stream = randomDeflate(random, run % 8 === 0)
    const clusterBytes = run % 8 === 0 ? [33_000, 33_300, 65_536][upTo(3)]! : [64, 64 + upTo(200), 512, 4096][upTo(4)]!
    await comparison.add(`seed ${seed + run}`, stream, clusterBytes)
    if (run % 4 === 1) {
      await comparison.add(`seed ${seed + run}, cut`, stream.subarray(0, upTo(stream.length)), clusterBytes)
    }
  }
  t.strictSame(comparison.differences, [])
  const { fullCount, refusedCount } = comparison
  t.equal(fullCount + refusedCount, numRuns * 1.25)
  t.ok(fullCount > numRuns / 5 && refusedCount > numRuns / 5, `${fullCount} clusters, ${refusedCount} refusals`)
})

t.test('noise, with a beginning that makes sense', async (t) => {
  const { numRuns, seed } = runs(4000)
  const comparison = new ZlibComparison()
  for (let run = 0; run < numRuns; run++) {
    const random = randomNumbers(seed - 1 - run)
    const noise = Buffer.from(Array.from({ length: 1 + Math.floor(random() * 400) }, () => Math.floor(random() * 256)))
    // Type of the first block: mostly the fixed code, which makes something of any bits, or a dynamic one.
    noise[0] = (noise[0]! & 0xf8) | [2, 3, 4, 5][run % 4]!
    await comparison.add(`seed ${seed - 1 - run}`, noise, 64)
  }
  t.strictSame(comparison.differences, [])
  t.equal(comparison.fullCount + comparison.refusedCount, numRuns)
  t.ok(comparison.fullCount > numRuns / 100, `${comparison.fullCount} clusters`)
})
