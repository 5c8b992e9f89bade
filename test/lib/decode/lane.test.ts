/**
 * Lanes whose threads come, die and cannot start.
 */
import { EventEmitter } from 'node:events'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { InlineLane, ThreadLane } from '../../../lib/decode/lane.js'
import { makeBatch } from '../../fixtures/batches.js'
import { runningThreads, startedThreads, workers } from '../../fixtures/worker-threads.js'
import { until } from '../../fixtures/turns.js'

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

/** The module with another pool; what is mocked is not found by the places of the sources, hence as it is run. */
const laneWith = (t: Test, Piscina: unknown): Promise<typeof import('../../../lib/decode/lane.js')> =>
  t.mockImport(fileURLToPath(new URL('../../../lib/decode/lane.js', import.meta.url)), { piscina: { Piscina } })

t.test(
  'a thread that dies while it has nothing to do fails what waits for the next one, and not the process',
  async (t) => {
    const pools: IdlePool[] = []
    /** A pool whose thread is not ready yet: it does nothing, and drops everything once it is destroyed, as the real one. */
    class IdlePool extends EventEmitter {
      readonly queue: ((error: Error) => void)[] = []
      destroyed = 0
      constructor() {
        super()
        pools.push(this)
      }
      run(): Promise<never> {
        return new Promise((_resolve, reject) => {
          this.queue.push(reject)
        })
      }
      destroy(): Promise<void> {
        this.destroyed++
        for (const reject of this.queue.splice(0)) reject(new Error('terminated'))
        return Promise.resolve()
      }
    }
    const { ThreadLane } = await laneWith(t, IdlePool)
    const lane = new ThreadLane()
    const { batch } = await makeBatch(lane.memory)
    const waiting = Promise.allSettled([lane.decode(batch), lane.decode(batch)])
    await until(() => pools[0]?.queue.length === 2)
    const death = new Error('out of memory')
    pools[0]!.emit('error', death)
    pools[0]!.emit('error', new Error('its end'))
    t.same(
      (await waiting).map((result) => result.status === 'rejected' && (result.reason as Error)),
      [death, death],
    )
    t.equal(pools[0]!.destroyed, 1, 'the thread that takes its place is not needed')
    t.ok(lane.isDead)
    await t.rejects(lane.decode(batch), death)
    await lane.close()
    t.equal(pools[0]!.destroyed, 2, 'nor one that came since')
  },
)

t.test('a thread that cannot start fails what it was to decode, and nothing else', async (t) => {
  const refused = new Error('no more threads')
  const { ThreadLane } = await laneWith(t, function Piscina() {
    throw refused
  })
  const [idle, used] = [new ThreadLane(), new ThreadLane()]
  const { batch } = await makeBatch(used.memory)
  await t.rejects(used.decode(batch), refused)
  await t.resolves(Promise.all([idle.close(), used.close()]))
})
