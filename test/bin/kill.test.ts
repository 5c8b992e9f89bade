/**
 * Killed at any moment: the folder holds the old target or the complete new one, and a temporary file at most.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import fc from 'fast-check'
import t from 'tap'
import { buildImage } from '../fixtures/image-builder.js'
import { partsIn } from '../fixtures/part-file.js'
import { pattern } from '../fixtures/patterns.js'
import { runs } from '../fixtures/random-images.js'
import { startCommand } from '../fixtures/run-command.js'

const KILLS = 200
const AT_ONCE = 4

const image = buildImage({
  clusters: Array.from({ length: 320 }, (_, i) => [i, { kind: 'data', bytes: pattern(i, 65536) }]),
})

t.test(`killed ${KILLS} times`, async (t) => {
  const lanes = Array.from({ length: AT_ONCE }, (_, lane) => `${lane}`)
  const folder = t.testdir(Object.fromEntries(lanes.map((lane) => [lane, { 'a.qcow2': image.bytes }])))
  const run = (lane: string): ReturnType<typeof startCommand> =>
    startCommand(['--force', 'a.qcow2', 'out.img'], { cwd: join(folder, lane) })
  // How long a run takes beside others: its first third is the start of Node, and it may take longer than the next.
  const started = performance.now()
  for (const { code } of await Promise.all(lanes.map((lane) => run(lane).ended))) t.equal(code, 0)
  const whole = performance.now() - started
  const moments = fc.sample(fc.double({ min: 0.3, max: 1.1, noNaN: true }), { ...runs(1), numRuns: KILLS })

  const seen = { old: 0, new: 0, parts: 0 }
  const kill = async (lane: string, moment: number): Promise<void> => {
    const cwd = join(folder, lane)
    writeFileSync(join(cwd, 'out.img'), 'old')
    const { child, ended } = run(lane)
    await wait(moment * whole)
    child.kill('SIGKILL')
    await ended
    const found = readFileSync(join(cwd, 'out.img'))
    const isOld = found.equals(Buffer.from('old'))
    seen[isOld ? 'old' : 'new']++
    if (!isOld && !found.equals(image.guest)) t.fail(`a target of ${found.length} bytes, killed at ${moment}`)
    const parts = partsIn(cwd)
    seen.parts += parts.length
    const others = readdirSync(cwd).filter((name) => !parts.includes(name))
    if (parts.length > 1 || others.sort().join() !== 'a.qcow2,out.img') t.fail(`${others.join()}, killed at ${moment}`)
    for (const name of parts) rmSync(join(cwd, name))
  }
  await Promise.all(
    lanes.map(async (lane, first) => {
      for (let i = first; i < KILLS; i += AT_ONCE) await kill(lane, moments[i]!)
    }),
  )
  t.equal(seen.old + seen.new, KILLS)
  t.ok(seen.old > 0 && seen.parts > 0, `${seen.old} times the old target, ${seen.new} the new one; ${seen.parts} parts`)
})
