/**
 * --verify: what was written is compared with the image before it gets its name; what cannot be read back is refused.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t, { type Test } from 'tap'
import { buildImage } from '../fixtures/image-builder.js'
import { mixedDisk } from '../fixtures/mixed-disk.js'
import { pattern } from '../fixtures/patterns.js'
import { inTerminal, noTerminal } from '../fixtures/pseudo-terminal.js'
import { commandPath, ONE_LINE, runCommand, start } from '../fixtures/run-command.js'

const { bytes, guest } = mixedDisk()

/** Runs the command, with a statement that runs before the output, `this`, is read back. */
function runWith(t: Test, statement: string, words: readonly string[], cwd: string): ReturnType<typeof runCommand> {
  const file = join(t.testdirName, 'between.mjs')
  writeFileSync(
    file,
    `import { open } from 'node:fs/promises'
    const handle = await open(import.meta.filename)
    const prototype = Object.getPrototypeOf(handle)
    await handle.close()
    const { sync } = prototype
    prototype.sync = async function () {
      ${statement}
      return sync.call(this)
    }`,
  )
  return start(process.execPath, [`--import=${pathToFileURL(file).href}`, commandPath, ...words], { cwd }).ended
}

t.test('keeps an output that is as the image is', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': bytes })
  for (const words of [
    ['--verify'],
    ['--verify', '--no-sparse', '--fsync', '--force'],
    ['--verify', '--force', '-j0'],
  ]) {
    const { code, stdout, stderr } = await runCommand([...words, 'a.qcow2', 'out.img'], { cwd, isCovered: true })
    t.same([code, stdout.toString(), stderr], [0, '', ''], words.join(' '))
    t.ok(readFileSync(join(cwd, 'out.img')).equals(guest))
  }
})

t.test('drops an output that is not', async (t) => {
  const folder = t.testdir({ files: { 'a.qcow2': bytes, 'old.img': 'old' } })
  const cwd = join(folder, 'files')
  const corrupt = 'await this.write(Buffer.from([0xa5]), 0, 1, 3000000)'
  for (const words of [['new.img'], ['--force', '--digest', 'sha256', 'old.img']]) {
    const { code, stdout, stderr } = await runWith(t, corrupt, ['--verify', 'a.qcow2', ...words], cwd)
    t.same([code, stdout.toString()], [1, ''])
    t.match(stderr, ONE_LINE)
    t.match(
      stderr,
      /\.img": read back after it was written, the byte at offset 0x2dc6c0, guest offset 0x2dc6c0, is 0xa5, not 0x/,
    )
    t.same(readdirSync(cwd), ['a.qcow2', 'old.img'])
    t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
  }
})

t.test('lists what is salvaged once', async (t) => {
  const damaged = buildImage({
    clusters: [
      [0, { kind: 'data', bytes: pattern(0, 65_536) }],
      [1, { kind: 'raw-entry', entry: 0x1fen }],
    ],
  })
  const cwd = t.testdir({ 'a.qcow2': damaged.bytes })
  const { code, stderr } = await runCommand(['--salvage', '--verify', 'a.qcow2', 'out.img'], { cwd })
  t.equal(code, 6)
  const lines = stderr.split('\n').slice(0, -1)
  t.equal(lines.length, 2, stderr)
  t.match(lines[0], /zeros instead of guest bytes 65536 to 131071/)
  t.match(lines[1], /salvaged: 65536 of 131072 bytes/)
})

t.test('refuses what cannot be read back, before anything is written', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': bytes })
  for (const words of [[], ['-'], ['/dev/null']]) {
    const { code, stdout, stderr } = await runCommand(['--verify', 'a.qcow2', ...words], { cwd })
    t.same([code, stdout.length], [2, 0])
    t.match(stderr, ONE_LINE)
    t.match(stderr, /verify: .* what is written in order, as into a pipe, cannot be read back/)
  }
})

t.test('draws a second bar, with a label', { skip: noTerminal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': bytes })
  const { code, stdout } = await inTerminal('"$RUN" "$COMMAND" --verify a.qcow2 out.img', { cwd }).ended
  t.equal(code, 0)
  const lines = stdout.toString().split('\r\n')
  t.equal(lines.length, 3)
  t.match(lines[0], /100% \[=+\] 3\.3 MiB of 3\.3 MiB/)
  t.match(lines[1], /verifying 100% \[=+\] 3\.3 MiB of 3\.3 MiB/)
})

t.test('is interrupted as any conversion', async (t) => {
  const folder = t.testdir({ files: { 'a.qcow2': bytes, 'old.img': 'old' } })
  const cwd = join(folder, 'files')
  const kill = `process.kill(process.pid, 'SIGTERM'); await new Promise(setImmediate)`
  const { code, stderr } = await runWith(t, kill, ['--verify', '--force', 'a.qcow2', 'old.img'], cwd)
  t.same([code, stderr], [143, 'qcow2-to-raw: interrupted by SIGTERM\n'])
  t.same(readdirSync(cwd), ['a.qcow2', 'old.img'])
  t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
})
