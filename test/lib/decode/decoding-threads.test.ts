/**
 * Where clusters are decoded: in threads if there are many, which come with the first ones and go with `close`.
 */
import t, { type Test } from 'tap'
import { Decoding } from '../../../lib/decode/decoding.js'
import { makeClusters } from '../../fixtures/batches.js'
import { until } from '../../fixtures/turns.js'
import { runningThreads, startedThreads, workers } from '../../fixtures/worker-threads.js'

// 64 KiB clusters: the least that goes to a thread.
const COUNT = 2
const LENGTH = COUNT * 65536

/** A decoding of two threads that is closed with the test; none of its threads may survive that. */
function twoThreads(t: Test): Decoding {
  const decoding = new Decoding(2, 0)
  t.teardown(() => decoding.close())
  return decoding
}

const targets: [title: string, make: (decoding: Decoding) => Uint8Array][] = [
  ['ordinary memory', () => Buffer.alloc(LENGTH, 0xa5)],
  ['a part of ordinary memory', () => Buffer.alloc(LENGTH + 100, 0xa5).subarray(70, 70 + LENGTH)],
  ['shared memory', () => new Uint8Array(new SharedArrayBuffer(LENGTH)).fill(0xa5)],
  [
    'memory of its own',
    (decoding) =>
      decoding
        .memoryFor(LENGTH)
        .take(2 * LENGTH)
        .fill(0xa5)
        .subarray(0, LENGTH),
  ],
  [
    'a part of it',
    (decoding) =>
      decoding
        .memoryFor(LENGTH)
        .take(3 * LENGTH)
        .fill(0xa5)
        .subarray(70, 70 + LENGTH),
  ],
]

for (const compression of ['zlib', 'zstd'] as const) {
  for (const [title, makeTarget] of targets) {
    t.test(`decodes ${compression} into ${title}`, async (t) => {
      const decoding = twoThreads(t)
      const target = makeTarget(decoding)
      const { clusters, read, expected } = makeClusters({ count: COUNT, compression, target })
      t.equal(await decoding.decode(clusters, read), undefined)
      t.ok(expected.equals(target))
      const around = Buffer.from(target.buffer, Math.max(0, target.byteOffset - 70))
      t.ok(
        around.subarray(0, Math.min(70, target.byteOffset)).every((byte) => byte === 0 || byte === 0xa5),
        'nothing before it',
      )
      t.ok(
        around
          .subarray(Math.min(70, target.byteOffset) + LENGTH)
          .subarray(0, 30)
          .every((byte) => byte === 0 || byte === 0xa5),
        'nor after it',
      )
      t.equal(startedThreads() > 0, true)
    })

    t.test(`names the damaged cluster of ${compression} when it decodes into ${title}`, async (t) => {
      const decoding = twoThreads(t)
      for (const cluster of [0, 1]) {
        const damaged = [cluster, 1]
        const { clusters, read } = makeClusters({ count: COUNT, compression, target: makeTarget(decoding), damaged })
        const failure = await decoding.decode(clusters, read)
        t.equal(failure?.cluster, cluster)
        t.type(failure?.reason, 'string')
      }
      const { clusters, read, expected } = makeClusters({ count: COUNT, compression, target: makeTarget(decoding) })
      t.equal(await decoding.decode(clusters, read), undefined, 'the next ones are decoded')
      t.ok(expected.equals(clusters.target))
    })
  }
}

t.test('threads come with the first large batch, no more than asked for, and are gone after close', async (t) => {
  const before = startedThreads()
  const decoding = new Decoding(2, 0)
  t.equal(startedThreads(), before, 'none before anything is decoded')
  const all = Array.from({ length: 12 }, (_, index) =>
    makeClusters({ count: COUNT, compression: index % 2 === 0 ? 'zlib' : 'zstd' }),
  )
  const failures = await Promise.all(all.map(({ clusters, read }) => decoding.decode(clusters, read)))
  t.strictSame(failures, new Array(12).fill(undefined))
  t.ok(all.every(({ clusters, expected }) => expected.equals(clusters.target)))
  t.equal(startedThreads() - before, 2)
  t.ok(runningThreads() >= 2)
  await decoding.close()
  t.equal(runningThreads(), 0)
})

t.test('threads come when enough was decoded without them, and no more than have something to do', async (t) => {
  const before = startedThreads()
  const decoding = new Decoding(2, 3 * LENGTH)
  for (const count of [0, 0, 0, 1, 1]) {
    const { clusters, read, expected } = makeClusters({ count: COUNT })
    t.equal(await decoding.decode(clusters, read), undefined)
    t.ok(expected.equals(clusters.target))
    t.equal(startedThreads() - before, count)
  }
  await decoding.close()
})

t.test('what was begun in the calling thread’s memory is decoded there', async (t) => {
  const before = startedThreads()
  const decoding = new Decoding(2, 1)
  const target = decoding.memoryFor(LENGTH).take(LENGTH).subarray(0, LENGTH)
  const [other, own] = [makeClusters({ count: COUNT }), makeClusters({ count: COUNT, target })]
  t.equal(await decoding.decode(other.clusters, other.read), undefined)
  t.equal(await decoding.decode(own.clusters, own.read), undefined)
  t.ok(own.expected.equals(target))
  t.equal(startedThreads(), before)
  await decoding.close()
})

t.test('shares the work among all threads', async (t) => {
  const decoding = twoThreads(t)
  const memories = new Set<unknown>()
  const all = Array.from({ length: 6 }, () => {
    memories.add(decoding.memoryFor(LENGTH))
    const { clusters, read } = makeClusters({ count: COUNT })
    return decoding.decode(clusters, read)
  })
  t.equal(memories.size, 2)
  t.strictSame(await Promise.all(all), new Array(6).fill(undefined))
})

t.test('small batches are decoded in the calling thread beside large ones', async (t) => {
  const before = startedThreads()
  const decoding = twoThreads(t)
  const [small, large] = [makeClusters({ clusterSize: 4096 }), makeClusters({ count: COUNT })]
  const failures = await Promise.all([large, small].map(({ clusters, read }) => decoding.decode(clusters, read)))
  t.strictSame(failures, [undefined, undefined])
  t.ok(small.expected.equals(small.clusters.target) && large.expected.equals(large.clusters.target))
  t.equal(startedThreads() - before, 1, 'only the large one needed a thread')
})

t.test('a small part of memory that belongs to a thread is decoded into by the calling one', async (t) => {
  const decoding = twoThreads(t)
  const target = decoding
    .memoryFor(LENGTH)
    .take(LENGTH)
    .subarray(4096, 4096 * 5)
  const { clusters, read, expected } = makeClusters({ clusterSize: 4096, target })
  t.equal(await decoding.decode(clusters, read), undefined)
  t.ok(expected.equals(target))
})

t.test('what is taken for a batch is given back, whatever happens', async (t) => {
  const decoding = twoThreads(t)
  const places = null as unknown as Uint32Array
  const run = async (): Promise<void> => {
    const made = makeClusters({ count: COUNT })
    const damaged = makeClusters({ count: COUNT, damaged: [1] })
    t.equal(await decoding.decode(made.clusters, made.read), undefined)
    t.equal((await decoding.decode(damaged.clusters, damaged.read))?.cluster, 1)
    await t.rejects(decoding.decode({ ...made.clusters, places }, made.read), TypeError)
    await t.rejects(decoding.decode(made.clusters, () => Promise.reject(new Error('gone'))))
  }
  await run()
  const [one, other] = [decoding.memoryFor(LENGTH).take(1), decoding.memoryFor(LENGTH).take(LENGTH)]
  for (let turn = 0; turn < 20; turn++) await run()
  const length = one.buffer.byteLength + other.buffer.byteLength
  t.ok(length <= 2 * 3 * 2 ** 22, `${length} bytes`)
})

t.test('an error in a thread that is not about the bytes is passed on, and the thread goes on', async (t) => {
  const decoding = twoThreads(t)
  const { clusters, read, expected } = makeClusters({ count: COUNT })
  await t.rejects(decoding.decode({ ...clusters, places: null as unknown as Uint32Array }, read), TypeError)
  t.equal(await decoding.decode(clusters, read), undefined)
  t.ok(expected.equals(clusters.target))
})

t.test('goes on when a thread has died while it had nothing to do', async (t) => {
  const decoding = new Decoding(1, 0)
  const decode = async (): Promise<boolean> => {
    const { clusters, read, expected } = makeClusters({ count: COUNT })
    return (await decoding.decode(clusters, read)) === undefined && expected.equals(clusters.target)
  }
  t.ok(await decode())
  // As when it runs out of memory.
  workers.at(-1)!.emit('error', new Error('made up by a test'))
  t.ok(await decode())
  t.ok(await decode())
  await decoding.close()
  await until(() => runningThreads() === 0)
  t.equal(runningThreads(), 0)
})

t.test('no thread is left after all this', async (t) => {
  t.ok(startedThreads() > 0)
  t.equal(runningThreads(), 0)
})
