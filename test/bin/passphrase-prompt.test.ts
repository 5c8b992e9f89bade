/**
 * Whoever sits at a terminal is asked for passphrases, and nothing of the answers is seen.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { legacyAes } from '../fixtures/encrypted-image.js'
import { startServer, whole } from '../fixtures/http-server.js'
import { buildImage } from '../fixtures/image-builder.js'
import { filled } from '../fixtures/patterns.js'
import { inTerminal, noTerminal } from '../fixtures/pseudo-terminal.js'
import type { Ended } from '../fixtures/run-command.js'
import { sampleBytes, samples } from '../fixtures/sample-images.js'

const luks = sampleBytes('luks.qcow2.gz')
const { passphrase } = samples.images.find(({ file }) => file === 'luks.qcow2.gz')!
const PASSPHRASE = passphrase!
const PROMPT = 'Passphrase of "a.qcow2" (LUKS): '
const RUN = '"$RUN" "$COMMAND"'

interface Conversation extends Ended {
  /** All that the terminal showed. */
  readonly shown: string
}

/** Runs a line of shell in a terminal and answers each question with the next of the answers: keys, or what to do. */
async function converse(line: string, cwd: string, ...answers: (string | (() => void))[]): Promise<Conversation> {
  const { child, ended } = inTerminal(line, { cwd, stdio: ['pipe', 'pipe', 'pipe'] })
  let shown = ''
  let asked = 0
  child.stdout!.on('data', (bytes: Buffer) => {
    shown += bytes.toString()
    while (asked < answers.length && shown.split('Passphrase of ').length > asked + 1 && shown.endsWith('): ')) {
      const answer = answers[asked++]!
      if (typeof answer === 'string') child.stdin!.write(answer)
      else answer()
    }
  })
  const how = await ended
  return { ...how, shown }
}

/** The disk, which is complete. */
const isDisk = (t: Test, cwd: string): void => {
  const { virtualSize } = samples.images.find(({ file }) => file === 'luks.qcow2.gz')!.disks[0]!
  const disk = readFileSync(join(cwd, 'out.img'))
  t.equal(disk.length, virtualSize)
  t.match(disk.toString('latin1'), /guest offset 0x00001000 of the disk in luks\.qcow2/)
}

t.test('asks with the name of the file and shows nothing of the answer', { skip: noTerminal }, async (t) => {
  for (const keys of [
    `${PASSPHRASE}\r`,
    `${PASSPHRASE}\n`,
    `wrong\u0015${PASSPHRASE}\r`,
    `${PASSPHRASE}xy\u007f\u007f\r`,
  ]) {
    const cwd = t.testdir({ 'a.qcow2': luks })
    const { code, shown } = await converse(
      `${RUN} --no-progress a.qcow2 out.img; code=$?; stty -a; exit $code`,
      cwd,
      keys,
    )
    t.equal(code, 0)
    t.ok(shown.startsWith(`${PROMPT}\r\n`), JSON.stringify(shown))
    t.match(shown, / echo /, 'what is typed then is seen again')
    t.match(shown, / icanon /)
    isDisk(t, cwd)
  }
})

t.test('asks on standard error while the disk goes somewhere else', { skip: noTerminal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': luks })
  const { code, shown } = await converse(`${RUN} a.qcow2 > out.img`, cwd, `${PASSPHRASE}\r`)
  t.equal(code, 0)
  t.ok(shown.startsWith(`${PROMPT}\r\n`))
  t.match(shown, /100% \[=+\] 8\.0 KiB of 8\.0 KiB/)
  isDisk(t, cwd)
})

t.test('asks on a line of its own, after a copy whose bytes were counted', { skip: noTerminal }, async (t) => {
  const server = await startServer(t, luks)
  server.each = whole(server, { 'content-length': undefined })
  const cwd = t.testdir()
  const { code, shown } = await converse(`${RUN} ${server.url('/a.qcow2').href} out.img`, cwd, `${PASSPHRASE}\r`)
  t.equal(code, 0)
  t.match(shown.replaceAll('\u001b', '^'), / read\^\[1G\^\[0KPassphrase of "[^"]*a\.qcow2" \(LUKS\): \r\n/)
  isDisk(t, cwd)
})

t.test('takes letters beyond ASCII', { skip: noTerminal }, async (t) => {
  const secret = 'Schlüssel 🔑'
  const { bytes } = buildImage({
    clusterBits: 9,
    ...legacyAes(secret),
    clusters: [[0, { kind: 'data', bytes: filled(5, 512) }]],
  })
  const cwd = t.testdir({ 'a.qcow2': bytes })
  const { code, shown } = await converse(`${RUN} -q a.qcow2 out.img`, cwd, `${secret}\r`)
  t.equal(code, 0)
  t.equal(shown, 'Passphrase of "a.qcow2" (AES): \r\n')
  t.ok(readFileSync(join(cwd, 'out.img')).equals(filled(5, 512)))
})

t.test('asks for each layer that is encrypted', { skip: noTerminal }, async (t) => {
  const spec = { clusterBits: 9, virtualSize: 1024 }
  const base = buildImage({ ...spec, ...legacyAes('two'), clusters: [[1, { kind: 'data', bytes: filled(2, 512) }]] })
  const { bytes } = buildImage({
    ...spec,
    ...legacyAes('one'),
    clusters: [[0, { kind: 'data', bytes: filled(1, 512) }]],
    backingFile: { name: 'b.qcow2', format: 'qcow2' },
  })
  const cwd = t.testdir({ 'a.qcow2': bytes, 'b.qcow2': base.bytes })
  const { code, shown } = await converse(`${RUN} -q a.qcow2 out.img`, cwd, 'one\r', 'two\r')
  t.equal(code, 0)
  t.match(shown, /^Passphrase of "a\.qcow2" \(AES\): \r\nPassphrase of "[^"]*b\.qcow2" \(AES\): \r\n$/)
  t.ok(readFileSync(join(cwd, 'out.img')).equals(Buffer.concat([filled(1, 512), filled(2, 512)])))
})

t.test('says so if the answer is wrong', { skip: noTerminal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': luks })
  for (const keys of ['sEcReT\r', '\r']) {
    const { code, shown } = await converse(`${RUN} --debug a.qcow2 out.img`, cwd, keys)
    t.equal(code, 5)
    t.ok(shown.startsWith(`${PROMPT}\r\nqcow2-to-raw: "a.qcow2": the passphrase fits none`), JSON.stringify(shown))
    t.notMatch(shown, /sEcReT/)
  }
  t.same(readdirSync(cwd), ['a.qcow2'])
})

t.test('Ctrl-C and Ctrl-D end it', { skip: noTerminal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': luks })
  for (const [keys, exitCode, says] of [
    ['abc\u0003', 130, 'qcow2-to-raw: interrupted by SIGINT\r\n'],
    ['\u0003', 130, 'qcow2-to-raw: interrupted by SIGINT\r\n'],
    ['\u0004', 2, 'qcow2-to-raw: no passphrase was entered\r\nqcow2-to-raw: --help lists the options\r\n'],
  ] as const) {
    const { code, shown } = await converse(`${RUN} a.qcow2 out.img; code=$?; stty -a; exit $code`, cwd, keys)
    t.equal(code, exitCode)
    t.ok(shown.startsWith(`${PROMPT}\r\n${says}`), JSON.stringify(shown))
    t.match(shown, / echo /)
    t.notOk(existsSync(join(cwd, 'out.img')))
  }
})

t.test('signals end it, and give the terminal back as it was', { skip: noTerminal }, async (t) => {
  for (const [signal, exitCode] of [
    ['SIGTERM', 143],
    ['SIGINT', 130],
    ['SIGHUP', 129],
  ] as const) {
    const cwd = t.testdir({ 'a.qcow2': luks })
    const line = `sh -c 'echo $$ > pid; exec ${RUN} a.qcow2 out.img'; code=$?; stty -a; exit $code`
    const { code, shown } = await converse(line, cwd, () => {
      process.kill(Number(readFileSync(join(cwd, 'pid'), 'utf8')), signal)
    })
    t.equal(code, exitCode)
    t.ok(shown.startsWith(`${PROMPT}\r\nqcow2-to-raw: interrupted by ${signal}\r\n`), JSON.stringify(shown))
    t.match(shown, / echo /)
    t.same(readdirSync(cwd).sort(), ['a.qcow2', 'pid'])
  }
})

t.test('asks for nothing that it does not need or that is said already', { skip: noTerminal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': luks, 'plain.qcow2': buildImage({ clusterBits: 9 }).bytes, pw: `${PASSPHRASE}\n` })
  for (const words of ['plain.qcow2', '--passphrase-file pw a.qcow2', '--passphrase-fd 3 a.qcow2 3< pw']) {
    const { code, shown } = await converse(`${RUN} -q -f ${words} out.img`, cwd)
    t.equal(code, 0)
    t.equal(shown, '', words)
  }
})

t.test('asks nobody who cannot see the question or cannot answer', { skip: noTerminal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': luks })
  for (const line of [`${RUN} a.qcow2 out.img < /dev/null`, `${RUN} a.qcow2 out.img 2> errors`]) {
    const { code, shown } = await converse(line, cwd)
    t.equal(code, 5)
    t.notMatch(shown, /Passphrase of/)
    t.notOk(existsSync(join(cwd, 'out.img')))
  }
  t.match(readFileSync(join(cwd, 'errors'), 'utf8'), /the image is encrypted \(LUKS\)/)
})
