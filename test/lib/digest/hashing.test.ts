/**
 * Hashing in this thread and in another, and what becomes of it if that thread dies or cannot start.
 */
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { InlineHashing, ThreadHashing, type Hashing } from '../../../lib/digest/hashing.js'
import { pattern } from '../../fixtures/patterns.js'
import { Gate, settling, turns, until } from '../../fixtures/turns.js'
import { runningThreads, startedThreads, workers } from '../../fixtures/worker-threads.js'

const unexpected = (error: unknown): void => {
  throw error
}

const kinds: [string, (algorithm: string) => Hashing][] = [
  ['in this thread', (algorithm) => new InlineHashing(algorithm)],
  ['in a thread of its own', (algorithm) => new ThreadHashing(algorithm, unexpected)],
]

for (const [where, hashingOf] of kinds) {
  t.test(`hashes ${where}, in order`, async (t) => {
    const startedBefore = startedThreads()
    const hashing = hashingOf('sha1')
    const memory = new Uint8Array(new SharedArrayBuffer(200_000))
    memory.set(pattern(1, 200_000))
    const expected = createHash('sha1')
    let before: Promise<void> | undefined
    for (let position = 0; position < 200_000; position += 5000) {
      const piece = memory.subarray(position, position + 4000)
      const adding = hashing.add({ position, pieces: [piece, 1000] })
      expected.update(piece).update(Buffer.alloc(1000))
      // Always two of them.
      await before
      before = adding
    }
    await before
    t.equal(await hashing.finish(200_000), expected.digest('hex'))
    await hashing.close()
    t.equal(runningThreads(), 0)
    t.equal(startedThreads() - startedBefore, where === 'in this thread' ? 0 : 1)
  })
}

t.test('a batch is answered when it is hashed, not with the one after it', async (t) => {
  const hashing = new ThreadHashing('sha256', unexpected)
  t.teardown(() => hashing.close())
  await hashing.add({ position: 0, pieces: [1] })
  const first = hashing.add({ position: 1, pieces: [2 ** 20] })
  const second = hashing.add({ position: 2 ** 20 + 1, pieces: [2 ** 40] })
  await first
  t.notOk(settling(second)())
  second.catch(() => undefined)
})

t.test('bytes in shared memory are hashed where they lie', async (t) => {
  const hashing = new ThreadHashing('sha256', unexpected)
  t.teardown(() => hashing.close())
  await hashing.add({ position: 0, pieces: [] })
  const memory = new Uint8Array(new SharedArrayBuffer(1000))
  // What has been sent is changed while the thread is busy with something else.
  const zeros = 2 ** 29
  const adding = [hashing.add({ position: 0, pieces: [zeros] }), hashing.add({ position: zeros, pieces: [memory] })]
  await turns()
  memory.fill(1)
  await Promise.all(adding)
  const inline = new InlineHashing('sha256')
  await inline.add({ position: 0, pieces: [zeros, Buffer.alloc(1000, 1)] })
  t.equal(await hashing.finish(zeros + 1000), await inline.finish(zeros + 1000))
})

t.test('is closed at any moment, in the middle of zeros as well', async (t) => {
  for (const [when, wait] of [
    ['at once', (): Promise<void> => Promise.resolve()],
    ['once the thread is there', (hashing: Hashing): Promise<void> => hashing.add({ position: 0, pieces: [] })],
  ] as const) {
    const hashing = new ThreadHashing('sha256', unexpected)
    await wait(hashing)
    const adding = hashing.add({ position: 0, pieces: [2 ** 53 - 1] })
    const failing = t.rejects(adding, when)
    await hashing.close()
    await failing
    t.equal(runningThreads(), 0)
  }
  const idle = new ThreadHashing('sha256', unexpected)
  await idle.close()
  t.equal(runningThreads(), 0)
})

t.test('fails if its thread dies', async (t) => {
  const hashing = new ThreadHashing('sha256', unexpected)
  t.teardown(() => hashing.close())
  await hashing.add({ position: 0, pieces: [10] })
  const adding = hashing.add({ position: 10, pieces: [2 ** 50] })
  const failing = t.rejects(adding, /exited/)
  await workers.at(-1)!.terminate()
  await failing
  // The next thread knows nothing of what the first one has hashed.
  t.equal(runningThreads(), 0)
  await t.rejects(hashing.add({ position: 10, pieces: [1] }), /lost its place: 0 bytes are hashed, not 10/)
  await t.rejects(hashing.finish(10), /lost its place/)
})

t.test('fails if its thread dies while it has nothing to do', async (t) => {
  const heard = new Gate<Error>()
  const hashing = new ThreadHashing('sha256', heard.open)
  t.teardown(() => hashing.close())
  await hashing.add({ position: 0, pieces: [10] })
  const worker = workers.at(-1)!
  const fault = new Error('a fault in the thread')
  worker.emit('error', fault)
  t.equal(await heard.opened, fault)
  await until(() => worker.threadId === -1)
  await t.rejects(hashing.finish(10), /lost its place/)
})

t.test('fails if no thread can be started', async (t) => {
  const refused = new Error('no more threads')
  const piscina = {
    Piscina: function Piscina() {
      throw refused
    },
  }
  const { ThreadHashing } = await t.mockImport<typeof import('../../../lib/digest/hashing.js')>(
    // As it is run: what is mocked is not found by the places of the sources.
    fileURLToPath(new URL('../../../lib/digest/hashing.js', import.meta.url)),
    { piscina },
  )
  const [idle, used] = [new ThreadHashing('sha256', unexpected), new ThreadHashing('sha256', unexpected)]
  await t.rejects(used.add({ position: 0, pieces: [1] }), refused)
  await t.rejects(used.finish(1), refused)
  await t.resolves(Promise.all([idle.close(), used.close()]))
})
