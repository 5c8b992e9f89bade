/**
 * zlib's clusters against zlib itself: what it compresses, in every way it can be told to, whole and damaged. Verdict
 * and bytes must be the same; which streams are tried depends on a seed and on nothing else.
 */
import { constants, deflateRawSync } from 'node:zlib'
import t from 'tap'
import { CONTENT_KINDS, contents } from '../../fixtures/disk-contents.js'
import { runs } from '../../fixtures/random-images.js'
import { randomNumbers } from '../../fixtures/random-writes.js'
import { ZlibComparison } from '../../fixtures/zlib-comparison.js'

const STRATEGIES = [
  constants.Z_DEFAULT_STRATEGY,
  constants.Z_FILTERED,
  constants.Z_HUFFMAN_ONLY,
  constants.Z_RLE,
  constants.Z_FIXED,
]

t.test('what deflate makes of any content, at every level, strategy and window', async (t) => {
  const { numRuns, seed } = runs(2)
  const comparison = new ZlibComparison()
  for (let run = 0; run < numRuns; run++) {
    const random = randomNumbers(seed + run)
    for (const kind of CONTENT_KINDS) {
      for (let level = 0; level <= 9; level++) {
        for (const [index, strategy] of STRATEGIES.entries()) {
          const clusterBytes = 2 ** (9 + ((level + index * 3 + run) % 8))
          const cluster = contents(kind, clusterBytes, random)
          const windowBits = 8 + Math.floor(random() * 8)
          const memLevel = 1 + Math.floor(random() * 9)
          const source = deflateRawSync(cluster, { level, strategy, windowBits, memLevel })
          const how = `${kind}, level ${level}, strategy ${strategy}, window ${windowBits}, memory ${memLevel}`
          await comparison.add(how, source, clusterBytes)
        }
      }
    }
  }
  t.strictSame(comparison.differences, [])
  t.equal(comparison.fullCount, numRuns * CONTENT_KINDS.length * 50, 'all fill their cluster')
  t.equal(comparison.refusedCount, 0)
})

t.test('clusters of 2 MiB', async (t) => {
  const random = randomNumbers(runs(1).seed)
  const comparison = new ZlibComparison()
  for (const [index, kind] of CONTENT_KINDS.entries()) {
    const cluster = contents(kind, 2 ** 21, random)
    for (const windowBits of [15, 12]) {
      const source = deflateRawSync(cluster, { level: 1 + index, windowBits })
      await comparison.add(`${kind}, window ${windowBits}`, source, 2 ** 21)
      await comparison.add(`${kind}, window ${windowBits}, cut`, source.subarray(0, source.length >> 1), 2 ** 21)
    }
  }
  t.strictSame(comparison.differences, [])
  t.equal(comparison.fullCount, 12)
  t.equal(comparison.refusedCount, 12)
})

t.test('streams that are longer than their cluster, cut off, damaged, or followed by others', async (t) => {
  const { numRuns, seed } = runs(1200)
  const comparison = new ZlibComparison()
  for (let run = 0; run < numRuns; run++) {
    const random = randomNumbers(seed + run)
    const upTo = (limit: number): number => Math.floor(random() * limit)
    const kind = CONTENT_KINDS[run % CONTENT_KINDS.length]!
    const clusterBytes = 2 ** (9 + upTo(upTo(5) === 0 ? 8 : 5))
    const content = contents(kind, clusterBytes + [0, 0, 1, upTo(300), clusterBytes][upTo(5)]!, random)
    const stream = deflateRawSync(content, {
      level: upTo(10),
      strategy: STRATEGIES[upTo(STRATEGIES.length)]!,
      windowBits: 9 + upTo(7),
      memLevel: 1 + upTo(9),
      // Some streams have no last block.
      finishFlush: upTo(8) === 0 ? constants.Z_SYNC_FLUSH : constants.Z_FINISH,
    })
    const how = `seed ${seed + run}, ${kind}`
    await comparison.add(how, stream, clusterBytes)
    await comparison.add(
      `${how}, followed by others`,
      Buffer.concat([stream, content.subarray(0, 1 + upTo(600))]),
      clusterBytes,
    )
    await comparison.add(`${how}, cut`, stream.subarray(0, upTo(stream.length)), clusterBytes)
    await comparison.add(`${how}, cut at the end`, stream.subarray(0, -1 - upTo(8)), clusterBytes)
    for (let damage = 0; damage < 6; damage++) {
      const damaged = Buffer.from(stream)
      for (let places = 1 + upTo(3); places > 0; places--) {
        // The beginning says how all the rest is to be read.
        const at = upTo(damage % 2 === 0 ? stream.length : Math.min(stream.length, 100))
        damaged[at]! ^= upTo(2) === 0 ? 1 << upTo(8) : 1 + upTo(255)
      }
      await comparison.add(`${how}, damaged`, damaged, clusterBytes)
    }
  }
  t.strictSame(comparison.differences, [])
  const { fullCount, refusedCount } = comparison
  t.equal(fullCount + refusedCount, numRuns * 10)
  t.ok(fullCount > numRuns * 3 && refusedCount > numRuns * 3, `${fullCount} clusters, ${refusedCount} refusals`)
})
