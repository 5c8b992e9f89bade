/**
 * What a decoding thread does, here in the test's own thread.
 */
import t from 'tap'
import { LaneMemory } from '../../../lib/decode/lane-memory.js'
import { begin, decode } from '../../../lib/decode/worker.js'
import { makeBatch } from '../../fixtures/batches.js'

t.test('decodes in the memory that it was told', async (t) => {
  t.throws(() => decode({ compression: 'zlib', clusterSize: 512, stored: 0, ranges: new Uint32Array(0), target: 0 }))
  for (const memory of [new LaneMemory(), new LaneMemory()]) {
    begin(memory.wasm)
    const { batch, target, expected } = await makeBatch(memory)
    t.equal(decode(batch), undefined)
    t.ok(expected.equals(target))
    const damaged = await makeBatch(memory, { damaged: [1] })
    t.equal(decode(damaged.batch)?.cluster, 1)
  }
})
