/**
 * Where clusters are decoded: in threads if the batch is large, which come with the first one and go with `close`.
 */
import t, { type Test } from 'tap'
import { Decoding } from '../../../lib/decode/decoding.js'
import { makeBatch, type BatchOptions, type MadeBatch } from '../../fixtures/batches.js'
import { filled } from '../../fixtures/patterns.js'
import { runningThreads, startedThreads } from '../../fixtures/worker-threads.js'

// 64 KiB clusters: the least that goes to a thread.
const COUNT = 2
const LENGTH = COUNT * 65536

/** A decoding of two threads that is closed with the test; none of its threads may survive that. */
function twoThreads(t: Test): Decoding {
  const decoding = new Decoding(2)
  t.teardown(() => decoding.close())
  return decoding
}

const batchFor = ({ memory }: Decoding, options: BatchOptions = {}): MadeBatch =>
  makeBatch({ count: COUNT, memory: (length) => memory.take(length), ...options })

const targets: [title: string, make: () => Uint8Array][] = [
  ['ordinary memory', () => Buffer.alloc(LENGTH, 0xa5)],
  ['a part of ordinary memory', () => Buffer.alloc(LENGTH + 100, 0xa5).subarray(70, 70 + LENGTH)],
  ['shared memory', () => new Uint8Array(new SharedArrayBuffer(LENGTH)).fill(0xa5)],
  ['a part of shared memory', () => new Uint8Array(new SharedArrayBuffer(LENGTH + 100), 70, LENGTH).fill(0xa5)],
]

for (const compression of ['zlib', 'zstd'] as const) {
  for (const [title, makeTarget] of targets) {
    t.test(`decodes ${compression} into ${title}`, async (t) => {
      const decoding = twoThreads(t)
      const target = makeTarget()
      const { batch, expected } = batchFor(decoding, { compression, target })
      t.equal(await decoding.decode(batch), undefined)
      t.ok(expected.equals(target))
      const around = Buffer.from(target.buffer)
      t.ok(
        around.subarray(0, target.byteOffset).every((byte) => byte === 0 || byte === 0xa5),
        'nothing before it',
      )
      t.ok(
        around.subarray(target.byteOffset + LENGTH).every((byte) => byte === 0 || byte === 0xa5),
        'nor after it',
      )
    })

    t.test(`names the damaged cluster of ${compression} when it decodes into ${title}`, async (t) => {
      const decoding = twoThreads(t)
      for (const cluster of [0, 1]) {
        const failure = await decoding.decode(
          batchFor(decoding, { compression, target: makeTarget(), damaged: [cluster, 1] }).batch,
        )
        t.equal(failure?.cluster, cluster)
        t.type(failure?.reason, 'string')
      }
      const { batch, expected } = batchFor(decoding, { compression, target: makeTarget() })
      t.equal(await decoding.decode(batch), undefined, 'the next batch is decoded')
      t.ok(expected.equals(batch.target))
    })
  }
}

t.test('threads come with the first large batch, no more than asked for, and are gone after close', async (t) => {
  const before = startedThreads()
  const decoding = new Decoding(2)
  t.equal(startedThreads(), before, 'none before anything is decoded')
  const batches = Array.from({ length: 12 }, (_, index) =>
    batchFor(decoding, { compression: index % 2 === 0 ? 'zlib' : 'zstd' }),
  )
  const failures = await Promise.all(batches.map(({ batch }) => decoding.decode(batch)))
  t.strictSame(failures, new Array(12).fill(undefined))
  t.ok(batches.every(({ batch, expected }) => expected.equals(batch.target)))
  t.equal(startedThreads() - before, 2)
  t.ok(runningThreads() >= 2)
  await decoding.close()
  t.equal(runningThreads(), 0)
})

t.test('small batches are decoded in the calling thread beside large ones', async (t) => {
  const decoding = twoThreads(t)
  const [small, large] = [batchFor(decoding, { clusterSize: 4096 }), batchFor(decoding)]
  t.strictSame(await Promise.all([decoding.decode(large.batch), decoding.decode(small.batch)]), [undefined, undefined])
  t.ok(small.expected.equals(small.batch.target) && large.expected.equals(large.batch.target))
})

/** Counts what is taken from a decoding's memory and not given back. */
function countTaken({ memory }: Decoding): () => number {
  const out = new Set<Uint8Array>()
  const { take, give } = memory
  memory.take = (length) => {
    const piece = take.call(memory, length)
    out.add(piece)
    return piece
  }
  memory.give = (piece) => {
    out.delete(piece)
    give.call(memory, piece)
  }
  return () => out.size
}

t.test('what is taken to decode into ordinary memory is given back, whatever happens', async (t) => {
  const decoding = twoThreads(t)
  const made = batchFor(decoding)
  const damaged = batchFor(decoding, { damaged: [1] })
  const taken = countTaken(decoding)
  t.equal(await decoding.decode(made.batch), undefined)
  t.equal((await decoding.decode(damaged.batch))?.cluster, 1)
  t.equal(taken(), 0)
  const ranges = undefined as unknown as Uint32Array
  await t.rejects(decoding.decode({ ...made.batch, ranges }), TypeError)
  t.equal(taken(), 0)
})

t.test('an error in a thread that is not about the bytes is passed on, and the thread goes on', async (t) => {
  const decoding = twoThreads(t)
  const target = new Uint8Array(new SharedArrayBuffer(LENGTH))
  const { batch, expected } = batchFor(decoding, { target })
  await t.rejects(decoding.decode({ ...batch, ranges: undefined as unknown as Uint32Array }), TypeError)
  t.equal(await decoding.decode(batch), undefined)
  t.ok(expected.equals(target))
})

t.test('a target in ordinary memory is written only when its batch is done', async (t) => {
  const decoding = twoThreads(t)
  const { batch, expected } = batchFor(decoding)
  const decoded = decoding.decode(batch)
  t.ok(filled(0xa5, LENGTH).equals(batch.target))
  await decoded
  t.ok(expected.equals(batch.target))
})

t.test('no thread is left after all this', async (t) => {
  t.ok(startedThreads() > 0)
  t.equal(runningThreads(), 0)
})
