/**
 * Where sectors are decrypted: here and now if there are few or threads are not wanted, else in threads, in place or by a
 * copy; and what becomes of the keys.
 */
import t, { type Test } from 'tap'
import { diskKey, type CipherSpec } from '../../../lib/crypto/cipher.js'
import { Decoding } from '../../../lib/decode/decoding.js'
import { InlineLane, ThreadLane, type Lane } from '../../../lib/decode/lane.js'
import { decrypt } from '../../../lib/decode/worker.js'
import { makeClusters } from '../../fixtures/batches.js'
import { essivKeyOf } from '../../fixtures/naive-sector-cipher.js'
import { pattern } from '../../fixtures/patterns.js'
import { makeRuns, type MadeRuns } from '../../fixtures/sector-runs.js'
import { settling, turns } from '../../fixtures/turns.js'
import { runningThreads, startedThreads, workers } from '../../fixtures/worker-threads.js'

const specs: readonly CipherSpec[] = [
  { mode: 'xts', iv: 'plain64', key: pattern(1, 64), essivKey: undefined },
  { mode: 'cbc', iv: 'essiv', key: pattern(2, 32), essivKey: essivKeyOf(pattern(2, 32), 'sha256') },
]
const keys = specs.map((spec) => diskKey({ ...structuredClone(spec) }))

/** The sample keys, as they were before anything was decrypted with them. */
function keysAreWhole(t: Test): void {
  t.strictSame(
    keys.map(({ spec }) => [Buffer.from(spec.key), spec.essivKey && Buffer.from(spec.essivKey)]),
    specs.map(({ key, essivKey }) => [Buffer.from(key), essivKey && Buffer.from(essivKey)]),
    'the keys are still whole',
  )
}

// 128 KiB, of which a thread is given no less; in runs that are not in the order of their places.
const LARGE = [100, 1, 155]
const SMALL = [100, 1, 154]

interface Made extends MadeRuns {
  readonly target: Uint8Array
}

/** Runs in a part of what `take` gives. */
function made(lengths: readonly number[], which: number, take: (length: number) => Uint8Array): Made {
  const runs = makeRuns(specs[which]!, lengths)
  const { length } = runs.expected
  const target = take(length + 14).subarray(13, 13 + length)
  runs.fill(target)
  return { ...runs, target }
}

const ordinary = (length: number): Uint8Array => new Uint8Array(length)

async function decrypts(t: Test, decoding: Decoding, which: number, { runs, target, expected }: Made): Promise<void> {
  const numbers = runs.slice()
  await decoding.decrypt(keys[which]!, target, runs)
  t.ok(expected.equals(target), specs[which]!.mode)
  t.strictSame(runs, numbers, 'the runs are the caller’s')
}

t.test('decrypts without threads, however much', async (t) => {
  const decoding = new Decoding(0, 0)
  for (const lengths of [[], [1], LARGE, [3000, 2]]) {
    await decrypts(t, decoding, 0, made(lengths, 0, ordinary))
    await decrypts(t, decoding, 1, made(lengths, 1, ordinary))
  }
  await decrypts(
    t,
    decoding,
    0,
    made(LARGE, 0, (length) => decoding.memoryFor(length).take(length)),
  )
  keysAreWhole(t)
  await decoding.close()
  t.equal(startedThreads(), 0)
})

t.test('starts no thread for less than 128 KiB, nor for what begins a disk', async (t) => {
  const small = new Decoding(2, 0)
  await decrypts(t, small, 0, made(SMALL, 0, ordinary))
  const beginning = new Decoding(2, 3 * 128 * 1024)
  for (let turn = 0; turn < 3; turn++) {
    await decrypts(t, beginning, 0, made(LARGE, 0, ordinary))
  }
  t.equal(startedThreads(), 0)
  await decrypts(t, beginning, 0, made(LARGE, 0, ordinary))
  t.equal(startedThreads(), 1, 'what was decrypted counts')
  await Promise.all([small.close(), beginning.close()])
  t.equal(runningThreads(), 0)
  keysAreWhole(t)
})

const targets: [title: string, take: (decoding: Decoding) => (length: number) => Uint8Array][] = [
  ['ordinary memory', () => ordinary],
  ['shared memory of others', () => (length) => new Uint8Array(new SharedArrayBuffer(length))],
  ['memory of its own', (decoding) => (length) => decoding.memoryFor(length).take(length)],
]

for (const [title, take] of targets) {
  t.test(`decrypts in a thread, in ${title}`, async (t) => {
    const before = startedThreads()
    const decoding = new Decoding(2, 0)
    t.teardown(() => decoding.close())
    // The first batch of each key brings it, those after that do not.
    for (const which of [0, 1, 0, 1, 1]) {
      await decrypts(t, decoding, which, made(LARGE, which, take(decoding)))
    }
    t.equal(startedThreads() - before, 1)
    keysAreWhole(t)
  })
}

t.test('decrypts in several threads at once, and decodes in them beside that', async (t) => {
  const before = startedThreads()
  const decoding = new Decoding(2, 0)
  t.teardown(() => decoding.close())
  const clusters = Array.from({ length: 4 }, () => makeClusters({ count: 2 }))
  const work = clusters.map(async ({ clusters, read, expected }, index) => {
    const which = index % 2
    await decrypts(t, decoding, which, made(LARGE, which, ordinary))
    t.equal(await decoding.decode(clusters, read), undefined)
    t.ok(expected.equals(clusters.target))
    await decrypts(
      t,
      decoding,
      which,
      made(LARGE, which, (length) => decoding.memoryFor(length).take(length)),
    )
  })
  await Promise.all(work)
  t.equal(startedThreads() - before, 2)
  keysAreWhole(t)
})

t.test('what lies in the calling thread’s memory is decrypted there', async (t) => {
  const before = startedThreads()
  const decoding = new Decoding(2, 1)
  const own = made(LARGE, 0, (length) => decoding.memoryFor(length).take(length))
  await decrypts(t, decoding, 0, made(LARGE, 0, ordinary))
  await decrypts(t, decoding, 0, own)
  t.equal(startedThreads(), before)
  await decoding.close()
})

t.test('a small part of a thread’s memory is decrypted by the calling thread', async (t) => {
  const decoding = new Decoding(2, 0)
  t.teardown(() => decoding.close())
  const taken = decoding.memoryFor(2 ** 18).take(2 ** 18)
  await decrypts(
    t,
    decoding,
    1,
    made([7, 1], 1, () => taken),
  )
})

t.test('takes no memory for what lies in a thread’s already', async (t) => {
  const decoding = new Decoding(1, 0)
  t.teardown(() => decoding.close())
  const memory = decoding.memoryFor(2 ** 20)
  const large = made([12_000], 0, (length) => memory.take(length))
  const before = memory.take(1).buffer.byteLength
  await decrypts(t, decoding, 0, large)
  t.equal(memory.take(1).buffer.byteLength, before)
})

t.test('gives back what it takes for a copy', async (t) => {
  const decoding = new Decoding(1, 0)
  t.teardown(() => decoding.close())
  for (let turn = 0; turn < 60; turn++) {
    await decrypts(t, decoding, 0, made(LARGE, 0, ordinary))
    const unfit = { id: diskKey(specs[0]!).id, spec: { ...specs[0]!, key: pattern(1, 7) } }
    await t.rejects(decoding.decrypt(unfit, ordinary(2 ** 17), Float64Array.of(0, 2 ** 17, 0)), Error)
  }
  const { byteLength } = decoding.memoryFor(2 ** 17).take(1).buffer
  t.ok(byteLength <= 2 * 2 ** 22, `${byteLength} bytes`)
})

t.test('works on no more than 64 MiB at once, and on what is larger alone', async (t) => {
  const decoding = new Decoding(0)
  const order: string[] = []
  const { clusters } = makeClusters({ clusterSize: 512, count: 1 })
  const release: (() => void)[] = []
  const reading = decoding.decode({ ...clusters, storedLength: 64 * 2 ** 20 }, async () => {
    await new Promise<void>((resolve) => {
      release.push(resolve)
    })
    order.push('read')
    throw new Error('enough')
  })
  const { runs, target, expected } = made([1], 0, ordinary)
  const decrypting = decoding.decrypt(keys[0]!, target, runs).then(() => order.push('decrypted'))
  const isDecrypted = settling(decrypting)
  await turns(5)
  t.notOk(isDecrypted(), 'waits for its turn')
  release[0]!()
  await t.rejects(reading, { message: 'enough' })
  await decrypting
  t.strictSame(order, ['read', 'decrypted'])
  t.ok(expected.equals(target))
})

const lanes: [title: string, make: () => Lane & { close?: () => Promise<void> }][] = [
  ['the calling thread', () => new InlineLane()],
  ['a thread of its own', () => new ThreadLane()],
]

for (const [title, make] of lanes) {
  t.test(`a lane of ${title} gets each key once`, async (t) => {
    const lane = make()
    t.teardown(() => lane.close?.())
    const spec = structuredClone(specs[1]!)
    const key = diskKey(spec)
    const take = (length: number): Uint8Array => lane.memory.take(length)
    for (let turn = 0; turn < 2; turn++) {
      const { runs, target, expected } = made([3, 4], 1, take)
      await lane.decrypt(key, target, runs)
      t.ok(expected.equals(target))
      // Had it to be sent again, it would be another one now.
      spec.key.fill(0)
      spec.essivKey!.fill(0)
    }
  })
}

t.test('a thread that comes after one that has died is given the keys again', async (t) => {
  const first = workers.length
  const lane = new ThreadLane()
  t.teardown(() => lane.close())
  const take = (length: number): Uint8Array => lane.memory.take(length)
  const run = async (which: number): Promise<void> => {
    const { runs, target, expected } = made([3, 4], which, take)
    await lane.decrypt(keys[which]!, target, runs)
    t.ok(expected.equals(target))
  }
  await run(0)
  await workers[first]!.terminate()
  await Promise.all([run(0), run(0), run(1)])
  await run(0)
  t.equal(workers.length - first, 2)
  keysAreWhole(t)
})

t.test('what a thread does with a batch needs no thread', async (t) => {
  const { runs, target, expected } = made([2], 0, ordinary)
  const batch = { keyId: -1, spec: structuredClone(specs[0]!), target, runs }
  t.equal(decrypt({ ...batch, spec: undefined }), false)
  t.equal(decrypt(batch), true)
  t.ok(expected.equals(target))
})

t.test('no thread is left after all this', async (t) => {
  t.ok(startedThreads() > 0)
  t.equal(runningThreads(), 0)
})
