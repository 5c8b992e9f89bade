/**
 * Told to end in the middle: no temporary file stays, an old target is as it was, and the exit code names the signal.
 */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import { endlessImage } from '../fixtures/endless-image.js'
import { partOf, partsIn } from '../fixtures/part-file.js'
import { missingPrograms, startCommand, type Ended } from '../fixtures/run-command.js'

const image = endlessImage()

const SIGNALS = [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const

const saysSo = (signal: string, ended: Ended): boolean => ended.stderr === `qcow2-to-raw: interrupted by ${signal}\n`

for (const [signal, exitCode] of SIGNALS) {
  for (const [moment, bytes] of [
    ['as soon as there is a temporary file', 0],
    ['in the middle of the data', 4 * 2 ** 20],
  ] as const) {
    t.test(`${signal} ${moment} leaves the folder as it was`, async (t) => {
      for (const words of [[], ['--force', '--threads', '0']]) {
        const before = words.length > 0 ? ['a.qcow2', 'old.img'] : ['a.qcow2']
        const cwd = t.testdir({ 'a.qcow2': image, ...(words.length > 0 && { 'old.img': 'old' }) })
        const { child, ended } = startCommand([...words, 'a.qcow2', 'old.img'], { cwd })
        await partOf(cwd, bytes, ended)
        child.kill(signal)
        const how = await ended
        t.equal(how.code, exitCode)
        t.ok(saysSo(signal, how), how.stderr)
        t.same(readdirSync(cwd).sort(), before)
        t.ok(words.length === 0 || readFileSync(join(cwd, 'old.img'), 'utf8') === 'old')
      }
    })
  }

  t.test(`${signal} ends it while nobody takes what it writes`, async (t) => {
    const cwd = t.testdir({ 'a.qcow2': image })
    const { child, ended } = startCommand(['a.qcow2'], { cwd, isCovered: true })
    child.stdout!.once('data', () => child.stdout!.pause())
    await once(child.stdout!, 'pause')
    child.kill(signal)
    // The rest of what is in the pipe is read, or the end of the stream would not come.
    await once(child, 'exit')
    child.stdout!.resume()
    const how = await ended
    t.equal(how.code, exitCode)
    t.ok(saysSo(signal, how), how.stderr)
  })
}

t.test('a second signal does not keep it from cleaning up', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': image, 'old.img': 'old' })
  const { child, ended } = startCommand(['--force', 'a.qcow2', 'old.img'], { cwd })
  await partOf(cwd, 2 ** 20, ended)
  child.kill('SIGINT')
  child.kill('SIGINT')
  child.kill('SIGTERM')
  child.kill('SIGHUP')
  const how = await ended
  // Signals that are pending at the same time may come in another order.
  t.ok([129, 130, 143].includes(how.code ?? 0), `exit code ${how.code}`)
  t.match(how.stderr, /^qcow2-to-raw: interrupted by SIG(INT|TERM|HUP)\n$/)
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'old.img'])
  t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
})

t.test('SIGKILL leaves a temporary file at most, and the old target', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': image, 'old.img': 'old' })
  const { child, ended } = startCommand(['--force', 'a.qcow2', 'old.img'], { cwd })
  await partOf(cwd, 2 ** 20, ended)
  child.kill('SIGKILL')
  const how = await ended
  t.equal(how.signal, 'SIGKILL')
  t.same(
    readdirSync(cwd).sort(),
    [...partsIn(cwd), 'a.qcow2', 'old.img'].sort(),
    'nothing under a name that somebody could take for the disk',
  )
  t.equal(partsIn(cwd).length, 1)
  t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
})

t.test(
  'SIGINT ends it while a FIFO has a reader that does not read on',
  { skip: missingPrograms('mkfifo') },
  async (t) => {
    const cwd = t.testdir({ 'a.qcow2': image })
    const fifo = join(cwd, 'fifo')
    t.equal(spawnSync('mkfifo', [fifo]).status, 0)
    const { child, ended } = startCommand(['a.qcow2', 'fifo'], { cwd })
    // Without O_NONBLOCK this would wait for the command to open the other end; it does not matter who comes first.
    const reader = openSync(fifo, constants.O_RDONLY)
    t.teardown(() => closeSync(reader))
    t.ok(readSync(reader, Buffer.alloc(1)) === 1)
    child.kill('SIGINT')
    const how = await ended
    t.equal(how.code, 130)
    t.ok(saysSo('SIGINT', how), how.stderr)
  },
)

/** Whether a process handles a signal by itself; Node handles SIGINT and SIGTERM from its start, SIGHUP not. */
function handlesHangUp(pid: number): boolean {
  const mask = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return mask !== null && (BigInt(`0x${mask[1]!}`) & 1n) === 1n
}

const noFifo = process.platform === 'linux' ? missingPrograms('mkfifo') : 'needs /proc to see when it waits'

t.test('each signal ends it while it waits for somebody to read a FIFO', { skip: noFifo }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': image })
  t.equal(spawnSync('mkfifo', [join(cwd, 'fifo')]).status, 0)
  for (const [signal, exitCode] of SIGNALS) {
    const { child, ended } = startCommand(['a.qcow2', 'fifo'], { cwd })
    while (child.exitCode === null && !handlesHangUp(child.pid!)) {
      await setImmediate()
    }
    child.kill(signal)
    const how = await ended
    t.equal(how.code, exitCode)
    t.ok(saysSo(signal, how), how.stderr)
  }
})
