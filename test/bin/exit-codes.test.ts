/**
 * How the command ends when something is wrong with the image or its files: the exit code of each class of error, one
 * line on standard error whatever the image says, and a stack only if it was asked for.
 */
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  Qcow2AccessError,
  Qcow2FormatError,
  Qcow2SinkError,
  Qcow2SourceError,
  Qcow2UnsupportedError,
  Qcow2UsageError,
} from '../../lib/index.js'
import { exitCodeOf, Interrupted } from '../../bin/exit-code.js'
import { CommandLineError } from '../../bin/command-line.js'
import { buildImage, type ImageSpec } from '../fixtures/image-builder.js'
import { pattern } from '../fixtures/patterns.js'
import { commandPath, ONE_LINE, runCommand, start } from '../fixtures/run-command.js'

const ESCAPE = '\u001b[2J\u001b[31mgotcha\u0007\r\nnext line'

const SPECS: Record<string, { spec: ImageSpec; exitCode: number; says: RegExp }> = {
  'not an image': { spec: { header: { magic: 0 } }, exitCode: 3, says: /not a qcow2 image/ },
  'a bad header field': { spec: { header: { clusterBits: 30 } }, exitCode: 3, says: /clusterBits.*30/ },
  'a bad L2 entry': {
    spec: { clusters: [[0, { kind: 'raw-entry', entry: 0x1234n }]] },
    exitCode: 3,
    says: /L2 entry 0.*0x1234/,
  },
  'a damaged compressed cluster': {
    spec: { clusters: [[0, { kind: 'compressed-raw', payload: Buffer.alloc(100, 0xff) }]] },
    exitCode: 3,
    says: /compressed cluster/,
  },
  'an unknown version': { spec: { header: { version: 4 } }, exitCode: 4, says: /version 4/ },
  'LUKS without a header': { spec: { cryptMethod: 2 }, exitCode: 3, says: /encrypted \(LUKS\)/ },
  'a damaged LUKS header': {
    spec: { encryptionHeader: Buffer.alloc(592) },
    exitCode: 3,
    says: /LUKS header field magic/,
  },
  'an unknown feature without a name': { spec: { incompatibleFeatures: 1n << 40n }, exitCode: 4, says: /bit 40/ },
  'an unknown feature whose name holds escape sequences': {
    spec: { incompatibleFeatures: 1n << 20n, featureNames: [{ kind: 0, bit: 20, name: ESCAPE }] },
    exitCode: 4,
    says: /bit 20 "\\u001b\[2J.*gotcha/,
  },
  'a backing format that holds escape sequences': {
    spec: { backingFile: { name: 'base', format: '\u001b[31mgotcha' } },
    exitCode: 4,
    says: /gotcha/,
  },
  'a backing file elsewhere': { spec: { backingFile: { name: '../base', format: 'raw' } }, exitCode: 5, says: /any/ },
  'a backing file on the network': { spec: { backingFile: { name: 'nbd://host/disk' } }, exitCode: 5, says: /nbd:/ },
  'a backing file whose name holds escape sequences': {
    spec: { backingFile: { name: ESCAPE, format: 'raw' } },
    exitCode: 1,
    says: /u001b\[31mgotcha/,
  },
  'a backing file elsewhere that does not exist': {
    spec: { backingFile: { name: `../${ESCAPE}`, format: 'raw' } },
    exitCode: 5,
    says: /u001b\[31mgotcha.*any/,
  },
  'a data file elsewhere': { spec: { dataFile: { name: '../base' } }, exitCode: 5, says: /any/ },
  'a data file without a name': { spec: { dataFile: {} }, exitCode: 2, says: /--data-file/ },
}

t.test('tells the class of an error by the exit code, in one line', async (t) => {
  const folder = t.testdir({ base: pattern(1, 512), images: { 'base.raw': '' } })
  const cwd = join(folder, 'images')
  for (const [title, { spec, exitCode, says }] of Object.entries(SPECS)) {
    await t.test(title, async (t) => {
      writeFileSync(join(cwd, 'a.qcow2'), buildImage({ clusterBits: 9, virtualSize: 1024, ...spec }).bytes)
      const { code, stdout, stderr } = await runCommand(['a.qcow2', 'out.img'], { cwd })
      t.equal(code, exitCode)
      t.match(stderr, ONE_LINE)
      t.match(stderr, says)
      t.equal(stdout.length, 0)
      t.same(readdirSync(cwd).sort(), ['a.qcow2', 'base.raw'], 'leaves nothing behind')
    })
  }
})

t.test('ends with 1 if a file cannot be read or written', async (t) => {
  const image = buildImage({ clusterBits: 9, virtualSize: 1024 }).bytes
  const missingBase = buildImage({ clusterBits: 9, backingFile: { name: 'none.raw', format: 'raw' } }).bytes
  const cwd = t.testdir({ 'a.qcow2': image, 'b.qcow2': missingBase, folder: {} })
  const cases: [words: string[], says: RegExp][] = [
    [['none.qcow2', 'out.img'], /"none\.qcow2".*ENOENT/],
    [[`none${ESCAPE}`, 'out.img'], /"none\\u001b/],
    [['folder', 'out.img'], /"folder".*regular file/],
    [['/dev/null', 'out.img'], /"\/dev\/null".*regular file/],
    [['b.qcow2', 'out.img'], /none\.raw.*ENOENT/],
    [['a.qcow2', 'none/out.img'], /"none\/out\.img".*ENOENT/],
    [['a.qcow2', 'a.qcow2/out.img'], /ENOTDIR/],
    [['a.qcow2', 'x'.repeat(5000)], /ENAMETOOLONG/],
  ]
  for (const [words, says] of cases) {
    const { code, stderr } = await runCommand(words, { cwd })
    t.equal(code, 1)
    t.match(stderr, ONE_LINE)
    t.match(stderr, says)
  }
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'b.qcow2', 'folder'])
})

const isRoot = process.getuid?.() === 0

t.test('ends with 1 if permission is missing', { skip: isRoot && 'root may do everything' }, async (t) => {
  const image = buildImage({ clusterBits: 9, virtualSize: 1024 }).bytes
  const cwd = t.testdir({ 'a.qcow2': image, 'secret.qcow2': image, locked: {} })
  chmodSync(join(cwd, 'secret.qcow2'), 0)
  chmodSync(join(cwd, 'locked'), 0o500)
  for (const words of [
    ['secret.qcow2', 'out.img'],
    ['a.qcow2', 'locked/out.img'],
  ]) {
    const { code, stderr } = await runCommand(words, { cwd })
    t.equal(code, 1)
    t.match(stderr, ONE_LINE)
    t.match(stderr, /EACCES/)
  }
})

t.test('prints the stack with --debug only, after the line', async (t) => {
  const cwd = t.testdir()
  mkdirSync(join(cwd, 'images'))
  const usage = /^qcow2-to-raw: [^\n]+\nqcow2-to-raw: --help lists the options\nError: [^\n]+\n( +at .+\n)+$/
  const cases: [words: string[], exitCode: number, shows: RegExp][] = [
    [['none.qcow2'], 1, /^qcow2-to-raw: [^\n]+\nQcow2SourceError: [^\n]+\n( +at .+\n)+$/],
    [['a.qcow2', 'b.img', 'c.img'], 2, usage],
    [['--frobnicate'], 2, usage],
  ]
  for (const [words, exitCode, shows] of cases) {
    const withStack = await runCommand(['--debug', ...words], { cwd, isCovered: true })
    t.equal(withStack.code, exitCode)
    t.match(withStack.stderr, shows)
    const without = await runCommand(words, { cwd, isCovered: true })
    t.equal(without.code, exitCode)
    t.notMatch(without.stderr, /\n +at /)
  }
})

t.test('does not end with 0 if it stops halfway', async (t) => {
  // A system call without an answer leaves nothing to wait for.
  const deaf = `require('node:fs/promises').open = () => new Promise(() => {}); require('node:module').syncBuiltinESMExports()`
  const cwd = t.testdir({ 'a.qcow2': buildImage({ clusterBits: 9, virtualSize: 1024 }).bytes, 'deaf.cjs': deaf })
  const words = ['--require', './deaf.cjs', commandPath, 'a.qcow2', 'out.img']
  const { code } = await start(process.execPath, words, { cwd }).ended
  t.equal(code, 1)
})

t.test('has one exit code for each class', async (t) => {
  const cases: [error: unknown, exitCode: number][] = [
    [new Qcow2SourceError('ERR_QCOW2_READ_FAILED', ''), 1],
    [new Qcow2SinkError('ERR_QCOW2_WRITE_FAILED', ''), 1],
    [new TypeError('a bug'), 1],
    ['not even an error', 1],
    [new CommandLineError('words'), 2],
    [new Qcow2UsageError('ERR_QCOW2_BAD_ARGUMENT', ''), 2],
    [new Qcow2FormatError('ERR_QCOW2_BAD_MAGIC', ''), 3],
    [new Qcow2UnsupportedError('ERR_QCOW2_UNKNOWN_FEATURE', ''), 4],
    [new Qcow2AccessError('ERR_QCOW2_REFERENCE_REFUSED', ''), 5],
    [new Qcow2AccessError('ERR_QCOW2_PASSPHRASE_REQUIRED', ''), 5],
    [new Qcow2AccessError('ERR_QCOW2_WRONG_PASSPHRASE', ''), 5],
    [new Interrupted('SIGHUP'), 129],
    [new Interrupted('SIGINT'), 130],
    [new Interrupted('SIGTERM'), 143],
  ]
  for (const [error, exitCode] of cases) {
    t.equal(exitCodeOf(error), exitCode, String(error))
  }
})
