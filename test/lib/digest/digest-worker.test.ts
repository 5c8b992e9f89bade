/**
 * What a hashing thread does, here in this one; as it is started, hashing.test.ts sees it.
 */
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { pattern } from '../../fixtures/patterns.js'

t.test('hashes with the algorithm that it was started with', async (t) => {
  for (const workerData of ['sha256', 'md5']) {
    const { add, finish } = await t.mockImport<typeof import('../../../lib/digest/digest-worker.js')>(
      fileURLToPath(new URL('../../../lib/digest/digest-worker.js', import.meta.url)),
      { 'node:worker_threads': { workerData } },
    )
    add({ position: 0, pieces: [pattern(1, 100), 5] })
    add({ position: 105, pieces: [3] })
    const expected = createHash(workerData).update(pattern(1, 100)).update(Buffer.alloc(8)).digest('hex')
    t.equal(finish(108), expected)
  }
})
