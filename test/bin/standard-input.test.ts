/**
 * Images from standard input: whatever it is, they are copied first, and nothing of the copy is left on any way out.
 */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { endlessImage } from '../fixtures/endless-image.js'
import { buildImage } from '../fixtures/image-builder.js'
import { partOf, partsIn } from '../fixtures/part-file.js'
import { filled, pattern, text } from '../fixtures/patterns.js'
import { noMounts, unshare } from '../fixtures/private-mounts.js'
import { inTerminal, noTerminal } from '../fixtures/pseudo-terminal.js'
import {
  commandPath,
  missingPrograms,
  ONE_LINE,
  ONE_LINE_AND_HINT,
  runBash,
  runCommand,
  start,
  startCommand,
} from '../fixtures/run-command.js'
import { sampleBytes, samples } from '../fixtures/sample-images.js'
import { noSpoolFile, spoolBytes } from '../fixtures/spool-file.js'
import { until } from '../fixtures/turns.js'

const noBash = missingPrograms('bash')
const RUN = '"$RUN" "$COMMAND"'

// More than a pipe holds: 2 MiB of data, compressed clusters, and nothing at the end.
const { bytes: image, guest } = buildImage({
  virtualSize: 5 * 2 ** 20 + 5,
  clusters: [
    ...Array.from({ length: 32 }, (_, i) => [i, { kind: 'data', bytes: pattern(i, 65536) }] as const),
    ...Array.from({ length: 16 }, (_, i) => [32 + i, { kind: 'compressed', bytes: text(i, 65536) }] as const),
  ],
})

const folderOf = (t: Test): string => t.testdir({ 'a.qcow2': image, spool: {} })

/** That nothing is in the folder for the copy. */
const isEmpty = (t: Test, cwd: string): void => {
  t.same(readdirSync(join(cwd, 'spool')), [], 'nothing is left of the copy')
}

for (const [title, line] of [
  ['a pipe', `cat a.qcow2 | ${RUN} --spool-dir spool - out.img`],
  ['a pipe that has little at a time', `dd if=a.qcow2 bs=1000 status=none | ${RUN} --spool-dir spool - out.img`],
  ['a file', `${RUN} --spool-dir spool - out.img < a.qcow2`],
  [
    'a file, from the place on that it is at',
    `{ dd bs=100 count=1 of=/dev/null status=none; ${RUN} --spool-dir spool - out.img; } < b`,
  ],
  ['a FIFO', `mkfifo f && { cat a.qcow2 > f & ${RUN} --spool-dir spool - out.img < f; }`],
  ['a process', `${RUN} --spool-dir spool -- - out.img < <(cat a.qcow2)`],
  ['several pieces', `{ head -c 70000 a.qcow2; tail -c +70001 a.qcow2; } | ${RUN} --spool-dir=spool - out.img`],
] as const) {
  t.test(`converts an image from ${title}`, { skip: noBash || missingPrograms('mkfifo', 'dd') }, async (t) => {
    const cwd = folderOf(t)
    writeFileSync(join(cwd, 'b'), Buffer.concat([Buffer.alloc(100), image]))
    const { code, stdout, stderr } = await runBash(line, { cwd, isCovered: title === 'a pipe' })
    t.equal(stderr, '')
    t.equal(code, 0)
    t.equal(stdout.length, 0)
    t.ok(readFileSync(join(cwd, 'out.img')).equals(guest))
    isEmpty(t, cwd)
  })
}

t.test('converts an image from a socket', async (t) => {
  const cwd = folderOf(t)
  const { child, ended } = startCommand(['--spool-dir', 'spool', '-', 'out.img'], {
    cwd,
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  child.stdin!.end(image)
  t.equal((await ended).code, 0)
  t.ok(readFileSync(join(cwd, 'out.img')).equals(guest))
  isEmpty(t, cwd)
})

t.test('converts from standard input to standard output', { skip: noBash }, async (t) => {
  const cwd = folderOf(t)
  for (const line of [
    `cat a.qcow2 | ${RUN} -`,
    `cat a.qcow2 | ${RUN} - - | cat`,
    `${RUN} - - < a.qcow2`,
    `${RUN} --quiet - < a.qcow2 | cat`,
    `cat a.qcow2 | ${RUN} - > out.img && cat out.img`,
  ]) {
    const { code, stdout, stderr } = await runBash(line, { cwd, isCovered: line.endsWith(' -') })
    t.equal(stderr, '', line)
    t.equal(code, 0)
    t.ok(stdout.equals(guest))
  }
})

t.test('takes options as with a file', { skip: noBash }, async (t) => {
  const built = buildImage({
    clusterBits: 9,
    virtualSize: 2048,
    clusters: [[0, { kind: 'data', bytes: filled(1, 512) }]],
    snapshots: [{ name: 'old', virtualSize: 1024, clusters: [[1, { kind: 'data', bytes: filled(2, 512) }]] }],
  })
  const overlay = buildImage({
    clusterBits: 9,
    virtualSize: 1024,
    clusters: [[1, { kind: 'data', bytes: filled(3, 512) }]],
    backingFile: { name: 'base', format: 'raw' },
    dataFile: { name: 'data' },
  })
  const damaged = buildImage({ clusterBits: 9, clusters: [[0, { kind: 'raw-entry', entry: 0x1fen }]] })
  const cwd = t.testdir({
    'a.qcow2': built.bytes,
    overlay: overlay.bytes,
    mine: filled(4, 512),
    data: overlay.dataFile,
    damaged: damaged.bytes,
  })
  const cases: [words: string, input: string, disk: Buffer, exitCode?: number][] = [
    ['-s old', 'a.qcow2', built.snapshots[0]!.guest],
    ['--start 500 --end 600', 'a.qcow2', built.guest.subarray(500, 601)],
    ['-j0', 'a.qcow2', built.guest],
    ['--no-sparse --fsync', 'a.qcow2', built.guest],
    ['--backing-file mine --data-file data', 'overlay', Buffer.concat([filled(4, 512), filled(3, 512)])],
    ['--no-backing-file --data-file data', 'overlay', Buffer.concat([filled(0, 512), filled(3, 512)])],
    ['--salvage', 'damaged', damaged.guest, 6],
  ]
  for (const [words, input, disk, exitCode = 0] of cases) {
    const { code } = await runBash(`cat ${input} | ${RUN} ${words} - -f out.img`, { cwd })
    t.equal(code, exitCode, words)
    t.ok(readFileSync(join(cwd, 'out.img')).equals(disk))
  }
})

t.test('opens nothing that such an image names, as it has no folder', { skip: noBash }, async (t) => {
  const { bytes } = buildImage({ clusterBits: 9, backingFile: { name: 'base', format: 'raw' } })
  const cwd = t.testdir({ 'a.qcow2': bytes, base: filled(1, 512) })
  for (const words of ['', '--references any', '--references none']) {
    const { code, stdout, stderr } = await runBash(`cat a.qcow2 | ${RUN} ${words} -`, { cwd })
    t.equal(code, 5)
    t.match(stderr, ONE_LINE)
    t.match(stderr, /"standard input": backing file "base"/)
    t.equal(stdout.length, 0)
  }
})

t.test('warns of oddities by the name of standard input', { skip: noBash }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': buildImage({ incompatibleFeatures: 1n, virtualSize: 512 }).bytes })
  const { code, stderr } = await runBash(`cat a.qcow2 | ${RUN} - out.img`, { cwd })
  t.equal(code, 0)
  t.match(stderr, /^qcow2-to-raw: warning: "standard input": .*not closed properly[^\n]*\n$/)
})

t.test('says so if what comes is no image, or none at all', { skip: noBash }, async (t) => {
  const cwd = folderOf(t)
  writeFileSync(join(cwd, 'garbage'), pattern(1, 300_000))
  const cases: [input: string, exitCode: number, says: RegExp][] = [
    ['< /dev/null', 3, /not a qcow2 image/],
    ['<&-', 3, /not a qcow2 image/],
    ['< spool', 3, /not a qcow2 image/],
    ['< <(:)', 3, /not a qcow2 image/],
    ['< garbage', 3, /not a qcow2 image/],
    ['< <(cat garbage)', 3, /not a qcow2 image/],
    ['< <(head -c 4 a.qcow2)', 3, /header/],
    ['< <(head -c 200000 a.qcow2)', 3, /past the end/],
    ['0> written', 1, /reading the stream: EBADF/],
  ]
  for (const [input, exitCode, says] of cases) {
    const { code, stdout, stderr } = await runBash(`${RUN} --spool-dir spool - out.img ${input}`, { cwd })
    t.equal(code, exitCode, input)
    t.match(stderr, ONE_LINE)
    t.match(stderr, /^qcow2-to-raw: "standard input": /)
    t.match(stderr, says)
    t.equal(stdout.length, 0)
    isEmpty(t, cwd)
  }
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'garbage', 'spool', 'written'])
})

t.test('refuses to read the image from the terminal', { skip: noTerminal }, async (t) => {
  const cwd = folderOf(t)
  for (const words of ['- out.img', '--quiet - out.img', '-- - out.img', '- > out.img']) {
    const { code, stdout } = await inTerminal(`${RUN} ${words}`, { cwd }).ended
    t.equal(code, 2)
    t.match(
      stdout.toString(),
      /^qcow2-to-raw: the image would be read from the terminal[^\r\n]*\r\nqcow2-to-raw: --help lists the options\r\n$/,
    )
  }
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'out.img', 'spool'], 'the last one is the shell’s')
})

t.test('draws a bar for the disk, of the time that the disk takes', { skip: noTerminal }, async (t) => {
  const disk = buildImage({ virtualSize: 2 ** 30 })
  const cwd = t.testdir({ 'a.qcow2': disk.bytes })
  // Who counts the seconds that its input takes shows less than a GiB in each of them.
  const { code, stdout } = await inTerminal(`{ sleep 3; cat a.qcow2; } | ${RUN} - out.img`, { cwd }).ended
  t.equal(code, 0)
  t.match(stdout.toString(), /100% \[=+\] 1\.0 GiB of 1\.0 GiB, [\d.]+ [GTP]iB\/s, 0s left/)
})

t.test('has the image or the passphrase on standard input, not both', { skip: noBash }, async (t) => {
  const cwd = folderOf(t)
  for (const words of ['--passphrase-fd 0 -', '- --passphrase-fd=0', '--passphrase-fd 00 - out.img']) {
    const { code, stderr } = await runBash(`cat a.qcow2 | ${RUN} ${words}`, { cwd, isCovered: true })
    t.equal(code, 2)
    t.match(stderr, ONE_LINE_AND_HINT)
    t.match(stderr, /standard input cannot have both/)
  }
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'spool'])
})

t.test(
  'opens an encrypted image with a passphrase from elsewhere, or says what is missing',
  { skip: noBash },
  async (t) => {
    const { passphrase } = samples.images.find(({ file }) => file === 'luks.qcow2.gz')!
    const luks = sampleBytes('luks.qcow2.gz')
    const cwd = t.testdir({ 'a.qcow2': luks, pw: passphrase!, wrong: 'wrong', spool: {} })
    const expected = await runCommand(['--passphrase-file', 'pw', 'a.qcow2'], { cwd })
    t.equal(expected.code, 0)
    for (const words of ['--passphrase-file pw', '--passphrase-fd 3 3< pw']) {
      const { code, stdout, stderr } = await runBash(`cat a.qcow2 | ${RUN} - ${words}`, { cwd })
      t.equal(stderr, '')
      t.equal(code, 0)
      t.ok(stdout.equals(expected.stdout))
    }
    for (const [words, says] of [
      [
        '',
        /^qcow2-to-raw: "standard input": the image is encrypted \(LUKS\).*\nqcow2-to-raw: --passphrase-file names [^\n]*\n$/,
      ],
      ['--passphrase-file wrong', /^qcow2-to-raw: "standard input": .*fits none/],
    ] as const) {
      const { code, stderr } = await runBash(`cat a.qcow2 | ${RUN} ${words} --spool-dir spool - out.img`, { cwd })
      t.equal(code, 5)
      t.match(stderr, says)
      isEmpty(t, cwd)
    }
    t.same(readdirSync(cwd).sort(), ['a.qcow2', 'pw', 'spool', 'wrong'])
  },
)

t.test('copies into the folder that is named, else into the system’s', { skip: noBash }, async (t) => {
  const cwd = folderOf(t)
  const env = { TMPDIR: join(cwd, 'none') }
  const line = `cat a.qcow2 | ${RUN}`
  const named = await runBash(`${line} --spool-dir none --spool-dir spool - out.img`, { cwd, env })
  t.equal(named.stderr, '')
  t.equal(named.code, 0)
  for (const [words, folder] of [
    ['', join(cwd, 'none')],
    ['--spool-dir elsewhere', 'elsewhere'],
    ['--spool-dir spool --spool-dir a.qcow2', 'a.qcow2'],
  ] as const) {
    const { code, stderr } = await runBash(`${line} ${words} -f - out.img`, { cwd, env })
    t.equal(code, 1)
    t.match(stderr, ONE_LINE)
    const says = `qcow2-to-raw: "standard input": creating the temporary copy in ${JSON.stringify(folder)}: `
    t.ok(stderr.startsWith(says), stderr)
    t.match(stderr, folder === 'a.qcow2' ? /ENOTDIR/ : /ENOENT/)
  }
  const file = await runCommand(['--spool-dir', 'none', '-f', 'a.qcow2', 'out.img'], { cwd, env })
  t.equal(file.code, 0, 'a file is not copied')
})

t.test(
  'says so if the folder for the copy has no room, or is not to be written to',
  { skip: noMounts || noBash },
  async (t) => {
    for (const [mount, doing, reason] of [
      ['size=1m', 'writing', 'ENOSPC'],
      ['ro', 'creating', 'EROFS'],
    ] as const) {
      const cwd = t.testdir({ 'a.qcow2': image, 'old.img': 'old', small: {} })
      for (const input of ['< a.qcow2', '< <(cat a.qcow2; cat /dev/zero)']) {
        const script =
          `mount -t tmpfs -o ${mount} tmpfs small && ` +
          `{ ${RUN} --spool-dir small --force - old.img ${input}; echo "exit code $?"; ls -A small; }`
        const [program, ...words] = [...unshare, 'bash', '-c', script]
        const env = { RUN: process.execPath, COMMAND: commandPath }
        const { stdout, stderr } = await start(program, words, { cwd, env }).ended
        t.match(stderr, ONE_LINE)
        t.match(
          stderr,
          new RegExp(`"standard input": ${doing} the temporary copy in "small": ${reason}: .*--spool-dir`),
        )
        t.equal(stdout.toString(), 'exit code 1\n')
        t.same(readdirSync(cwd).sort(), ['a.qcow2', 'old.img', 'small'])
        t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
      }
    }
  },
)

t.test('does not wait for its input if nothing can come of it', async (t) => {
  const cwd = folderOf(t)
  const cases: [words: string[], exitCode: number, says: RegExp][] = [
    [['-', 'a.qcow2'], 2, /exists already/],
    [['--spool-dir', 'none', '-', 'out.img'], 1, /ENOENT/],
    [['--threads', '99', '-', 'out.img'], 2, /threads/],
    [['--passphrase-fd', '0', '-', 'out.img'], 2, /both/],
  ]
  for (const [words, exitCode, says] of cases) {
    const { child, ended } = startCommand(words, { cwd, stdio: ['pipe', 'pipe', 'pipe'] })
    const { code, stderr } = await ended
    t.equal(code, exitCode, words.join(' '))
    t.match(stderr, says)
    child.stdin!.destroy()
  }
})

t.test('ends without a word when whoever reads the disk has had enough', { skip: noBash }, async (t) => {
  const cwd = folderOf(t)
  const line = `cat a.qcow2 | ${RUN} --spool-dir spool - | head -c 1 > /dev/null; echo "\${PIPESTATUS[1]}"`
  const { stdout, stderr } = await runBash(line, { cwd })
  t.equal(stderr, '')
  t.equal(stdout.toString(), '1\n')
  isEmpty(t, cwd)
})

const SIGNALS = [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
  ['SIGKILL', null],
] as const

for (const [signal, exitCode] of SIGNALS) {
  for (const [moment, bytes] of [
    ['before anything has come', 0],
    ['in the middle of the copy', 300_000],
  ] as const) {
    t.test(`${signal} ${moment} leaves everything as it was`, { skip: noSpoolFile }, async (t) => {
      const cwd = t.testdir({ 'old.img': 'old', spool: {} })
      const { child, ended } = startCommand(['--spool-dir', 'spool', '-f', '-', 'old.img'], {
        cwd,
        stdio: ['pipe', 'pipe', 'pipe'],
        isCovered: signal === 'SIGINT',
      })
      child.stdin!.on('error', () => undefined).write(image.subarray(0, bytes))
      const folder = join(cwd, 'spool')
      await until(() => spoolBytes(child.pid!, folder) === bytes || child.exitCode !== null)
      t.same(readdirSync(folder), [], 'the copy has no name')
      child.kill(signal)
      const how = await ended
      t.equal(how.code, exitCode)
      t.equal(how.stderr, exitCode === null ? '' : `qcow2-to-raw: interrupted by ${signal}\n`)
      t.same(readdirSync(cwd), ['old.img', 'spool'])
      t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
      t.same(readdirSync(folder), [])
      child.stdin!.destroy()
    })
  }

  t.test(`${signal} while the disk is written leaves nothing of the copy`, { skip: noSpoolFile }, async (t) => {
    const cwd = t.testdir({ 'old.img': 'old', spool: {} })
    const { child, ended } = startCommand(['--spool-dir', 'spool', '-f', '-', 'old.img'], {
      cwd,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    const endless = endlessImage()
    child.stdin!.on('error', () => undefined).end(endless)
    await partOf(cwd, 2 ** 20, ended)
    t.equal(spoolBytes(child.pid!, join(cwd, 'spool')), endless.length)
    child.kill(signal)
    const how = await ended
    t.equal(how.code, exitCode)
    t.equal(how.stderr, exitCode === null ? '' : `qcow2-to-raw: interrupted by ${signal}\n`)
    isEmpty(t, cwd)
    t.same(partsIn(cwd).length, exitCode === null ? 1 : 0)
    t.same(readdirSync(cwd).sort(), [...partsIn(cwd), 'old.img', 'spool'].sort())
    t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
  })
}

t.test('a signal ends it while a FIFO has a writer that does not write', { skip: noSpoolFile || noBash }, async (t) => {
  const cwd = t.testdir({ spool: {} })
  t.equal(spawnSync('mkfifo', [join(cwd, 'fifo')]).status, 0)
  // Open at both ends, so that there is a writer for as long as there is a reader.
  const { child, ended } = start('bash', ['-c', `exec ${RUN} --spool-dir spool - out.img 0<> fifo`], {
    cwd,
    env: { RUN: process.execPath, COMMAND: commandPath },
  })
  await until(() => spoolBytes(child.pid!, join(cwd, 'spool')) === 0 || child.exitCode !== null)
  child.kill('SIGTERM')
  const { code, stderr } = await ended
  t.equal(code, 143)
  t.equal(stderr, 'qcow2-to-raw: interrupted by SIGTERM\n')
  isEmpty(t, cwd)
})
