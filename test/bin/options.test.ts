/**
 * Options that choose what is read: a part of the disk, a snapshot, other files, a policy; and what is said about it.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { buildImage } from '../fixtures/image-builder.js'
import { filled, pattern, text } from '../fixtures/patterns.js'
import { ONE_LINE, runCommand } from '../fixtures/run-command.js'

/** Runs the command on a.qcow2 with these options and returns the disk that it wrote to standard output. */
async function outputOf(t: Test, cwd: string, words: readonly string[]): Promise<Buffer> {
  const { code, stdout, stderr } = await runCommand([...words, 'a.qcow2'], { cwd })
  t.equal(stderr, '')
  t.equal(code, 0)
  return stdout
}

t.test('--start and --end choose a part of the disk, both included', async (t) => {
  const { bytes, guest } = buildImage({
    clusterBits: 12,
    virtualSize: 3 * 2 ** 20 + 5,
    clusters: [
      [0, { kind: 'data', bytes: pattern(1, 4096) }],
      [1, { kind: 'compressed', bytes: text(2, 4096) }],
      [256, { kind: 'data', bytes: pattern(3, 4096) }],
      [768, { kind: 'data', bytes: pattern(4, 5) }],
    ],
  })
  const cwd = t.testdir({ 'a.qcow2': bytes })
  const cases: [words: string[], from: number, to: number][] = [
    [['--end', '511'], 0, 512],
    [['--start', '100', '--end', '100'], 100, 101],
    [['--start=4k', '--end=8191'], 4096, 8192],
    [['--start', '1M', '--end', '1048585'], 2 ** 20, 2 ** 20 + 10],
    [['--start', '3m'], 3 * 2 ** 20, guest.length],
    [['--start', '5000', '--end', '1T'], 5000, guest.length],
    [['--start', '1G'], 0, 0],
    [['--start', '9', '--start', '3M'], 3 * 2 ** 20, guest.length],
  ]
  for (const [words, from, to] of cases) {
    const part = guest.subarray(from, to)
    t.ok((await outputOf(t, cwd, words)).equals(part), words.join(' '))
    const { code } = await runCommand([...words, '--force', 'a.qcow2', 'part.img'], { cwd })
    t.equal(code, 0)
    t.ok(readFileSync(join(cwd, 'part.img')).equals(part), `${words.join(' ')}, into a file`)
  }
})

t.test('--snapshot chooses an internal snapshot by id or name', async (t) => {
  const built = buildImage({
    clusterBits: 9,
    clusters: [[0, { kind: 'data', bytes: pattern(1, 512) }]],
    snapshots: [
      { id: '1', name: 'before update', clusters: [[0, { kind: 'data', bytes: pattern(2, 512) }]] },
      { id: '2', name: '1', clusters: [[1, { kind: 'data', bytes: pattern(3, 512) }]], virtualSize: 1024 },
      { id: '3', name: '-dash', clusters: [[0, { kind: 'data', bytes: pattern(4, 512) }]] },
    ],
  })
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  const cases: [words: string[], index: number][] = [
    [['--snapshot', 'before update'], 0],
    [['-s', '1'], 0],
    [['-s1'], 0],
    [['--snapshot=2'], 1],
    [['--snapshot=-dash'], 2],
  ]
  for (const [words, index] of cases) {
    t.ok((await outputOf(t, cwd, words)).equals(built.snapshots[index]!.guest), words.join(' '))
  }
  t.ok((await outputOf(t, cwd, [])).equals(built.guest), 'the active disk without')
})

t.test('takes another backing file, or none', async (t) => {
  const spec = { clusterBits: 9, virtualSize: 1024, backingFile: { name: 'base.raw', format: 'raw' } }
  const other = buildImage({ clusterBits: 9, clusters: [[0, { kind: 'data', bytes: pattern(2, 512) }]] })
  const cwd = t.testdir({ 'base.raw': filled(1, 1024), 'other.qcow2': other.bytes })
  writeFileSync(join(cwd, 'a.qcow2'), buildImage(spec).bytes)
  const asRaw = Buffer.concat([other.bytes, Buffer.alloc(1024)]).subarray(0, 1024)
  const asQcow2 = Buffer.concat([other.guest, Buffer.alloc(512)])
  const cases: [words: string[], disk: Buffer][] = [
    [[], filled(1, 1024)],
    [['--no-backing-file'], Buffer.alloc(1024)],
    [['--backing-file', 'other.qcow2'], asRaw],
    [['--backing-file', 'other.qcow2', '--backing-format', 'raw'], asRaw],
    [['--backing-file', 'other.qcow2', '--backing-format', 'qcow2'], asQcow2],
    [['--backing-file=other.qcow2', '--backing-format=qcow2', '--references', 'none'], asQcow2],
    [['--backing-file', 'other.qcow2', '--no-backing-file'], Buffer.alloc(1024)],
    [['--no-backing-file', '--backing-file', 'base.raw'], filled(1, 1024)],
  ]
  for (const [words, disk] of cases) {
    t.ok((await outputOf(t, cwd, words)).equals(disk), words.join(' ') || 'neither')
  }
})

t.test('--backing-file means a name in the working directory, not beside the image', async (t) => {
  const { bytes } = buildImage({ clusterBits: 9, backingFile: { name: 'base.raw', format: 'raw' } })
  const cwd = t.testdir({ 'mine.raw': filled(1, 512), images: { 'a.qcow2': bytes, 'mine.raw': filled(2, 512) } })
  const { code, stdout } = await runCommand(['--backing-file', 'mine.raw', 'images/a.qcow2'], { cwd })
  t.equal(code, 0)
  t.ok(stdout.equals(filled(1, 512)))
})

t.test('--data-file takes another data file', async (t) => {
  const clusters = [[0, { kind: 'data', bytes: filled(1, 512) }]] as const
  const built = buildImage({ clusterBits: 9, clusters, dataFile: { name: 'a.data' } })
  const cwd = t.testdir({ 'a.qcow2': built.bytes, 'a.data': built.dataFile, 'b.data': filled(2, 512) })
  t.ok((await outputOf(t, cwd, [])).equals(filled(1, 512)))
  t.ok((await outputOf(t, cwd, ['--data-file', 'b.data'])).equals(filled(2, 512)))
})

t.test('--references decides which named files are opened', async (t) => {
  const folder = t.testdir({ 'base.raw': filled(1, 512) })
  const cwd = join(folder, 'images')
  mkdirSync(join(cwd, 'below'), { recursive: true })
  writeFileSync(join(cwd, 'below', 'base.raw'), filled(2, 512))
  for (const [name, words, exitCode] of [
    ['below/base.raw', [], 0],
    ['below/base.raw', ['--references', 'same-directory'], 0],
    ['below/base.raw', ['--references=any'], 0],
    ['below/base.raw', ['--references', 'none'], 5],
    ['../base.raw', [], 5],
    ['../base.raw', ['--references', 'same-directory'], 5],
    ['../base.raw', ['--references', 'any'], 0],
    ['../base.raw', ['--references', 'none'], 5],
    [join(folder, 'base.raw'), [], 5],
    [join(folder, 'base.raw'), ['--references', 'any'], 0],
  ] as const) {
    await t.test(`${name.startsWith('/') ? 'absolute' : name} ${words.join(' ')}`, async (t) => {
      const { bytes } = buildImage({ clusterBits: 12, virtualSize: 512, backingFile: { name, format: 'raw' } })
      writeFileSync(join(cwd, 'a.qcow2'), bytes)
      const { code, stdout, stderr } = await runCommand([...words, 'a.qcow2'], { cwd })
      t.equal(code, exitCode)
      if (exitCode === 0) {
        t.equal(stderr, '')
        t.ok(stdout.equals(filled(name.startsWith('below') ? 2 : 1, 512)))
      } else {
        t.equal(stdout.length, 0)
        t.match(stderr, ONE_LINE)
        t.match(stderr, /--references any/)
      }
    })
  }
})

t.test('--threads changes nothing but the time it takes', async (t) => {
  const clusters = Array.from({ length: 64 }, (_, i) => [i, { kind: 'compressed', bytes: text(i, 65536) }] as const)
  const { bytes, guest } = buildImage({ clusters })
  const cwd = t.testdir({ 'a.qcow2': bytes })
  for (const words of [[], ['--threads', '0'], ['-j', '1'], ['-j3'], ['--threads=2']]) {
    t.ok((await outputOf(t, cwd, words)).equals(guest), words.join(' ') || 'default')
  }
})

t.test('warns of oddities in one line each, and stays silent with --quiet', async (t) => {
  const built = buildImage({
    clusterBits: 9,
    incompatibleFeatures: 3n,
    clusters: [[0, { kind: 'data', bytes: pattern(1, 512) }]],
    backingFile: { name: '\u001b[31mbase\n' },
  })
  const cwd = t.testdir({ 'a.qcow2': built.bytes, '\u001b[31mbase\n': filled(1, 512) })
  const loud = await runCommand(['a.qcow2', 'out.img'], { cwd, isCovered: true })
  t.equal(loud.code, 0)
  const lines = loud.stderr.split(/(?<=\n)/)
  t.equal(lines.length, 3)
  for (const line of lines) {
    t.match(line, ONE_LINE)
    t.match(line, /^qcow2-to-raw: warning: "a\.qcow2": /)
  }
  t.match(loud.stderr, /not closed properly/)
  t.match(loud.stderr, /corrupt/)
  t.match(loud.stderr, /u001b\[31mbase.*read as raw/)
  for (const word of ['--quiet', '-q']) {
    const quiet = await runCommand([word, '--force', 'a.qcow2', 'out.img'], { cwd, isCovered: true })
    t.equal(quiet.code, 0)
    t.equal(quiet.stderr, '')
  }
  t.ok(readFileSync(join(cwd, 'out.img')).equals(built.guest))
})

t.test('--quiet still prints errors', async (t) => {
  const cwd = t.testdir()
  const { code, stderr } = await runCommand(['-q', 'none.qcow2', 'out.img'], { cwd })
  t.equal(code, 1)
  t.match(stderr, ONE_LINE)
  t.notOk(existsSync(join(cwd, 'out.img')))
})

t.test('draws no bar where there is no terminal', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': buildImage({ virtualSize: 2 ** 20 }).bytes })
  for (const words of [[], ['--progress'], ['--no-progress'], ['--progress', '--quiet']]) {
    const { code, stderr } = await runCommand([...words, '-f', 'a.qcow2', 'out.img'], { cwd, isCovered: true })
    t.equal(code, 0)
    t.equal(stderr, '', words.join(' '))
  }
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'out.img'])
})
