/**
 * A signal while a key is derived: nothing stops that, and yet the command ends.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import t from 'tap'
import { luksImage, PASSPHRASE } from '../fixtures/encrypted-image.js'
import { startCommand } from '../fixtures/run-command.js'

// Nearly as much as is allowed: a minute or more.
const { bytes } = luksImage(
  { virtualSize: 65536 },
  { header: { keySlots: { 0: { active: 0x00ac71f3, iterations: 49_000_000, keyMaterialOffset: 8 } } } },
)

/** Clock ticks, hundredths of a second, that a process has used. */
const ticksOf = (pid: number): number =>
  readFileSync(`/proc/${pid}/stat`, 'utf8')
    .split(') ')[1]!
    .split(' ')
    .slice(11, 13)
    .map(Number)
    .reduce((a, b) => a + b)

const noProc = process.platform !== 'linux' && 'how busy a process is can be asked on Linux only'

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  t.test(`${signal} ends the command while it derives a key`, { skip: noProc }, async (t) => {
    const cwd = t.testdir({ 'a.qcow2': bytes, secret: PASSPHRASE })
    const { child, ended } = startCommand(['--passphrase-file', 'secret', 'a.qcow2', 'a.img'], { cwd })
    // Starting takes a fraction of a second; what takes longer is the key.
    while (ticksOf(child.pid!) < 150) await setTimeout(10)
    child.kill(signal)
    const { signal: by, stderr } = await ended
    t.equal(by, signal)
    t.equal(stderr, `qcow2-to-raw: interrupted by ${signal}\n`)
    t.same(readdirSync(cwd), ['a.qcow2', 'secret'])
  })
}
