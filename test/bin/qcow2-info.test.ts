/**
 * The command qcow2-info as its users run it: what it prints, what it refuses, and how it ends.
 */
import { once } from 'node:events'
import { readdirSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { parseInfoCommandLine } from '../../bin/info/request.js'
import { buildImage, type ImageSpec } from '../fixtures/image-builder.js'
import { pattern } from '../fixtures/patterns.js'
import { inTerminal, noTerminal } from '../fixtures/pseudo-terminal.js'
import {
  infoPath,
  missingPrograms,
  runCommand,
  start,
  startCommand,
  type Ended,
  type RunOptions,
} from '../fixtures/run-command.js'
import { sampleFolder } from '../fixtures/sample-images.js'

const HINT = 'qcow2-info: --help lists the options\n'

const info = (words: string[], options: RunOptions = {}): Promise<Ended> =>
  runCommand(words, { command: 'qcow2-info', ...options })

/** A folder with an image of one data cluster in three. */
function folderWith(t: Test, spec: ImageSpec = {}): string {
  const { bytes } = buildImage({
    virtualSize: 3 * 65536,
    clusters: [[1, { kind: 'data', bytes: pattern(1, 65536) }]],
    ...spec,
  })
  return t.testdir({ 'a.qcow2': bytes, 'base.raw': Buffer.alloc(65536) })
}

t.test('a summary for people', async (t) => {
  const { code, stdout, stderr } = await info(['a.qcow2'], { cwd: folderWith(t), isCovered: true })
  t.equal(stderr, '')
  t.equal(code, 0)
  t.match(stdout.toString(), /^"a.qcow2"\n {2}virtual size {2}192 KiB \(196608 bytes\)\n/)
})

t.test('warnings stand on standard error, and in JSON where they belong', async (t) => {
  const cwd = folderWith(t, { incompatibleFeatures: 1n })
  const text = await info(['a.qcow2'], { cwd, isCovered: true })
  t.match(text.stderr, /^qcow2-info: warning: "a.qcow2": the image was not closed properly[^\n]*\n$/)
  const json = await info(['--json', 'a.qcow2'], { cwd, isCovered: true })
  t.equal(json.stderr, '')
  t.match(JSON.parse(json.stdout.toString()), { filename: 'a.qcow2', warnings: [{ code: 'WARN_QCOW2_DIRTY' }] })
})

t.test('backing files are opened only if that is asked for', async (t) => {
  const cwd = folderWith(t, { backingFile: { name: 'base.raw', format: 'raw' } })
  const alone = await info(['a.qcow2'], { cwd })
  t.match(alone.stdout.toString(), /backing file {2}"base.raw" \("raw"\); not opened, --backing-chain shows it\n/)
  const chain = await info(['--backing-chain', 'a.qcow2'], { cwd, isCovered: true })
  t.match(chain.stdout.toString(), /\n\n"[^"]*base.raw"\n {2}virtual size {2}64 KiB/)
  const json = await info(['--backing-chain', '--json', 'a.qcow2'], { cwd, isCovered: true })
  t.match(JSON.parse(json.stdout.toString()), [{ filename: 'a.qcow2' }, { filename: 'base.raw', format: 'raw' }])

  const refused = await info(['--map', 'a.qcow2'], { cwd, isCovered: true })
  t.equal(refused.code, 5)
  t.match(
    refused.stderr,
    /^qcow2-info: "a.qcow2": backing file "base.raw" is not opened[^\n]*\nqcow2-info: --backing-chain opens what lies in the image's folder\n$/,
  )
  t.equal(refused.stdout.toString(), '')
  t.equal((await info(['--map', '--references', 'any', 'a.qcow2'], { cwd })).code, 0)
  t.equal((await info(['--map', '--backing-chain', 'a.qcow2'], { cwd })).code, 0)
  const asked = await info(['--map', '--references', 'none', 'a.qcow2'], { cwd, isCovered: true })
  t.equal(asked.stderr.split('\n').length, 2, 'no hint for who has chosen')
})

t.test('a map off a terminal is an array with a row in each line', async (t) => {
  const { code, stdout, stderr } = await info(['--map', 'a.qcow2'], { cwd: folderWith(t), isCovered: true })
  t.equal(stderr, '')
  t.equal(code, 0)
  const lines = stdout.toString().split('\n')
  t.equal(lines.length, 4)
  t.match(JSON.parse(stdout.toString()), [{ start: 0 }, { start: 65536, data: true }, { start: 131072 }])
})

t.test('a long map is printed piece by piece', async (t) => {
  const zero = { kind: 'zero' } as const
  const clusters = Array.from({ length: 1500 }, (_, index) => [index * 2, zero] as const)
  const cwd = folderWith(t, { clusterBits: 9, virtualSize: 3000 * 512, clusters })
  const { stdout } = await info(['--map', '--json', 'a.qcow2'], { cwd, isCovered: true })
  t.equal((JSON.parse(stdout.toString()) as unknown[]).length, 3000)
})

t.test('the map of a snapshot', async (t) => {
  const cwd = folderWith(t, { snapshots: [{ name: 'old', clusters: [] }] })
  const { stdout } = await info(['--map', '-s', 'old', 'a.qcow2'], { cwd })
  t.match(JSON.parse(stdout.toString()), [{ start: 0, length: 196608, present: false }])
})

t.test('on a terminal the map is a picture', { skip: noTerminal }, async (t) => {
  const cwd = folderWith(t)
  const paint = (env: Record<string, string | undefined>): Promise<Ended> =>
    inTerminal('"$RUN" "$INFO" --map a.qcow2', { cwd, env: { INFO: infoPath, FORCE_COLOR: undefined, ...env } }).ended
  const coloured = await paint({ NO_COLOR: undefined, CI: undefined, TERM: 'xterm-256color' })
  t.match(coloured.stdout.toString(), '\u001b[90m·\u001b[0m\u001b[32m█\u001b[0m\u001b[90m·\u001b[0m\r\n')
  const plain = await paint({ NO_COLOR: '1' })
  t.match(plain.stdout.toString(), /^\.D\.\r\nd data 64 KiB {3}\. unallocated 128 KiB\r\n/)
  t.notMatch(plain.stdout.toString(), '\u001b')
})

t.test('the picture is as wide as the terminal', { skip: noTerminal }, async (t) => {
  const cwd = folderWith(t, { virtualSize: 1000 * 65536 })
  const env = { INFO: infoPath, NO_COLOR: '1' }
  for (const columns of [40, 77]) {
    const { stdout } = await inTerminal('"$RUN" "$INFO" --map a.qcow2', { cwd, env, columns }).ended
    const [first = ''] = stdout.toString().split('\r\n')
    t.match(first, /^[dD.]+$/)
    t.equal(first.length, columns)
  }
})

t.test('a check: its verdict as text, as JSON, and as the exit code', async (t) => {
  const clean = await info(['--check', 'a.qcow2'], { cwd: folderWith(t), isCovered: true })
  t.equal(clean.code, 0)
  t.match(clean.stdout.toString(), /^No errors were found\.\n1 of 3 clusters/)

  for (const [refcount, code, found] of [
    [2, 7, { leaks: 1, 'check-errors': 0 }],
    [0, 3, { corruptions: 1, 'check-errors': 0 }],
  ] as const) {
    const cwd = folderWith(t, {
      patch: (bytes, layout) => {
        const l1TableOffset = Number(bytes.readBigUInt64BE(40))
        bytes.writeUInt16BE(refcount, layout.refcountBlockOffsets[0]! + 2 * (l1TableOffset / 65536))
      },
    })
    const json = await info(['--check', '--json', 'a.qcow2'], { cwd, isCovered: true })
    t.equal(json.code, code)
    t.match(JSON.parse(json.stdout.toString()), { filename: 'a.qcow2', ...found })
    const text = await info(['--check', 'a.qcow2'], { cwd })
    t.equal(text.code, code)
    t.notMatch(text.stdout.toString(), 'No errors were found')
  }
})

t.test('an image from standard input', { skip: missingPrograms('bash') }, async (t) => {
  const image = join(sampleFolder, 'plain-v3.qcow2')
  const env = { INFO: infoPath, IMAGE: image, RUN: process.execPath }
  const { code, stdout } = await start('bash', ['-c', 'cat "$IMAGE" | "$RUN" "$INFO" -'], { env, isCovered: true })
    .ended
  t.equal(code, 0)
  t.match(stdout.toString(), /virtual size/)
})

t.test('standard output that takes nothing', { skip: missingPrograms('bash') }, async (t) => {
  const env = { INFO: infoPath, IMAGE: join(sampleFolder, 'plain-v3.qcow2'), RUN: process.execPath }
  const line = '"$RUN" "$INFO" "$IMAGE" 2>&1 >/dev/full'
  const { code, stdout } = await start('bash', ['-c', line], { env, isCovered: true }).ended
  t.equal(code, 1)
  t.match(stdout.toString(), /^qcow2-info: [^\n]*no space left[^\n]*\n$/i)
})

t.test('whoever stops reading hears nothing', { skip: missingPrograms('bash') }, async (t) => {
  const env = { INFO: infoPath, IMAGE: join(sampleFolder, 'plain-v3.qcow2'), RUN: process.execPath }
  // The reader is gone before anything is written.
  const line = '{ sleep 0.2; "$RUN" "$INFO" "$IMAGE"; echo "ended with $?" >&2; } | true'
  const { stderr } = await start('bash', ['-c', line], { env, isCovered: true }).ended
  t.equal(stderr, 'ended with 1\n')
})

t.test('an image is not read from a terminal', { skip: noTerminal }, async (t) => {
  const { code, stdout } = await inTerminal('"$RUN" "$INFO" -', {
    env: { INFO: infoPath },
    stdio: ['pipe', 'pipe', 'pipe'],
  }).ended
  t.equal(code, 2)
  t.match(stdout.toString(), 'qcow2-info: the image would be read from the terminal: name a file, or redirect')
})

t.test('an interruption ends the copying of standard input, and leaves nothing behind', async (t) => {
  const cwd = t.testdir({ spool: {} })
  const { child, ended } = startCommand(['--spool-dir', 'spool', '-'], {
    command: 'qcow2-info',
    cwd,
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  const input = child.stdin!
  input.on('error', () => undefined)
  // All but what a pipe holds has been copied once this is written.
  input.write(Buffer.alloc(2 ** 21))
  await once(input, 'drain')
  child.kill('SIGINT')
  const { signal, stdout, stderr } = await ended
  t.strictSame([signal, stdout.toString(), stderr], ['SIGINT', '', ''])
  t.strictSame(readdirSync(join(cwd, 'spool')), [])
})

t.test('words that make no sense', async (t) => {
  const cases: [words: string[], message: string][] = [
    [[], 'an image is missing: a file, an address, or "-" for standard input'],
    [['a', 'b'], 'one image is allowed, found 2 names'],
    [['--frobnicate', 'a'], 'unknown option: --frobnicate'],
    [['--map', '--check', 'a'], 'Arguments check and map are mutually exclusive'],
    [['--check', '--backing-chain', 'a'], 'Arguments check and backing-chain are mutually exclusive'],
    [
      ['--backing-chain', '--references', 'none', 'a'],
      '--backing-chain shows files that --references none keeps closed',
    ],
    [['-s', 'x', 'a'], '--snapshot is for --map, which is missing'],
    [['https://'], 'what begins as an address is no address'],
    [['--no-header', 'a'], '--header needs a word: --no-header means nothing'],
    [['--spool-dir', '', 'a'], '--spool-dir needs the name of a folder'],
    [['--header', 'nonsense', 'a'], '--header: found no header, allowed are "Name: value" and @FILE with such lines'],
  ]
  for (const [words, message] of cases) {
    const { code, stdout, stderr } = await info(words, { isCovered: true })
    t.equal(code, 2, words.join(' '))
    t.equal(stdout.toString(), '')
    t.equal(stderr, `qcow2-info: ${message}\n${HINT}`)
  }
})

t.test('names from the image cannot steer a terminal', async (t) => {
  const cwd = folderWith(t, { snapshots: [{ name: 'x\u009b31mRED\u202e' }] })
  for (const words of [['a.qcow2'], ['--json', 'a.qcow2']]) {
    const { stdout } = await info(words, { cwd })
    t.match(stdout.toString(), 'x\\u009b31mRED\\u202e')
  }
})

t.test('an image that cannot be read, with its stack for --debug', async (t) => {
  const cwd = t.testdir({ 'no.qcow2': 'no image' })
  const { code, stderr } = await info(['no.qcow2'], { cwd })
  t.equal(code, 3)
  t.match(stderr, /^qcow2-info: "no.qcow2": not a qcow2 image[^\n]*\n$/)
  const debugged = await info(['--debug', 'no.qcow2'], { cwd, isCovered: true })
  t.match(debugged.stderr, /\n {4}at /)
  t.equal((await info(['missing.qcow2'], { cwd })).code, 1)
})

t.test('every header counts, and of other options the last', async (t) => {
  const words = [
    '--header',
    'A: 1',
    '--references',
    'any',
    '--header',
    'B: 2',
    '--references',
    'none',
    '--map',
    '-s',
    'x',
  ]
  t.match(await parseInfoCommandLine([...words, '-s', 'y', 'a']), {
    headers: { a: '1', b: '2' },
    references: 'none',
    snapshot: 'y',
  })
})

t.test('help and version', async (t) => {
  const help = await info(['--help'], { isCovered: true })
  t.equal(help.code, 0)
  t.match(help.stdout.toString(), /^Usage: qcow2-info \[options\] <image>\n/)
  const { version } = JSON.parse(readFileSync(join(infoPath, '../../../package.json'), 'utf8')) as { version: string }
  t.equal((await info(['--version'])).stdout.toString(), `${version}\n`)
})

t.test('starts through the link that npm makes', async (t) => {
  const link = join(t.testdir(), 'qcow2-info')
  symlinkSync(infoPath, link)
  const { code } = await start(link, [join(sampleFolder, 'plain-v3.qcow2')], {}).ended
  t.equal(code, 0)
})
