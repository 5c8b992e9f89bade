/**
 * SIGUSR1 asks how far it has come, as of qemu-img: whatever is shown and done, it is answered, and ends nothing.
 */
import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { constants } from 'node:os'
import t from 'tap'
import { onProgressSignal } from '../../../bin/convert/progress-signal.js'
import { endlessImage } from '../../fixtures/endless-image.js'
import { startServer } from '../../fixtures/http-server.js'
import { dataDisk } from '../../fixtures/mixed-disk.js'
import { partOf } from '../../fixtures/part-file.js'
import { inTerminal, noTerminal } from '../../fixtures/pseudo-terminal.js'
import { startCommand } from '../../fixtures/run-command.js'
import { Gate, until } from '../../fixtures/turns.js'

const noSignal = !('SIGUSR1' in constants.signals) && 'there is no SIGUSR1'
const noProc = process.platform !== 'linux' && 'needs /proc to see when it listens'
const disk = dataDisk(64)
const LINE = /^ {4}\(\d+\.\d\d\/100%\)\n$/

/** What a process has printed on standard error so far. */
function heard(child: ChildProcess): () => string {
  let text = ''
  child.stderr!.on('data', (bytes: Buffer) => (text += bytes.toString()))
  return () => text
}

/** Waits until a process, which must not be covered, answers SIGUSR1 by itself: Node's own thread waits for it without a handler. */
async function answers(child: ChildProcess): Promise<void> {
  const blocked = (): boolean => {
    const mask = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${child.pid!}/status`, 'utf8'))
    // SIGHUP comes after SIGUSR1.
    return mask !== null && (BigInt(`0x${mask[1]!}`) & 1n) === 1n
  }
  await until(() => child.exitCode !== null || blocked())
}

t.test('listens to the signals that the system has', { skip: noSignal }, async (t) => {
  let calls = 0
  const answer = (): void => void (calls += 1)
  const before = process.listenerCount('SIGUSR1')
  onProgressSignal(answer)
  t.equal(process.listenerCount('SIGUSR1'), before + 1)
  t.equal(process.listenerCount('SIGINFO'), 'SIGINFO' in constants.signals ? 1 : 0)
  process.emit('SIGUSR1')
  t.equal(calls, 1)
  process.off('SIGUSR1', answer).off('SIGINFO', answer)
})

for (const words of [[], ['--progress'], ['--no-progress'], ['--quiet'], ['--threads', '0']]) {
  t.test(`prints a line, ${words.join(' ') || 'without options'}`, { skip: noSignal }, async (t) => {
    const cwd = t.testdir({ 'a.qcow2': endlessImage() })
    const { child, ended } = startCommand([...words, 'a.qcow2', 'out.img'], { cwd, isCovered: words.length === 0 })
    const text = heard(child)
    await partOf(cwd, 4 * 2 ** 20, ended)
    for (let i = 1; i <= 3; i++) {
      child.kill('SIGUSR1')
      await until(() => child.exitCode !== null || text().split('\n').length > i)
    }
    t.ok(
      text()
        .split(/(?<=\n)/)
        .every((line) => LINE.test(line)),
      text(),
    )
    child.kill('SIGINT')
    const { code, stderr } = await ended
    t.equal(code, 130)
    t.match(stderr, /\)\nqcow2-to-raw: interrupted by SIGINT\n$/, 'and nothing else: no debugger listens')
  })
}

t.test('prints a line of JSON among others of that kind, --quiet too', { skip: noSignal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': endlessImage() })
  const words = ['--progress', 'json', '--quiet', 'a.qcow2', 'out.img']
  const { child, ended } = startCommand(words, { cwd, isCovered: true })
  const text = heard(child)
  await partOf(cwd, 4 * 2 ** 20, ended)
  child.kill('SIGUSR1')
  await until(() => child.exitCode !== null || text() !== '')
  t.match(JSON.parse(text()), { event: 'progress', phase: 'converting', bytesDone: Number, bytesTotal: 2 ** 39 })
  child.kill('SIGINT')
  t.equal((await ended).code, 130)
})

t.test(
  'counts bytes while standard input is copied, and says nothing of what it does not know',
  { skip: noSignal || noProc },
  async (t) => {
    const cwd = t.testdir()
    const { child, ended } = startCommand(['-', 'out.img'], { cwd, stdio: ['pipe', 'pipe', 'pipe'] })
    const text = heard(child)
    await answers(child)
    child.kill('SIGUSR1')
    await until(() => child.exitCode !== null || text() !== '')
    t.match(text(), /^ {4}\((0\.00\/100%|0 bytes read)\)\n$/)
    child.stdin!.write(disk.bytes.subarray(0, 100_000))
    while (child.exitCode === null && !text().includes('(100000 bytes read)\n')) {
      const before = text()
      child.kill('SIGUSR1')
      await until(() => child.exitCode !== null || text() !== before)
    }
    child.stdin!.end(disk.bytes.subarray(100_000))
    t.equal((await ended).code, 0)
    t.ok(readFileSync(join(cwd, 'out.img')).equals(disk.guest))
  },
)

t.test('knows the percentage of a download', { skip: noSignal }, async (t) => {
  const server = await startServer(t, disk.bytes)
  const gate = new Gate()
  const started = new Gate()
  server.each = async (answer) => {
    answer.status = 200
    answer.headers['accept-ranges'] = undefined
    answer.headers['content-range'] = undefined
    answer.body = disk.bytes
    started.open()
    await gate.opened
  }
  const cwd = t.testdir()
  const { child, ended } = startCommand([server.url().href, 'out.img'], { cwd })
  const text = heard(child)
  await started.opened
  child.kill('SIGUSR1')
  await until(() => child.exitCode !== null || text() !== '')
  t.match(text(), LINE)
  gate.open()
  t.equal((await ended).code, 0)
})

t.test('draws the bar again below it', { skip: noSignal || noTerminal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': endlessImage() })
  const line = `sh -c 'echo $$ > pid; exec "$RUN" "$COMMAND" a.qcow2 out.img'`
  const { child, ended } = inTerminal(line, { cwd, stdio: ['pipe', 'pipe', 'pipe'] })
  const pid = (): number => Number(readFileSync(join(cwd, 'pid'), 'utf8'))
  let shown = ''
  let asked = 0
  child.stdout!.on('data', (bytes: Buffer) => {
    shown += bytes.toString()
    if (asked === 0 && shown.includes('%')) {
      asked += 1
      process.kill(pid(), 'SIGUSR1')
    } else if (asked === 1 && /\/100%\)\r\n.*0% \[/s.test(shown)) {
      asked += 1
      process.kill(pid(), 'SIGTERM')
    }
  })
  t.equal((await ended).code, 143)
  t.match(shown.replaceAll('\u001b', '^'), /\^\[1G\^\[0K {4}\(0\.\d\d\/100%\)\r\n\^\[1G0% \[-+\] /)
})
