/**
 * How salvaging ends: whatever ends it, what was lost until then is listed first, and a failure is not taken for a success.
 */
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { endlessImage } from '../fixtures/endless-image.js'
import { buildImage } from '../fixtures/image-builder.js'
import type { ClusterSpec } from '../fixtures/image-spec.js'
import { partOf } from '../fixtures/part-file.js'
import { pattern, text } from '../fixtures/patterns.js'
import { missingPrograms, ONE_LINE, runBash, runCommand, startCommand } from '../fixtures/run-command.js'

const SIZE = 65536
const BAD_ENTRY: ClusterSpec = { kind: 'raw-entry', entry: 0x1fen }
const BAD_STREAM: ClusterSpec = { kind: 'compressed-raw', payload: pattern(1, 3000) }

// 2 MiB of data, but for two entries of its table, and a hole of 2 GiB behind it.
const { bytes: image } = buildImage({
  virtualSize: 2 ** 31,
  clusters: Array.from({ length: 34 }, (_, i) => [
    i,
    i === 5 || i === 33 ? BAD_ENTRY : { kind: 'data', bytes: pattern(i, SIZE) },
  ]),
})

const LOST = /^qcow2-to-raw: zeros instead of guest bytes (\d+) to (\d+): /

/** What standard error lists as lost, and the other lines, all of which come behind. */
function told(t: Test, stderr: string): { lost: string[]; rest: string[] } {
  const lines = stderr.split('\n').slice(0, -1)
  t.ok(
    lines.every((line) => ONE_LINE.test(`${line}\n`)),
    'each line has the name of the command, and ends',
  )
  const lost = lines.filter((line) => LOST.test(line))
  const rest = lines.slice(lost.length)
  t.notOk(rest.some((line) => LOST.test(line)))
  return { lost: lost.map((line) => LOST.exec(line)!.slice(1).join('-')), rest }
}

/** Starts the command in the folder `files`, with a file for the list: of what waits in a pipe, the exit of a process drops the rest. */
function startWithList(folder: string, words: readonly string[]) {
  const path = join(folder, 'list')
  const list = openSync(path, 'w')
  const started = startCommand(words, { cwd: join(folder, 'files'), stdio: ['ignore', 'pipe', list] })
  closeSync(list)
  return { ...started, readList: () => readFileSync(path, 'utf8') }
}

const SECOND_CLUSTER = '65536-131071'
const BOTH_ENTRIES = ['327680-393215', '2162688-2228223']

for (const words of [[], ['-q']]) {
  const how = ['--salvage', ...words].join(' ')

  t.test(`a write that fails ends ${how}`, { skip: missingPrograms('bash') }, async (t) => {
    // In units of 1024 bytes. The first stops the data, the second the length that is set at the end.
    for (const [limit, says] of [
      [1024, /setting the length to \d+ bytes: EFBIG/],
      [1024 * 1024, /length to 2147483648 bytes: EFBIG/],
    ] as const) {
      for (const name of ['new.img', 'old.img']) {
        const cwd = t.testdir({ 'a.qcow2': image, 'old.img': 'old' })
        const line = `ulimit -f ${limit} && exec "$RUN" "$COMMAND" ${how} --force a.qcow2 ${name}`
        const { code, stderr } = await runBash(line, { cwd })
        t.equal(code, 1)
        const { lost, rest } = told(t, stderr)
        t.same(lost, BOTH_ENTRIES)
        t.equal(rest.length, 1)
        t.match(rest[0], says)
        t.same(readdirSync(cwd).sort(), ['a.qcow2', 'old.img'])
        t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
      }
    }
  })

  const noFullDevice = process.platform === 'linux' ? missingPrograms('bash') : 'no /dev/full here'
  t.test(`a full device ends ${how}`, { skip: noFullDevice }, async (t) => {
    const cwd = t.testdir({ 'a.qcow2': image })
    for (const output of ['/dev/full', '- > /dev/full']) {
      const { code, stderr } = await runBash(`exec "$RUN" "$COMMAND" ${how} a.qcow2 ${output}`, { cwd })
      t.equal(code, 1)
      const { lost, rest } = told(t, stderr)
      t.same(lost, BOTH_ENTRIES)
      t.equal(rest.length, 1)
      t.match(rest[0], /writing \d+ bytes at offset 0x[0-9a-f]+: ENOSPC/)
    }
  })

  for (const [what, other] of [
    ['entries', BAD_ENTRY],
    ['compressed clusters', BAD_STREAM],
  ] as const) {
    t.test(`SIGINT ends ${how} amid bad ${what}, and leaves the folder as it was`, async (t) => {
      for (const [name, before] of [
        ['new.img', ['a.qcow2']],
        ['old.img', ['a.qcow2', 'old.img']],
      ] as const) {
        const files = { 'a.qcow2': endlessImage(other), ...(name === 'old.img' && { 'old.img': 'old' }) }
        const folder = t.testdir({ files })
        const cwd = join(folder, 'files')
        const { child, ended, readList } = startWithList(folder, ['--salvage', ...words, '--force', 'a.qcow2', name])
        // What is written comes behind what was told of it.
        await partOf(cwd, 2 ** 20, ended)
        child.kill('SIGINT')
        t.equal((await ended).code, 130)
        const { lost, rest } = told(t, readList())
        t.ok(lost.includes(SECOND_CLUSTER))
        t.same(rest, ['qcow2-to-raw: interrupted by SIGINT'])
        t.same(readdirSync(cwd).sort(), before)
        t.ok(name === 'new.img' || readFileSync(join(cwd, name), 'utf8') === 'old')
      }
    })
  }
}

t.test('SIGINT ends it while nobody takes what it salvages', async (t) => {
  const folder = t.testdir({ files: { 'a.qcow2': endlessImage(BAD_ENTRY) } })
  const { child, ended, readList } = startWithList(folder, ['--salvage', 'a.qcow2'])
  child.stdout!.once('data', () => child.stdout!.pause())
  await once(child.stdout!, 'pause')
  child.kill('SIGINT')
  // The rest of what is in the pipe is read, or the end of the stream would not come.
  await once(child, 'exit')
  child.stdout!.resume()
  t.equal((await ended).code, 130)
  const { lost, rest } = told(t, readList())
  t.ok(lost.includes(SECOND_CLUSTER))
  t.same(rest, ['qcow2-to-raw: interrupted by SIGINT'])
})

t.test('SIGINT ends it while nobody reads the list', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': endlessImage(BAD_ENTRY) })
  const { child, ended } = startCommand(['--salvage', 'a.qcow2', 'new.img'], { cwd })
  child.stderr!.once('data', () => child.stderr!.pause())
  await once(child.stderr!, 'pause')
  child.kill('SIGINT')
  await once(child, 'exit')
  child.stderr!.resume()
  t.equal((await ended).code, 130)
  t.same(readdirSync(cwd), ['a.qcow2'])
})

t.test('lists only what was lost until the reader of standard output had enough', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': endlessImage(BAD_ENTRY) })
  const { child, ended } = startCommand(['--salvage', 'a.qcow2'], { cwd })
  child.stdout!.once('data', () => child.stdout!.destroy())
  const { code, stderr } = await ended
  t.equal(code, 1)
  const { lost, rest } = told(t, stderr)
  t.ok(lost.includes(SECOND_CLUSTER))
  t.same(rest, [])
})

t.test('standard output gets what a file would, and standard error the same list', async (t) => {
  const damaged = buildImage({
    incompatibleFeatures: 1n,
    clusters: [
      [0, { kind: 'data', bytes: pattern(0, SIZE) }],
      [1, BAD_STREAM],
      [2, { kind: 'compressed', bytes: text(2, SIZE) }],
      [3, BAD_ENTRY],
      [40, { kind: 'data', bytes: pattern(40, SIZE) }],
    ],
  })
  const cwd = t.testdir({ 'a.qcow2': damaged.bytes })
  const file = await runCommand(['--salvage', 'a.qcow2', 'out.img'], { cwd })
  t.equal(file.code, 6)
  const { lost, rest } = told(t, file.stderr)
  t.same(lost.sort(), ['196608-262143', '65536-131071'])
  t.equal(rest.length, 2)
  t.match(rest[0], /salvaged: 131072 of 2686976 bytes are zeros, ranges: 2;/)
  t.match(rest[1], /warning: .*not closed properly/)
  const disk = readFileSync(join(cwd, 'out.img'))
  t.ok(disk.equals(damaged.guest))

  for (const words of [[], ['-'], ['--no-sparse'], ['-q'], ['-q', '-']]) {
    const { code, stdout, stderr } = await runCommand(['--salvage', 'a.qcow2', ...words], { cwd })
    t.equal(code, 6)
    t.ok(stdout.equals(disk), 'nothing of the list is in it')
    const listed = told(t, stderr)
    t.same(listed.lost.sort(), lost)
    t.same(listed.rest, words.includes('-q') ? rest.slice(0, 1) : rest)
  }
  const quiet = await runCommand(['--salvage', '-q', 'a.qcow2', 'quiet.img'], { cwd })
  t.equal(quiet.code, 6)
  t.same(told(t, quiet.stderr).rest, rest.slice(0, 1))
  t.ok(readFileSync(join(cwd, 'quiet.img')).equals(disk))
})
