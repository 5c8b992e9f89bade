/**
 * Where clusters are decoded: here and now if the batch is small or threads are not wanted.
 */
import t from 'tap'
import { Decoding } from '../../../lib/decode/decoding.js'
import { makeBatch } from '../../fixtures/batches.js'
import { runningThreads, startedThreads } from '../../fixtures/worker-threads.js'

const compressions = ['zlib', 'zstd'] as const

for (const compression of compressions) {
  t.test(`decodes ${compression} without threads, however large the batch`, async (t) => {
    const decoding = new Decoding(0)
    for (const count of [1, 8]) {
      const { batch, expected } = makeBatch({ compression, count })
      t.equal(await decoding.decode(batch), undefined)
      t.ok(expected.equals(batch.target), `${count} clusters`)
    }
    await decoding.close()
    t.equal(startedThreads(), 0)
  })

  t.test(`names the first damaged cluster of ${compression} without threads`, async (t) => {
    const decoding = new Decoding(0)
    const failure = await decoding.decode(makeBatch({ compression, count: 8, damaged: [5, 6] }).batch)
    t.equal(failure?.cluster, 5)
    t.type(failure?.reason, 'string')
    const { batch, expected } = makeBatch({ compression, count: 8 })
    t.equal(await decoding.decode(batch), undefined, 'the next one is decoded')
    t.ok(expected.equals(batch.target))
  })
}

t.test('decodes batches of both types at once', async (t) => {
  const decoding = new Decoding(0)
  const batches = [...compressions, ...compressions].map((compression) => makeBatch({ compression, clusterSize: 4096 }))
  t.strictSame(await Promise.all(batches.map(({ batch }) => decoding.decode(batch))), new Array(4).fill(undefined))
  t.ok(batches.every(({ batch, expected }) => expected.equals(batch.target)))
})

t.test('starts no thread for batches below 128 KiB', async (t) => {
  const decoding = new Decoding(2)
  const { batch, expected } = makeBatch({
    clusterSize: 4096,
    count: 31,
    memory: (length) => decoding.memory.take(length),
  })
  t.equal(await decoding.decode(batch), undefined)
  t.ok(expected.equals(batch.target))
  t.equal(startedThreads(), 0)
  await decoding.close()
})

t.test('gives out memory that threads can see if there are to be threads', async (t) => {
  t.ok(new Decoding(1).memory.take(1).buffer instanceof SharedArrayBuffer)
  t.ok(new Decoding(0).memory.take(1).buffer instanceof ArrayBuffer)
})

t.test('lets an error pass that is not about the bytes', async (t) => {
  const { batch } = makeBatch({ count: 1 })
  const bug = { ...batch, stored: undefined as unknown as Uint8Array }
  await t.rejects(new Decoding(0).decode(bug), TypeError)
})

t.test('can be closed more than once, whether anything was decoded or not', async (t) => {
  const decoding = new Decoding(2)
  await decoding.close()
  await t.resolves(decoding.close())
  t.equal(runningThreads(), 0)
})
