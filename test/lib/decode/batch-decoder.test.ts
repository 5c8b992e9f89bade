/**
 * Batches of any compression type in one memory, as a decoding thread gets them one after the other.
 */
import t from 'tap'
import { BatchDecoder } from '../../../lib/decode/batch-decoder.js'
import { LaneMemory } from '../../../lib/decode/lane-memory.js'
import { makeBatch } from '../../fixtures/batches.js'

t.test('decodes batches of both types in turn, with the tables of both in one memory', async (t) => {
  const memory = new LaneMemory()
  const decoder = new BatchDecoder(memory.wasm)
  for (const [index, compression] of (['zlib', 'zstd', 'zlib', 'zstd', 'zstd', 'zlib'] as const).entries()) {
    const clusterSize = 4096 * 2 ** index
    const { batch, target, expected } = await makeBatch(memory, { compression, clusterSize })
    t.equal(decoder.decode(batch), undefined)
    t.ok(expected.equals(target), `${compression}, clusters of ${clusterSize} bytes`)
  }
})

t.test('names the first damaged cluster, and goes on with the next batch', async (t) => {
  const memory = new LaneMemory()
  const decoder = new BatchDecoder(memory.wasm)
  for (const compression of ['zlib', 'zstd'] as const) {
    const damaged = await makeBatch(memory, { compression, clusterSize: 4096, damaged: [2, 3] })
    const failure = decoder.decode(damaged.batch)
    t.equal(failure?.cluster, 2)
    t.type(failure?.reason, 'string')
    t.strictSame(structuredClone(failure), failure, 'which can be sent to another thread')
    const { batch, target, expected } = await makeBatch(memory, { compression, clusterSize: 4096 })
    t.equal(decoder.decode(batch), undefined)
    t.ok(expected.equals(target))
  }
})
