/** The command's young generation stays small, in its own thread and after others have been started. */
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { start } from '../fixtures/run-command.js'

const module = fileURLToPath(new URL('../../bin/small-heap.js', import.meta.url))

// What survives makes the young generation grow.
const SCRIPT = `
import { getHeapSpaceStatistics } from 'node:v8'
import { Worker } from 'node:worker_threads'
import { once } from 'node:events'
import { keepHeapSmall } from ${JSON.stringify(module)}
if (process.argv[2] !== 'never') keepHeapSmall(...(process.argv[2] === undefined ? [] : [process.argv[2]]))
await once(new Worker('', { eval: true }), 'exit')
const kept = []
for (let i = 0; i < 2e6; i++) {
  kept.push({ i })
  if (kept.length > 1e5) kept.length = 0
}
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
  t.ok(grown >= 16, `${grown} MiB without it`)
})

t.test('a version of Node that nobody has tried is left alone', async (t) => {
  const grown = await youngMib(t, '27.0.0')
  t.ok(grown >= 16, `${grown} MiB`)
})
