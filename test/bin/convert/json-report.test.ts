/**
 * --progress json: every line on standard error is an object that says what it is, and the last one how all ended.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { JsonReport } from '../../../bin/convert/json-report.js'
import { NO_STEP, type Step } from '../../../bin/convert/report.js'
import { makeCertificate } from '../../fixtures/certificate.js'
import { legacyImage, luksImage } from '../../fixtures/encrypted-image.js'
import { endlessImage } from '../../fixtures/endless-image.js'
import { startServer, whole } from '../../fixtures/http-server.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { dataDisk } from '../../fixtures/mixed-disk.js'
import { pattern } from '../../fixtures/patterns.js'
import { inTerminal, noTerminal } from '../../fixtures/pseudo-terminal.js'
import { replacedStderr, textIn } from '../../fixtures/replaced-stderr.js'
import {
  missingPrograms,
  runBash,
  runCommand,
  startCommand,
  type Ended,
  type RunOptions,
} from '../../fixtures/run-command.js'

type Line = Readonly<Record<string, unknown>>

const JSON_WORDS = ['--progress', 'json']
const disk = dataDisk(64)

/** The objects of all lines, of which the last one is the result, and no other. */
function linesOf(t: Test, text: string): Line[] {
  t.match(text, /\n$/)
  const lines = text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line)
  t.equal(
    lines.findIndex(({ event }) => event === 'result'),
    lines.length - 1,
  )
  return lines
}

async function run(t: Test, words: readonly string[], options: RunOptions = {}): Promise<Ended & { lines: Line[] }> {
  const ended = await runCommand([...JSON_WORDS, ...words], options)
  const lines = linesOf(t, ended.stderr)
  t.equal(lines.at(-1)!['exitCode'], ended.code)
  return { ...ended, lines }
}

const step = (bytesDone: number, bytesTotal: number | undefined = 100): Step => ({
  ...NO_STEP,
  bytesDone,
  bytesTotal,
})

t.test('tells progress four times a second at most, and whenever it is asked', async (t) => {
  const stream = replacedStderr(t, 2 ** 20)
  let now = 5
  const report = new JsonReport(() => now)
  report.answer()
  for (let done = 0; done < 100; done++) {
    report.progress(step(done))
    now += 0.0625
  }
  report.answer()
  const lines = linesOf(t, `${textIn(stream)}{"event":"result"}\n`).slice(0, -1)
  t.same(lines[0], {
    event: 'progress',
    phase: 'converting',
    bytesDone: 0,
    bytesTotal: null,
    bytesPerSecond: 0,
    secondsLeft: null,
  })
  t.same(
    lines.slice(1).map(({ bytesDone }) => bytesDone),
    [...Array.from({ length: 24 }, (_, i) => (i + 1) * 4), 99],
  )
})

t.test('says nothing after the result', async (t) => {
  const stream = replacedStderr(t, 1000)
  const report = new JsonReport()
  report.failure({ error: new Error('no'), exitCode: 1, words: [], isDebug: false })
  report.answer()
  report.progress(step(10))
  t.match(textIn(stream), /^\{"event":"result"[^\n]*\n$/)
})

t.test('piles nothing up for who does not read', async (t) => {
  const stream = replacedStderr(t, 10)
  let now = 0
  const report = new JsonReport(() => (now += 1))
  for (let done = 0; done < 10; done++) report.progress(step(done))
  t.match(textIn(stream), /^[^\n]*"bytesDone":0[^\n]*\n$/)
  report.progress(step(10))
  t.match(textIn(stream), /"bytesDone":10,/)
})

t.test('escapes what may end a line or change what a terminal shows', async (t) => {
  const stream = replacedStderr(t, 1000)
  const message = 'a\nb\u2028c\u0085d\u202ee\u{e0001}f\u007fä\u{1f511}\ud800'
  new JsonReport().warning({ code: 'X', message })
  const line = textIn(stream)
  t.match(line, /a\\nb\\u2028c\\u0085d\\u202ee\\udb40\\udc01f\\u007fä\u{1f511}\\ud800"/u)
  t.same(JSON.parse(line), { event: 'warning', code: 'X', message })
})

t.test('tells how far it has come and how it ended', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': disk.bytes })
  const { code, stdout, lines } = await run(t, ['a.qcow2', 'out.img'], { cwd, isCovered: true })
  t.equal(code, 0)
  t.equal(stdout.length, 0)
  t.match(lines[0], {
    event: 'progress',
    phase: 'converting',
    bytesDone: Number,
    bytesTotal: disk.guest.length,
    bytesPerSecond: Number,
    secondsLeft: Number,
  })
  const { seconds, bytesWritten, ...rest } = lines.at(-1)!
  t.same(rest, { event: 'result', exitCode: 0, bytes: disk.guest.length })
  t.ok((seconds as number) > 0 && (bytesWritten as number) > 0)
  t.ok(readFileSync(join(cwd, 'out.img')).equals(disk.guest))
})

t.test('is asked for in any place', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': disk.bytes })
  for (const words of [
    ['--progress=json', '-f', 'a.qcow2', 'out.img'],
    ['-f', 'a.qcow2', '--progress', 'json', 'out.img'],
    ['-f', '--progress', 'a.qcow2', 'out.img', '--progress', 'json'],
  ]) {
    const { code, stderr } = await runCommand(words, { cwd })
    t.equal(code, 0)
    t.match(linesOf(t, stderr).at(-1), { exitCode: 0 })
  }
  const { code, stderr } = await runCommand(['--progress', 'json', '--no-progress', '-f', 'a.qcow2', 'out.img'], {
    cwd,
  })
  t.equal(code, 0)
  t.equal(stderr, '')
})

t.test('has the digest in the result, wherever the disk goes', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': disk.bytes })
  const piped = await run(t, ['--digest', 'md5', 'a.qcow2'], { cwd, isCovered: true })
  t.ok(piped.stdout.equals(disk.guest))
  const digest = piped.lines.at(-1)!['digest'] as { algorithm: string; value: string }
  t.match(digest, { algorithm: 'md5', value: /^[0-9a-f]{32}$/ })
  const { stdout, lines } = await run(t, ['--digest', 'md5', '--verify', 'a.qcow2', 'out.img'], { cwd })
  t.equal(stdout.toString(), `${digest.value}  out.img\n`)
  t.same(lines.at(-1)!['digest'], digest)
})

t.test('tells of a copy that is made first', { skip: missingPrograms('bash') }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': disk.bytes })
  const { code, stderr } = await runBash('cat a.qcow2 | "$RUN" "$COMMAND" --progress json - out.img', { cwd })
  t.equal(code, 0)
  t.match(linesOf(t, stderr)[0], {
    event: 'progress',
    phase: 'spooling',
    bytesDone: 0,
    bytesTotal: null,
    bytesPerSecond: 0,
    secondsLeft: null,
  })
  const server = await startServer(t, disk.bytes)
  server.each = whole(server)
  const { lines } = await run(t, ['-f', server.url().href, 'out.img'], { cwd, isCovered: true })
  t.match(lines[0], { event: 'warning', code: 'WARN_QCOW2_NO_RANGES', message: /^the server answers no requests/ })
  t.match(lines[1], { event: 'progress', phase: 'spooling', bytesTotal: disk.bytes.length })
  t.equal(lines.filter(({ event }) => event === 'warning').length, 1)
  t.ok(readFileSync(join(cwd, 'out.img')).equals(disk.guest))
})

t.test('tells warnings, what is salvaged, and with --quiet only that and the result', async (t) => {
  const { bytes } = buildImage({
    incompatibleFeatures: 1n,
    clusters: [
      [0, { kind: 'raw-entry', entry: 0x1fen }],
      [2, { kind: 'data', bytes: pattern(1, 65536) }],
    ],
  })
  const cwd = t.testdir({ 'a.qcow2': bytes })
  const damage = { event: 'damage', offset: 0, length: 65536, code: 'ERR_QCOW2_BAD_L2_ENTRY', message: /L2 entry 0/ }
  const result = { event: 'result', exitCode: 6, bytes: 196608, salvaged: { bytes: 65536, ranges: 1 } }
  const loud = await run(t, ['--salvage', 'a.qcow2', 'out.img'], { cwd, isCovered: true })
  t.match(
    loud.lines.filter(({ event }) => event !== 'progress'),
    [damage, { event: 'warning', code: 'WARN_QCOW2_DIRTY', message: /not closed properly/ }, result],
  )
  const { lines } = await run(t, ['-q', '-f', '--salvage', 'a.qcow2', 'out.img'], { cwd, isCovered: true })
  t.match(lines, [damage, result])
  t.equal(lines.length, 2)
})

t.test('ends with what went wrong, on one line without hints', async (t) => {
  const damaged = buildImage({ clusters: [[0, { kind: 'raw-entry', entry: 0x1fen }]] }).bytes
  const cwd = t.testdir({
    'a.qcow2': disk.bytes,
    'damaged.qcow2': damaged,
    'luks.qcow2': luksImage().bytes,
    'aes.qcow2': legacyImage().bytes,
    there: '',
  })
  for (const [words, exitCode, code, message] of [
    [['damaged.qcow2', 'out.img'], 3, 'ERR_QCOW2_BAD_L2_ENTRY', /reserved bits/],
    [['a.qcow2', 'there'], 2, 'ERR_QCOW2_OUTPUT_EXISTS', /exists already/],
    [['--frobnicate', 'a.qcow2'], 2, 'ERR_QCOW2_BAD_ARGUMENT', /^unknown option: --frobnicate$/],
    [[], 2, 'ERR_QCOW2_BAD_ARGUMENT', /^an input is missing/],
    [['luks.qcow2', 'out.img'], 5, 'ERR_QCOW2_PASSPHRASE_REQUIRED', /encrypted/],
    [['--passphrase-file', 'no-such-file', 'luks.qcow2', 'out.img'], 1, null, /cannot be read: ENOENT$/],
    [['no-such-file', 'out.img'], 1, 'ERR_QCOW2_OPEN_FAILED', /no-such-file/],
  ] as const) {
    const { code: status, lines } = await run(t, words, { cwd, isCovered: true })
    t.equal(status, exitCode)
    t.match(lines.at(-1), { event: 'result', exitCode, code, message })
    t.notHas(lines.at(-1), 'stack')
  }
  const { lines } = await run(t, ['--debug'], { cwd, isCovered: true })
  t.match(lines.at(-1)!['stack'], /^Error: an input is missing[^]*\n {4}at /)
})

t.test('ends with an interruption', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': endlessImage() })
  const { child, ended } = startCommand([...JSON_WORDS, 'a.qcow2', 'out.img'], { cwd, isCovered: true })
  child.stderr!.once('data', () => child.kill('SIGTERM'))
  const { code, stderr } = await ended
  t.equal(code, 143)
  t.same(linesOf(t, stderr).at(-1), {
    event: 'result',
    exitCode: 143,
    code: null,
    message: 'interrupted by SIGTERM',
  })
})

t.test('ends even if nobody reads the disk', { skip: missingPrograms('bash') }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': endlessImage() })
  const { stderr } = await runBash('"$RUN" "$COMMAND" --progress json a.qcow2 | head -c 1', { cwd })
  t.match(linesOf(t, stderr).at(-1), { exitCode: 1, code: 'ERR_QCOW2_WRITE_FAILED', message: /EPIPE/ })
})

t.test("makes lines of Node's own warnings", async (t) => {
  const server = await startServer(t, disk.bytes, makeCertificate())
  const options = { cwd: t.testdir(), env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' }, isCovered: true }
  const { code, lines } = await run(t, [server.url().href, 'out.img'], options)
  t.equal(code, 0)
  t.match(lines[0], { event: 'warning', code: 'Warning', message: /NODE_TLS_REJECT_UNAUTHORIZED/ })
})

t.test('draws nothing on a terminal and asks nobody there', { skip: noTerminal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': disk.bytes, 'luks.qcow2': luksImage().bytes })
  for (const [name, exitCode] of [
    ['a.qcow2', 0],
    ['luks.qcow2', 5],
  ] as const) {
    const { code, stdout } = await inTerminal(`"$RUN" "$COMMAND" -f --progress json ${name} out.img`, { cwd }).ended
    t.equal(code, exitCode)
    t.match(linesOf(t, stdout.toString().replaceAll('\r\n', '\n')).at(-1), { exitCode })
  }
})

t.test('prints texts as they are, and nothing else', async (t) => {
  for (const words of [['--version'], ['--help'], ['--completion']]) {
    const { code, stdout, stderr } = await runCommand([...JSON_WORDS, ...words], { env: { SHELL: '/bin/bash' } })
    t.equal(code, 0)
    t.equal(stderr, '')
    t.ok(stdout.length > 0)
  }
})

t.test('a value that is none is told as text', async (t) => {
  const cwd = t.testdir()
  writeFileSync(join(cwd, 'a.qcow2'), disk.bytes)
  const { code, stderr } = await runCommand(['--progress=xml', 'a.qcow2', 'out.img'], { cwd })
  t.equal(code, 2)
  t.match(stderr, /^qcow2-to-raw: [^\n]*"xml"[^\n]*"bar", "json"\nqcow2-to-raw: --help lists the options\n$/)
})
