/**
 * The command on a real pseudo terminal, which `script` of util-linux provides: the bar, what takes its place, Ctrl-C.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { endlessImage } from '../fixtures/endless-image.js'
import { buildImage } from '../fixtures/image-builder.js'
import { pattern } from '../fixtures/patterns.js'
import { inTerminal, noTerminal } from '../fixtures/pseudo-terminal.js'

const built = buildImage({ clusters: [[3, { kind: 'data', bytes: pattern(1, 65536) }]], virtualSize: 2 ** 20 })

const REDRAW = '\u001b[1G'
const CLEAR = '\u001b[0K'

t.test('draws a bar that fits into its line and ends it', { skip: noTerminal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  for (const columns of [62, 63, 80, 100, 200]) {
    const { code, stdout } = await inTerminal('"$RUN" "$COMMAND" -f a.qcow2 out.img', { cwd, columns }).ended
    t.equal(code, 0)
    const shown = stdout.toString()
    t.ok(shown.endsWith('\r\n'), 'ends the line')
    const drawn = shown.slice(0, -2).split(REDRAW).slice(1)
    t.ok(drawn.length > 0 && drawn.every((text) => text.endsWith(CLEAR) && text.length - CLEAR.length <= columns))
    t.match(drawn.at(-1), /^ *100% \[=+\] 1\.0 MiB of 1\.0 MiB, \d+(\.\d)? [KMG]iB\/s, 0s left/)
    t.ok(readFileSync(join(cwd, 'out.img')).equals(built.guest))
  }
})

t.test('tells above it what is salvaged', { skip: noTerminal }, async (t) => {
  const damaged = buildImage({
    clusters: [
      [0, { kind: 'data', bytes: pattern(1, 65536) }],
      [15, { kind: 'raw-entry', entry: 0x1fen }],
      [31, { kind: 'raw-entry', entry: 0x1fen }],
    ],
  })
  const cwd = t.testdir({ 'a.qcow2': damaged.bytes })
  const { code, stdout } = await inTerminal('"$RUN" "$COMMAND" --salvage a.qcow2 out.img', { cwd }).ended
  t.equal(code, 6)
  const shown = stdout.toString()
  t.match(shown, /qcow2-to-raw: zeros instead of guest bytes 983040 to 1048575: .*\r\n/)
  t.match(shown, /qcow2-to-raw: zeros instead of guest bytes 2031616 to 2097151: .*\r\n/)
  t.match(shown, /100% \[=+\]/)
  t.ok(readFileSync(join(cwd, 'out.img')).equals(damaged.guest))
})

t.test('draws it while the disk goes somewhere else', { skip: noTerminal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  const { code, stdout } = await inTerminal('"$RUN" "$COMMAND" --progress a.qcow2 > out.img', { cwd }).ended
  t.equal(code, 0)
  t.match(stdout.toString(), /100% \[=+\] 1\.0 MiB of 1\.0 MiB/)
  t.ok(readFileSync(join(cwd, 'out.img')).equals(built.guest))
})

t.test('draws less on a narrow terminal, and nothing on a very narrow one', { skip: noTerminal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  const narrow = await inTerminal('"$RUN" "$COMMAND" -f a.qcow2 out.img', { cwd, columns: 30 }).ended
  t.equal(narrow.code, 0)
  t.match(narrow.stdout.toString(), /100% 1\.0 MiB/)
  t.notMatch(narrow.stdout.toString(), /\[=/)
  const tiny = await inTerminal('"$RUN" "$COMMAND" -f a.qcow2 out.img', { cwd, columns: 8 }).ended
  t.equal(tiny.code, 0)
  t.equal(tiny.stdout.toString(), '')
})

t.test('draws nothing where it is not wanted or makes no sense', { skip: noTerminal }, async (t) => {
  const empty = buildImage({ clusterBits: 9, virtualSize: 0 }).bytes
  const cwd = t.testdir({ 'a.qcow2': built.bytes, 'empty.qcow2': empty })
  for (const [words, env] of [
    ['a.qcow2', { TERM: 'dumb' }],
    ['--progress a.qcow2', { TERM: 'dumb' }],
    ['--no-progress a.qcow2', {}],
    ['--quiet a.qcow2', {}],
    ['-q --progress a.qcow2', {}],
    ['empty.qcow2', {}],
    ['--progress empty.qcow2', {}],
  ] as const) {
    const { code, stdout } = await inTerminal(`"$RUN" "$COMMAND" -f ${words} out.img`, { cwd, env }).ended
    t.equal(code, 0)
    t.equal(stdout.toString(), '', words)
  }
})

t.test('refuses to write the disk to the terminal', { skip: noTerminal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  for (const words of ['a.qcow2', 'a.qcow2 -']) {
    const { code, stdout } = await inTerminal(`"$RUN" "$COMMAND" ${words}`, { cwd }).ended
    t.equal(code, 2)
    t.match(stdout.toString(), /^qcow2-to-raw: [^\r\n]*terminal[^\r\n]*\r\nqcow2-to-raw: --help lists the options\r\n$/)
  }
})

t.test('prints an error or a warning on a line of its own', { skip: noTerminal }, async (t) => {
  const damaged = buildImage({
    clusters: [
      [0, { kind: 'data', bytes: pattern(1, 65536) }],
      [63, { kind: 'compressed-raw', payload: Buffer.alloc(100, 0xff) }],
    ],
  }).bytes
  const dirty = buildImage({ incompatibleFeatures: 1n }).bytes
  const cwd = t.testdir({ 'damaged.qcow2': damaged, 'dirty.qcow2': dirty })
  for (const [name, exitCode] of [
    ['damaged.qcow2', 3],
    ['dirty.qcow2', 0],
  ] as const) {
    const { code, stdout } = await inTerminal(`"$RUN" "$COMMAND" ${name} out.img`, { cwd }).ended
    t.equal(code, exitCode)
    t.match(stdout.toString(), /^(.*\r\n)?qcow2-to-raw: [^\r\n]+\r\n$/)
  }
})

t.test('Ctrl-C ends it, its line and its temporary file', { skip: noTerminal }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': endlessImage() })
  const line = 'stty -echo; exec "$RUN" "$COMMAND" a.qcow2 out.img'
  const { child, ended } = inTerminal(line, { cwd, stdio: ['pipe', 'pipe', 'pipe'] })
  let shown = ''
  let isPressed = false
  child.stdout!.on('data', (bytes: Buffer) => {
    shown += bytes.toString()
    if (shown.includes('%') && !isPressed) {
      isPressed = true
      child.stdin!.write('\u0003')
    }
  })
  const { code, stdout } = await ended
  t.equal(code, 130)
  t.match(stdout.toString(), /% \[.*\r\nqcow2-to-raw: interrupted by SIGINT\r\n$/s)
  t.same(readdirSync(cwd), ['a.qcow2'])
})
