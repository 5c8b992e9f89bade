/**
 * --digest: the line that sha256sum would print, on standard output if that is free, and only if all went well.
 */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { endlessImage } from '../fixtures/endless-image.js'
import { buildImage } from '../fixtures/image-builder.js'
import { partOf } from '../fixtures/part-file.js'
import { pattern, text } from '../fixtures/patterns.js'
import {
  missingPrograms,
  ONE_LINE,
  ONE_LINE_AND_HINT,
  runBash,
  runCommand,
  startCommand,
} from '../fixtures/run-command.js'

const SIZE = 65_536
const built = buildImage({
  // Enough for a thread of its own.
  virtualSize: 20 * 2 ** 20 + 5,
  clusters: [
    [0, { kind: 'data', bytes: pattern(0, SIZE) }],
    [100, { kind: 'compressed', bytes: text(2, SIZE) }],
  ],
})
const { bytes, guest } = built
const noCoreutils = missingPrograms('sha256sum', 'md5sum', 'bash')

const digestOf = (what: Uint8Array, algorithm = 'sha256'): string => createHash(algorithm).update(what).digest('hex')

t.test('prints the line for a file, which sha256sum takes', { skip: noCoreutils }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': bytes })
  const names = ['out.img', './out.img', 'new\nli\\ne', join(cwd, 'absolute.img')]
  for (const name of names) {
    const words = ['--force', '--digest', 'sha256', 'a.qcow2', name]
    const { code, stdout, stderr } = await runCommand(words, { cwd, isCovered: name === 'out.img' })
    t.equal(code, 0)
    t.equal(stderr, '')
    const { stdout: expected } = await runBash('sha256sum -- "$NAME"', { cwd, env: { NAME: name } })
    t.equal(stdout.toString(), expected.toString())
    t.match(stdout.toString(), digestOf(guest))
  }
  const piped = '"$RUN" "$COMMAND" --digest MD5 -q --start 1 --end 4096 a.qcow2 part.img | md5sum --check --strict'
  t.equal((await runBash(piped, { cwd })).stdout.toString(), 'part.img: OK\n')
})

t.test('prints it on standard error, if the disk goes to standard output', { skip: noCoreutils }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': bytes })
  const line = `${digestOf(guest)}  -\n`
  for (const words of [[], ['-'], ...(process.platform === 'linux' ? [['/dev/stdout'], ['/dev/fd/1']] : [])]) {
    const { code, stdout, stderr } = await runCommand(['--digest=sha256', 'a.qcow2', ...words], {
      cwd,
      isCovered: words.length === 0,
    })
    t.equal(code, 0)
    t.ok(stdout.equals(guest), words.join())
    t.equal(stderr, line)
  }
  const { stderr } = await runBash('"$RUN" "$COMMAND" --digest sha256 a.qcow2 > out.img', { cwd })
  t.equal(stderr, line)
  t.ok(readFileSync(join(cwd, 'out.img')).equals(guest))
  // What is no standard output leaves it free.
  const elsewhere = await runCommand(['--digest', 'sha256', 'a.qcow2', '/dev/null'], { cwd })
  t.equal(elsewhere.stdout.toString(), `${digestOf(guest)}  /dev/null\n`)
})

t.test('is that of what was salvaged', async (t) => {
  const damaged = buildImage({
    clusters: [
      [0, { kind: 'data', bytes: pattern(0, SIZE) }],
      [1, { kind: 'raw-entry', entry: 0x1fen }],
    ],
  })
  const cwd = t.testdir({ 'a.qcow2': damaged.bytes })
  const { code, stdout } = await runCommand(['--salvage', '--digest', 'sha1', 'a.qcow2', 'out.img'], { cwd })
  t.equal(code, 6)
  t.equal(stdout.toString(), `${digestOf(readFileSync(join(cwd, 'out.img')), 'sha1')}  out.img\n`)
})

t.test('prints nothing if the conversion fails, and refuses digests that there are none of', async (t) => {
  const damaged = buildImage({ clusters: [[1, { kind: 'raw-entry', entry: 0x1fen }]] })
  const cwd = t.testdir({ 'a.qcow2': damaged.bytes, 'good.qcow2': bytes, 'old.img': 'old' })
  const failed = await runCommand(['--digest', 'sha256', 'a.qcow2', 'out.img'], { cwd })
  t.equal(failed.code, 3)
  t.equal(failed.stdout.toString(), '')
  t.match(failed.stderr, ONE_LINE)
  const refused = await runCommand(['--digest', 'sha256', 'good.qcow2', 'old.img'], { cwd })
  t.same([refused.code, refused.stdout.toString()], [2, ''])
  for (const word of ['--digest=crc32', '--digest=shake128', '--digest=', '--no-digest']) {
    const { code, stdout, stderr } = await runCommand([word, 'good.qcow2', 'out.img'], { cwd })
    t.same([code, stdout.toString()], [2, ''], word)
    t.match(stderr, /^qcow2-to-raw: --digest: found "[^"]*", allowed is .*\n$/)
  }
  const missing = await runCommand(['good.qcow2', 'out.img', '--digest'], { cwd })
  t.equal(missing.code, 2)
  t.match(missing.stderr, ONE_LINE_AND_HINT)
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'good.qcow2', 'old.img'])
})

t.test('ends with an error if nobody takes the line', { skip: noCoreutils }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': bytes })
  const full = await runBash('"$RUN" "$COMMAND" --digest sha256 a.qcow2 out.img > /dev/full', { cwd })
  t.equal(full.code, 1)
  t.match(full.stderr, /^qcow2-to-raw: .*ENOSPC.*\n$/)
  t.ok(readFileSync(join(cwd, 'out.img')).equals(guest), 'the output is there')
  const closed = '"$RUN" "$COMMAND" -f --digest sha256 a.qcow2 out.img | true; exit $PIPESTATUS'
  const { code, stderr } = await runBash(closed, { cwd })
  // Whether it was read by then, nobody knows.
  t.ok(code === 0 || code === 1)
  t.equal(stderr, '')
})

t.test('is interrupted as any conversion, while zeros are hashed as well', async (t) => {
  const zeros = buildImage({ clusterBits: 21, virtualSize: 2 ** 42, clusters: [] }).bytes
  for (const [name, image, least] of [
    ['data', endlessImage(), 2 ** 20],
    ['zeros', zeros, 0],
  ] as const) {
    const cwd = t.testdir({ 'a.qcow2': image })
    const { child, ended } = startCommand(['--digest', 'sha256', 'a.qcow2', 'out.img'], { cwd })
    await partOf(cwd, least, ended)
    child.kill('SIGINT')
    const { code, stdout, stderr } = await ended
    t.equal(code, 130, name)
    t.equal(stdout.toString(), '')
    t.equal(stderr, 'qcow2-to-raw: interrupted by SIGINT\n')
    t.same(readdirSync(cwd), ['a.qcow2'])
  }
})
