/**
 * What a decoding thread does with a batch, here in the test's own thread.
 */
import t from 'tap'
import { decodeInThread } from '../../../lib/decode/worker.js'
import { makeBatch } from '../../fixtures/batches.js'

t.test('decodes batches of both types in turn', async (t) => {
  const batches = (['zlib', 'zstd', 'zlib', 'zstd'] as const).map((compression, index) =>
    makeBatch({ compression, clusterSize: 4096 * 2 ** index }),
  )
  for (const { batch, expected } of batches) {
    t.equal(decodeInThread(batch), undefined)
    t.ok(expected.equals(batch.target), `${batch.compression}, clusters of ${batch.clusterSize} bytes`)
  }
})

t.test('names the first damaged cluster, and goes on with the next batch', async (t) => {
  for (const compression of ['zlib', 'zstd'] as const) {
    const failure = decodeInThread(makeBatch({ compression, clusterSize: 4096, damaged: [2, 3] }).batch)
    t.equal(failure?.cluster, 2)
    t.type(failure?.reason, 'string')
    const { batch, expected } = makeBatch({ compression, clusterSize: 4096 })
    t.equal(decodeInThread(batch), undefined)
    t.ok(expected.equals(batch.target))
  }
})

t.test('answers with what can be sent to another thread', async (t) => {
  const failure = decodeInThread(makeBatch({ clusterSize: 4096, damaged: [1] }).batch)
  t.strictSame(structuredClone(failure), failure)
})
