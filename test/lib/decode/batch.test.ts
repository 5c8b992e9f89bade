/**
 * Many clusters decoded in one go: which bytes each one is made from, where it goes, and what becomes of damage.
 */
import t from 'tap'
import { decodeBatch } from '../../../lib/decode/batch.js'
import { DecodeError } from '../../../lib/decode/decode-error.js'
import type { Decoder } from '../../../lib/decode/decoder.js'
import { makeBatch } from '../../fixtures/batches.js'
import { createMemoryDecoder } from '../../fixtures/memory-decoder.js'
import { filled } from '../../fixtures/patterns.js'

const batchOf = (places: Uint32Array): Parameters<typeof decodeBatch>[1] => ({
  compression: 'zlib',
  clusterSize: 512,
  stored: 10_000,
  places,
  target: 50_000,
})

t.test('tells the decoder where each cluster is and where it goes, in order', async (t) => {
  const calls: number[][] = []
  const decoder: Decoder = {
    decode: (...places) => {
      calls.push(places)
    },
  }
  // Apart, in any order, one over the other.
  t.equal(decodeBatch(decoder, batchOf(Uint32Array.of(700, 4, 512, 0, 500, 0, 9, 100, 8192))), undefined)
  t.strictSame(calls, [
    [10_700, 4, 50_512, 512],
    [10_000, 500, 50_000, 512],
    [10_009, 100, 58_192, 512],
  ])
})

t.test('decodes nothing if there is nothing', async (t) => {
  const decoder: Decoder = { decode: () => t.fail('there is no cluster') }
  t.equal(decodeBatch(decoder, batchOf(new Uint32Array(0))), undefined)
})

for (const compression of ['zlib', 'zstd'] as const) {
  t.test(`decodes clusters of ${compression}`, async (t) => {
    const { memory, decoder } = createMemoryDecoder(compression)
    const { batch, target, expected } = await makeBatch(memory, { compression, clusterSize: 4096, count: 5 })
    t.equal(decodeBatch(decoder, batch), undefined)
    t.ok(expected.equals(target))
  })

  t.test(`stops at the first cluster of ${compression} that is damaged, and names it`, async (t) => {
    const { memory, decoder } = createMemoryDecoder(compression)
    for (const cluster of [0, 1, 4]) {
      const options = { compression, clusterSize: 4096, count: 5, damaged: [cluster, 4] }
      const { batch, target, expected } = await makeBatch(memory, options)
      const failure = decodeBatch(decoder, batch)
      t.equal(failure?.cluster, cluster)
      t.match(failure?.reason, /^[^\p{Cc}]+$/u, 'with a reason')
      const done = cluster * 4096
      t.ok(expected.subarray(0, done).equals(target.subarray(0, done)), 'those before it are decoded')
      t.ok(filled(0xa5, 5 * 4096 - done - 4096).equals(target.subarray(done + 4096)), 'those after it are not')
    }
  })
}

t.test('says why a cluster could not be decoded, in the words of its decoder', async (t) => {
  const decoder: Decoder = {
    decode: () => {
      throw new DecodeError('not today')
    },
  }
  t.strictSame(decodeBatch(decoder, batchOf(Uint32Array.of(0, 1, 0))), { cluster: 0, reason: 'not today' })
})

t.test('lets an error pass that is not about the bytes', async (t) => {
  const bug = new TypeError('a bug')
  const decoder: Decoder = {
    decode: () => {
      throw bug
    },
  }
  t.throws(() => decodeBatch(decoder, batchOf(Uint32Array.of(0, 1, 0))), bug)
})
