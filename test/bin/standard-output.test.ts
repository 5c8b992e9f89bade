/**
 * Outputs that are written in order: standard output in all its shapes, descriptors, devices and FIFOs.
 */
import { spawnSync } from 'node:child_process'
import { closeSync, createReadStream, openSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import t from 'tap'
import { endlessImage } from '../fixtures/endless-image.js'
import { buildImage } from '../fixtures/image-builder.js'
import { pattern, text } from '../fixtures/patterns.js'
import { missingPrograms, ONE_LINE, runBash, runCommand, startCommand } from '../fixtures/run-command.js'

// Three runs of data with zeros between them, more than a pipe holds.
const built = buildImage({
  virtualSize: 3 * 2 ** 20 + 1000,
  clusters: [
    [0, { kind: 'data', bytes: pattern(1, 65536) }],
    [1, { kind: 'data', bytes: pattern(2, 65536) }],
    [20, { kind: 'compressed', bytes: text(3, 65536) }],
    [48, { kind: 'data', bytes: pattern(4, 1000) }],
  ],
})
const disk = built.guest

t.test('writes to standard output if no other output is named', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  for (const output of [[], ['-'], ['/dev/stdout'], ['/dev/fd/1'], ['/proc/self/fd/1']]) {
    const { code, stdout, stderr } = await runCommand(['a.qcow2', ...output], { cwd })
    t.equal(stderr, '')
    t.equal(code, 0)
    t.ok(stdout.equals(disk), output.join() || 'no output')
  }
})

t.test('writes into a pipe of the shell', { skip: missingPrograms('bash', 'cat') }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  for (const output of ['', '-', '/dev/stdout']) {
    const { code, stdout, stderr } = await runBash(`set -o pipefail; "$RUN" "$COMMAND" a.qcow2 ${output} | cat`, {
      cwd,
    })
    t.equal(stderr, '')
    t.equal(code, 0)
    t.ok(stdout.equals(disk), output)
  }
})

t.test('writes where the shell redirects to, from the place on that it is at', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  const cases: [title: string, output: string[], flags: string, before: string][] = [
    ['> file', [], 'w', ''],
    ['> file, /dev/stdout', ['/dev/stdout'], 'w', ''],
    ['>> file', ['-'], 'a', 'what was there\n'],
    ['>> file, /dev/stdout', ['/dev/stdout'], 'a', 'what was there\n'],
  ]
  for (const [title, output, flags, before] of cases) {
    const path = join(cwd, 'out.img')
    writeFileSync(path, before)
    const fd = openSync(path, flags)
    const { code, stderr } = await runCommand(['a.qcow2', ...output], { cwd, stdio: ['ignore', fd, 'pipe'] })
    closeSync(fd)
    t.equal(stderr, '')
    t.equal(code, 0)
    t.ok(readFileSync(path).equals(Buffer.concat([Buffer.from(before), disk])), title)
  }
})

t.test('two runs into one redirection follow each other', { skip: missingPrograms('bash') }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  const half = '"$RUN" "$COMMAND" a.qcow2'
  const { code, stderr } = await runBash(`{ ${half} --end 1M; ${half} --start 1048577; } > out.img`, { cwd })
  t.equal(stderr, '')
  t.equal(code, 0)
  t.ok(readFileSync(join(cwd, 'out.img')).equals(disk))
})

t.test('writes to a descriptor that it was given', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  for (const output of ['/dev/fd/7', '/proc/self/fd/7']) {
    const path = join(cwd, 'out.img')
    const fd = openSync(path, 'w')
    const stdio = ['ignore', 'pipe', 'pipe', 'ignore', 'ignore', 'ignore', 'ignore', fd] as const
    const { code, stdout, stderr } = await runCommand(['a.qcow2', output], { cwd, stdio: [...stdio] })
    closeSync(fd)
    t.equal(stderr, '')
    t.equal(code, 0)
    t.equal(stdout.length, 0)
    t.ok(readFileSync(path).equals(disk), output)
  }
})

t.test('refuses a descriptor that it was not given', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  const { code, stderr } = await runCommand(['a.qcow2', '/dev/fd/4000'], { cwd })
  t.equal(code, 1)
  t.match(stderr, ONE_LINE)
  t.match(stderr, /file descriptor 4000.*EBADF/)
})

t.test('refuses a descriptor of a folder', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  const fd = openSync(cwd, 'r')
  t.teardown(() => closeSync(fd))
  const { code, stderr } = await runCommand(['a.qcow2', '/dev/fd/3'], { cwd, stdio: ['ignore', 'pipe', 'pipe', fd] })
  t.equal(code, 2)
  t.match(stderr, ONE_LINE)
  t.match(stderr, /descriptor 3.*folder/)
})

t.test('refuses to append to its own input', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  const fd = openSync(join(cwd, 'a.qcow2'), 'a')
  t.teardown(() => closeSync(fd))
  for (const output of [[], ['-'], ['/dev/stdout'], ['/dev/fd/1']]) {
    const { code, stderr } = await runCommand(['--force', 'a.qcow2', ...output], { cwd, stdio: ['ignore', fd, 'pipe'] })
    t.equal(code, 2)
    t.match(stderr, ONE_LINE)
    t.match(stderr, /a\.qcow2.*read from/)
  }
  t.ok(readFileSync(join(cwd, 'a.qcow2')).equals(built.bytes), 'the image is as it was')
})

t.test('throws the disk away into /dev/null', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  const { code, stdout, stderr } = await runCommand(['a.qcow2', '/dev/null'], { cwd })
  t.equal(stderr, '')
  t.equal(code, 0)
  t.equal(stdout.length, 0)
  t.ok(statSync('/dev/null').isCharacterDevice(), '/dev/null is still there')
})

const isLinux = process.platform === 'linux'

t.test('says so if a device is full', { skip: !isLinux && 'no /dev/full here' }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  const fd = openSync('/dev/full', 'w')
  t.teardown(() => closeSync(fd))
  const named = await runCommand(['a.qcow2', '/dev/full'], { cwd })
  const redirected = await runCommand(['a.qcow2'], { cwd, stdio: ['ignore', fd, 'pipe'] })
  for (const { code, stderr } of [named, redirected]) {
    t.equal(code, 1)
    t.match(stderr, ONE_LINE)
    t.match(stderr, /offset 0x0.*ENOSPC/)
  }
})

t.test('writes into a FIFO for whoever reads it', { skip: missingPrograms('mkfifo') }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  const fifo = join(cwd, 'fifo')
  t.equal(spawnSync('mkfifo', [fifo]).status, 0)
  // Reading begins while the command waits for a reader, or before: both must do.
  const { ended } = startCommand(['a.qcow2', 'fifo'], { cwd })
  const bytes = await buffer(createReadStream(fifo))
  const { code, stderr } = await ended
  t.equal(stderr, '')
  t.equal(code, 0)
  t.ok(bytes.equals(disk))
  t.ok(statSync(fifo).isFIFO(), 'it is still a FIFO')
})

t.test('ends without a word when the reader has had enough', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': endlessImage() })
  for (const output of [[], ['/dev/stdout']]) {
    const { child, ended } = startCommand(['a.qcow2', ...output], { cwd, isCovered: true })
    child.stdout?.once('data', () => child.stdout?.destroy())
    const { code, signal, stderr } = await ended
    t.equal(stderr, '')
    t.equal(code, 1)
    t.equal(signal, null)
  }
})

t.test('the same in a pipeline and with a FIFO', { skip: missingPrograms('bash', 'head', 'mkfifo') }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': endlessImage() })
  const pipeline = '"$RUN" "$COMMAND" a.qcow2 | head -c 1000; exit "$PIPESTATUS"'
  const fifo = 'mkfifo f; head -c 1000 < f & "$RUN" "$COMMAND" a.qcow2 f; code=$?; wait; exit $code'
  for (const line of [pipeline, fifo]) {
    const { code, stdout, stderr } = await runBash(line, { cwd })
    t.equal(stderr, '')
    t.equal(code, 1)
    t.equal(stdout.length, 1000)
  }
})
