/**
 * Lanes whose threads come, die and cannot start.
 */
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { InlineLane, ThreadLane } from '../../../lib/decode/lane.js'
import { makeBatch } from '../../fixtures/batches.js'
import { runningThreads, startedThreads, workers } from '../../fixtures/worker-threads.js'

t.test('an inline lane decodes in the calling thread', async (t) => {
  const lane = new InlineLane()
  const { batch, target, expected } = await makeBatch(lane.memory)
  t.equal(await lane.decode(batch), undefined)
  t.ok(expected.equals(target))
  t.equal(startedThreads(), 0)
})

t.test('a thread lane whose thread has died decodes in the next one', async (t) => {
  const lane = new ThreadLane()
  const first = await makeBatch(lane.memory)
  t.equal(await lane.decode(first.batch), undefined)
  await workers[0]!.terminate()
  const second = await makeBatch(lane.memory)
  t.equal(await lane.decode(second.batch), undefined)
  t.ok(second.expected.equals(second.target))
  t.equal(startedThreads(), 2)
  await lane.close()
  t.equal(runningThreads(), 0)
})

t.test('a thread that cannot start fails what it was to decode, and nothing else', async (t) => {
  const refused = new Error('no more threads')
  const piscina = {
    Piscina: function Piscina() {
      throw refused
    },
  }
  const { ThreadLane } = await t.mockImport<typeof import('../../../lib/decode/lane.js')>(
    // As it is run: what is mocked is not found by the places of the sources.
    fileURLToPath(new URL('../../../lib/decode/lane.js', import.meta.url)),
    { piscina },
  )
  const [idle, used] = [new ThreadLane(), new ThreadLane()]
  const { batch } = await makeBatch(used.memory)
  await t.rejects(used.decode(batch), refused)
  await t.resolves(Promise.all([idle.close(), used.close()]))
})
