/**
 * Passphrases of encrypted images: from files, from file descriptors, or missing; and never shown.
 */
import { spawnSync } from 'node:child_process'
import { open } from 'node:fs/promises'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { legacyAes } from '../fixtures/encrypted-image.js'
import { createEncrypted } from '../fixtures/encrypted-images.js'
import { buildImage } from '../fixtures/image-builder.js'
import { filled, pattern } from '../fixtures/patterns.js'
import {
  missingPrograms,
  ONE_LINE,
  ONE_LINE_AND_HINT,
  runBash,
  runCommand,
  startCommand,
} from '../fixtures/run-command.js'
import { oracleTest } from '../fixtures/qemu.js'
import { sampleBytes, samples } from '../fixtures/sample-images.js'

/** A wrong passphrase, and what it may be that is wrong. */
const WRONG = /^qcow2-to-raw: .* fits none of .*\nqcow2-to-raw: a newline at the end of a passphrase file [^\n]*\n$/

const luks = sampleBytes('luks.qcow2.gz')
const { passphrase } = samples.images.find(({ file }) => file === 'luks.qcow2.gz')!
const PASSPHRASE = passphrase!

const spec = { clusterBits: 9, virtualSize: 1024 }

/** An image that only this passphrase makes sense of, and its disk. */
const locked = (secret: string | Uint8Array, byte = 1) =>
  buildImage({ ...spec, ...legacyAes(secret), clusters: [[0, { kind: 'data', bytes: pattern(byte, 512) }]] })

/** Runs the command on a.qcow2, without the warning that AES comes with, and returns the disk. */
async function outputOf(t: Test, cwd: string, words: readonly string[], isCovered = false): Promise<Buffer> {
  const { code, stdout, stderr } = await runCommand(['-q', ...words, 'a.qcow2'], { cwd, isCovered })
  t.equal(stderr, '')
  t.equal(code, 0)
  return stdout
}

t.test('a file has the passphrase, and one newline behind it does not count', async (t) => {
  const cases: [title: string, secret: string | Uint8Array, content: string | Uint8Array][] = [
    ['no newline', 'secret', 'secret'],
    ['a newline', 'secret', 'secret\n'],
    ['a newline of Windows', 'secret', 'secret\r\n'],
    ['two newlines', 'secret\n', 'secret\n\n'],
    ['two newlines of Windows', 'secret\r\n', 'secret\r\n\r\n'],
    ['a return alone', 'secret\r', 'secret\r'],
    ['newline and return', 'secret\n\r', 'secret\n\r'],
    ['newlines before and within', '\nse\ncret', '\nse\ncret\n'],
    ['blanks around', ' secret\t', ' secret\t\n'],
    ['nothing', '', ''],
    ['nothing but a newline', '', '\n'],
    ['nothing but a newline of Windows', '', '\r\n'],
    ['letters beyond ASCII', 'Schlüssel 🔑', 'Schlüssel 🔑\n'],
    [
      'bytes that are no text',
      Uint8Array.of(0xff, 0xfe, 0, 10, 0x80, 0, 1),
      Uint8Array.of(0xff, 0xfe, 0, 10, 0x80, 0, 1),
    ],
    ['65536 bytes, of which 16 count', 'x'.repeat(16), `${'x'.repeat(65535)}\n`],
  ]
  for (const [title, secret, content] of cases) {
    const { bytes, guest } = locked(secret)
    const cwd = t.testdir({ 'a.qcow2': bytes, pw: Buffer.from(content) })
    t.ok((await outputOf(t, cwd, ['--passphrase-file', 'pw'], title === 'two newlines')).equals(guest), title)
  }
})

t.test('a passphrase that is in the file only in part is none', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': luks })
  for (const content of [
    `${PASSPHRASE}\n\n`,
    `${PASSPHRASE} `,
    PASSPHRASE.slice(0, -1),
    PASSPHRASE.toUpperCase(),
    '',
  ]) {
    writeFileSync(join(cwd, 'pw'), content)
    const { code, stdout, stderr } = await runCommand(['--passphrase-file', 'pw', 'a.qcow2'], {
      cwd,
      isCovered: content === '',
    })
    t.equal(code, 5)
    t.match(stderr, WRONG)
    t.match(stderr, /"a\.qcow2".*passphrase fits none/)
    t.equal(stdout.length, 0)
  }
})

t.test('a file that cannot be read, or that is something else, is an error', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': luks, folder: {}, long: 'x'.repeat(65537), disk: Buffer.alloc(2 ** 20) })
  const cases: [words: string[], exitCode: number, says: RegExp][] = [
    [['--passphrase-file', 'none'], 1, /--passphrase-file "none": .*ENOENT/],
    [['--passphrase-file', ''], 1, /--passphrase-file "": .*ENOENT/],
    [['--passphrase-file', '\u001b[31m\n'], 1, /\\u001b\[31m.*ENOENT/],
    [['--passphrase-file', 'folder'], 1, /--passphrase-file "folder": .*EISDIR/],
    [['--passphrase-file', 'a.qcow2/pw'], 1, /ENOTDIR/],
    [['--passphrase-file', 'long'], 2, /"long": found more than 65536 bytes/],
    [['--passphrase-file', 'disk'], 2, /"disk": found more than 65536 bytes/],
  ]
  for (const [words, exitCode, says] of cases) {
    const { code, stderr } = await runCommand([...words, 'a.qcow2', 'out.img'], { cwd, isCovered: true })
    t.equal(code, exitCode, words.join(' '))
    t.match(stderr, exitCode === 2 ? ONE_LINE_AND_HINT : ONE_LINE)
    t.match(stderr, says)
  }
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'disk', 'folder', 'long'])
})

t.test('a file is not even opened if nothing is encrypted', async (t) => {
  const { bytes, guest } = buildImage({ ...spec, clusters: [[0, { kind: 'data', bytes: pattern(1, 512) }]] })
  const cwd = t.testdir({ 'a.qcow2': bytes })
  t.ok((await outputOf(t, cwd, ['--passphrase-file', 'none'])).equals(guest))
  t.ok((await outputOf(t, cwd, ['--passphrase-fd', '77'])).equals(guest))
})

t.test('each encrypted layer has its file, and the last file serves all others', async (t) => {
  const cwd = t.testdir({ one: 'first', two: 'second\n', three: 'third\r\n' })
  const layers: [name: string, secret: string | undefined, backing: string | undefined, index: number][] = [
    ['a.qcow2', 'first', 'plain.qcow2', 0],
    ['plain.qcow2', undefined, 'b.qcow2', 1],
    ['b.qcow2', 'second', 'c.qcow2', 2],
    ['c.qcow2', 'third', undefined, 3],
  ]
  const write = (secrets?: string): void => {
    for (const [name, secret, backing, index] of layers) {
      const image = buildImage({
        clusterBits: 9,
        virtualSize: 2048,
        clusters: [[index, { kind: 'data', bytes: filled(index + 1, 512) }]],
        ...(secret !== undefined && legacyAes(secrets ?? secret)),
        ...(backing !== undefined && { backingFile: { name: backing, format: 'qcow2' } }),
      })
      writeFileSync(join(cwd, name), image.bytes)
    }
  }
  const whole = Buffer.concat([1, 2, 3, 4].map((byte) => filled(byte, 512)))
  const file = (...names: string[]) => names.flatMap((name) => ['--passphrase-file', name])
  write()
  t.ok((await outputOf(t, cwd, file('one', 'two', 'three'), true)).equals(whole))
  t.ok((await outputOf(t, cwd, file('one', 'two', 'three', 'none'))).equals(whole), 'more than it takes')
  const wrong = await outputOf(t, cwd, file('one', 'two'))
  t.ok(wrong.subarray(0, 1536).equals(whole.subarray(0, 1536)), 'the layers that they open')
  t.notOk(wrong.subarray(1536).equals(whole.subarray(1536)), 'the one that they do not')
  write('second')
  t.ok((await outputOf(t, cwd, file('two'))).equals(whole), 'one for all')
})

t.test('one descriptor serves all layers', { skip: missingPrograms('bash') }, async (t) => {
  const clusters = [[1, { kind: 'data', bytes: pattern(2, 512) }]] as const
  const overlay = buildImage({ ...spec, ...legacyAes('secret'), clusters, backingFile: { name: 'b', format: 'qcow2' } })
  const cwd = t.testdir({ 'a.qcow2': overlay.bytes, b: locked('secret').bytes, pw: 'secret\n' })
  const whole = Buffer.concat([pattern(1, 512), pattern(2, 512)])
  for (const [line, isCovered] of [
    ['cat pw | "$RUN" "$COMMAND" -q --passphrase-fd 0 a.qcow2', true],
    ['"$RUN" "$COMMAND" -q --passphrase-fd 0 a.qcow2 < pw', false],
    ['"$RUN" "$COMMAND" -q --passphrase-fd=3 a.qcow2 3< pw', true],
    ['"$RUN" "$COMMAND" -q --passphrase-fd 3 a.qcow2 3<<< secret', false],
    ['"$RUN" "$COMMAND" -q --passphrase-fd 99 --passphrase-fd 3 a.qcow2 3< <(printf s; sleep 0.2; echo ecret)', false],
    ['"$RUN" "$COMMAND" -q --passphrase-file <(printf secret) --passphrase-file pw a.qcow2', false],
    ['cat pw | "$RUN" "$COMMAND" -q --passphrase-file /dev/stdin --passphrase-file pw a.qcow2', false],
  ] as const) {
    const { code, stdout, stderr } = await runBash(line, { cwd, isCovered })
    t.equal(stderr, '', line)
    t.equal(code, 0)
    t.ok(stdout.equals(whole))
  }
})

t.test('a descriptor that is not open, or one of the own process, is an error and no crash', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': luks })
  const stuck = ['EBADF', 'EINVAL', 'EAGAIN']
  for (const fd of [3, 1000, 2 ** 31 - 1]) {
    const words = ['--passphrase-fd', String(fd), 'a.qcow2', 'out.img']
    const { code, stderr } = await runCommand(words, { cwd, isCovered: fd <= 1000 })
    t.equal(code, 1, String(fd))
    t.match(stderr, ONE_LINE)
    t.match(stderr, new RegExp(`--passphrase-fd ${fd}: cannot be read: (${stuck.join('|')})$`, 'm'))
  }
  t.same(readdirSync(cwd), ['a.qcow2'])
})

t.test('says what to do if there is no passphrase and nobody to ask', async (t) => {
  for (const image of [luks, sampleBytes('aes.qcow2')]) {
    const cwd = t.testdir({ 'a.qcow2': image, 'old.img': 'old' })
    for (const words of [['a.qcow2', 'out.img'], ['--force', 'a.qcow2', 'old.img'], ['a.qcow2'], ['-q', 'a.qcow2']]) {
      const { code, stdout, stderr } = await runCommand(words, { cwd, isCovered: true })
      t.equal(code, 5)
      t.match(
        stderr,
        /^qcow2-to-raw: "a\.qcow2": the image is encrypted \((LUKS|AES)\)[^\n]*\nqcow2-to-raw: --passphrase-file [^\n]+\n$/,
      )
      t.equal(stdout.length, 0)
    }
    t.same(readdirSync(cwd).sort(), ['a.qcow2', 'old.img'])
    t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
  }
})

t.test('a wrong passphrase leaves everything as it was, and is not shown', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': luks, 'old.img': 'old', pw: 'sEcReT-passphrase\n' })
  for (const words of [
    ['--passphrase-file', 'pw', '--force', 'a.qcow2', 'old.img'],
    ['--passphrase-file', 'pw', '--debug', 'a.qcow2', 'new.img'],
    ['--passphrase-file', 'pw', '--debug', '--salvage', 'a.qcow2'],
  ]) {
    const { code, stdout, stderr } = await runCommand(words, { cwd })
    t.equal(code, 5)
    t.match(stderr, words.includes('--debug') ? /\n +at / : WRONG)
    t.notMatch(stderr, /sEcReT|73456352/i)
    t.equal(stdout.length, 0)
  }
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'old.img', 'pw'])
  t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
})

t.test('shows nothing of a passphrase that is too long either', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': luks, pw: 'sEcReT'.repeat(20000) })
  const { code, stderr } = await runCommand(['--debug', '--passphrase-file', 'pw', 'a.qcow2'], { cwd })
  t.equal(code, 2)
  t.notMatch(stderr, /sEcReT/)
})

t.test('signals end the wait for a passphrase', { skip: missingPrograms('mkfifo') }, async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    const cwd = t.testdir({ 'a.qcow2': luks, 'old.img': 'old' })
    spawnSync('mkfifo', [join(cwd, 'pw')])
    const words = ['--passphrase-file', 'pw', '--force', 'a.qcow2', 'old.img']
    const { child, ended } = startCommand(words, { cwd })
    // Open once the other end is.
    const writer = await open(join(cwd, 'pw'), 'w')
    child.kill(signal)
    const how = await ended
    await writer.close()
    t.equal(how.signal, signal)
    t.same(readdirSync(cwd).sort(), ['a.qcow2', 'old.img', 'pw'])
    t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
  }
})

const SETTINGS = 'encrypt.format=luks,encrypt.iter-time=10,encrypt.cipher-alg=aes-128'

oracleTest('opens what qemu-img encrypted with the content of a file', async (t) => {
  const cwd = t.testdir()
  for (const [theirs, ...cases] of [
    ['secret', ['secret', 0], ['secret\n', 0]],
    // A newline at the end is part of it for qemu-img.
    ['secret\n', ['secret\n', 5], ['secret\n\n', 0]],
    ['Schlüssel 🔑', ['Schlüssel 🔑\r\n', 0]],
    ['', ['', 0]],
  ] as const) {
    await createEncrypted(cwd, 'a.qcow2', { settings: SETTINGS, size: 65536, secret: theirs })
    for (const [ours, exitCode] of cases) {
      writeFileSync(join(cwd, 'ours'), ours)
      const { code, stdout } = await runCommand(['--passphrase-file', 'ours', 'a.qcow2'], { cwd })
      t.equal(code, exitCode, JSON.stringify([theirs, ours]))
      t.equal(stdout.length, exitCode === 0 ? 65536 : 0)
    }
  }
})

oracleTest('opens chains of layers that qemu-img encrypted', async (t) => {
  const plain = buildImage({ clusters: [[0, { kind: 'data', bytes: filled(7, 65536) }]] }).bytes
  const cwd = t.testdir({ 'plain.qcow2': plain })
  const [one, two] = [
    { secret: 'first', secretFile: 'one' },
    { secret: 'second', secretFile: 'two' },
  ]
  const size = 65536
  await createEncrypted(cwd, 'base.qcow2', { settings: SETTINGS, size, ...two, backing: 'plain.qcow2' })
  await createEncrypted(cwd, 'a.qcow2', { settings: SETTINGS, size, ...one, backing: 'base.qcow2' })
  const run = (image: string, ...names: string[]) =>
    runCommand([...names.flatMap((name) => ['--passphrase-file', name]), image], { cwd })
  for (const [image, names] of [
    ['a.qcow2', ['one', 'two']],
    ['base.qcow2', ['two']],
  ] as const) {
    const { code, stdout, stderr } = await run(image, ...names)
    t.equal(stderr, '')
    t.equal(code, 0)
    t.ok(stdout.equals(filled(7, 65536)))
  }
  for (const [names, culprit] of [
    [['two', 'one'], /"a\.qcow2".*fits none/],
    [['two'], /"a\.qcow2".*fits none/],
    [['one'], /base\.qcow2".*fits none/],
  ] as const) {
    const { code, stderr } = await run('a.qcow2', ...names)
    t.equal(code, 5)
    t.match(stderr, WRONG)
    t.match(stderr, culprit)
  }
  await createEncrypted(cwd, 'same.qcow2', { settings: SETTINGS, size, ...two, backing: 'base.qcow2' })
  const { code, stdout } = await run('same.qcow2', 'two')
  t.equal(code, 0)
  t.ok(stdout.equals(filled(7, 65536)))
})
