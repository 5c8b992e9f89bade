/** The command's young generation stays small, in its own thread and after others have been started. */
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { keepHeapSmall } from '../../bin/small-heap.js'
import { start } from '../fixtures/run-command.js'

const module = fileURLToPath(new URL('../../bin/small-heap.js', import.meta.url))

// What survives makes the young generation grow.
const SCRIPT = `
import { getHeapSpaceStatistics } from 'node:v8'
import { Worker } from 'node:worker_threads'
import { setImmediate } from 'node:timers/promises'
import { keepHeapSmall } from ${JSON.stringify(module)}
if (process.argv[2] !== 'never') keepHeapSmall(...(process.argv[2] === undefined ? [] : [process.argv[2]]))
const kept = []
const allocate = (count) => {
  for (let i = 0; i < count; i++) {
    kept.push({ i })
    if (kept.length > 1e5) kept.length = 0
  }
}
let running = 4
for (let i = 0; i < running; i++) new Worker('', { eval: true }).on('exit', () => running--)
while (running > 0) {
  allocate(1e4)
  await setImmediate()
}
allocate(2e6)
const { space_size } = getHeapSpaceStatistics().find((space) => space.space_name === 'new_space')
process.stdout.write(String(space_size / 2 ** 20))
`

/** MiB of the young generation of a process that has allocated a lot. */
async function youngMib(t: Test, ...words: string[]): Promise<number> {
  const folder = t.testdir({ 'a.mjs': SCRIPT })
  const { stdout, stderr, code } = await start(process.execPath, ['a.mjs', ...words], { cwd: folder }).ended
  t.strictSame([code, stderr], [0, ''])
  return Number(stdout.toString())
}

t.test('stays as it was, which it otherwise does not', async (t) => {
  const [small, grown] = [await youngMib(t), await youngMib(t, 'never')]
  t.ok(small > 0 && small <= 4, `${small} MiB`)
  t.ok(grown >= 3 * small, `${grown} MiB without it`)
})

t.test('a version of Node that nobody has tried is left alone', async (t) => {
  const grown = await youngMib(t, '27.0.0')
  t.ok(grown > 4, `${grown} MiB`)
})

t.test('who has a wish for the heap gets it', async (t) => {
  const { NODE_OPTIONS } = process.env
  t.teardown(() => {
    if (NODE_OPTIONS === undefined) delete process.env['NODE_OPTIONS']
    else process.env['NODE_OPTIONS'] = NODE_OPTIONS
  })
  process.env['NODE_OPTIONS'] = '--max-semi-space-size=64'
  keepHeapSmall()
  delete process.env['NODE_OPTIONS']
  keepHeapSmall('27.1.0')
  t.equal(process.listenerCount('worker'), 0)
  keepHeapSmall()
  t.equal(process.listenerCount('worker'), 1)
  const worker = new Worker('', { eval: true })
  await once(worker, 'exit')
  t.equal(worker.listenerCount('online'), 0, 'the flag was set again')
})
