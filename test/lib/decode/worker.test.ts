/**
 * What a decoding thread does, in a thread as a lane starts it.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { getPriority, setPriority } from 'node:os'
import t from 'tap'
import { LaneMemory } from '../../../lib/decode/lane-memory.js'
import { ThreadLane } from '../../../lib/decode/lane.js'
import { decode } from '../../../lib/decode/worker.js'
import { makeBatch } from '../../fixtures/batches.js'

t.test('decodes batches of both types in the memory that it was started with', async (t) => {
  const lane = new ThreadLane()
  t.teardown(() => lane.close())
  for (const compression of ['zlib', 'zstd', 'zlib'] as const) {
    const { batch, target, expected } = await makeBatch(lane.memory, { compression })
    t.equal(await lane.decode(batch), undefined)
    t.ok(expected.equals(target), compression)
    const damaged = await makeBatch(lane.memory, { compression, damaged: [1] })
    t.equal((await lane.decode(damaged.batch))?.cluster, 1)
  }
})

/** How much less important than others each thread of this process is. */
function nicenesses(): Map<string, number> {
  const folder = '/proc/self/task'
  return new Map(
    readdirSync(folder).map((id) => {
      const stat = readFileSync(`${folder}/${id}/stat`, 'utf8')
      // The name in brackets may hold anything; the 17th field behind it is the niceness.
      return [id, Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16])]
    }),
  )
}

const noTasks = existsSync('/proc/self/task') ? false : 'threads can be told apart on Linux only'

t.test('leaves reading and writing the first turn', { skip: noTasks }, async (t) => {
  // As with nice(1), below which nobody but root gets.
  setPriority(Math.min(16, getPriority() + 5))
  const before = nicenesses()
  const own = before.get(String(process.pid))!
  const lane = new ThreadLane()
  t.teardown(() => lane.close())
  const { batch } = await makeBatch(lane.memory)
  await lane.decode(batch)
  const after = [...nicenesses()].filter(([id]) => !before.has(id))
  t.ok(
    after.some(([, niceness]) => niceness === Math.min(19, own + 3)),
    'the thread is less important',
  )
  t.equal(nicenesses().get(String(process.pid)), own, 'and no other is')
})

t.test('has no memory to decode in outside of a thread', async (t) => {
  const { batch } = await makeBatch(new LaneMemory())
  t.throws(() => decode(batch), { name: 'LinkError' })
})
