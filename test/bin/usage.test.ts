/**
 * Words that make no sense: exit code 2, one line that says what is wrong, and nothing done.
 */
import { readdirSync } from 'node:fs'
import t from 'tap'
import { CommandLineError } from '../../bin/command-line.js'
import { parseCommandLine } from '../../bin/convert/request.js'
import { quoteText } from '../../lib/index.js'
import { buildImage } from '../fixtures/image-builder.js'
import { ONE_LINE, ONE_LINE_AND_HINT, runCommand } from '../fixtures/run-command.js'

const image = buildImage({ clusterBits: 9, virtualSize: 1024 }).bytes

t.test('refuses words it does not understand, with a hint at --help', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': image })
  const cases: [words: string[], says: RegExp][] = [
    [[], /input/],
    [['-', '-', '-'], /3/],
    [['--passphrase-fd', '0', '--', '-'], /standard input cannot have both the image and the passphrase/],
    [['http://', 'b.img'], /is no address/],
    [['a.qcow2', 'b.img', '--backing-file', 'https://['], /is no address/],
    [['a.qcow2', 'b.img', 'c.img'], /3/],
    [['a.qcow2', 'b.img', '--', '--quiet'], /3/],
    [['a.qcow2', 'b.img', '--frobnicate'], /frobnicate/],
    [['a.qcow2', 'b.img', '-x'], /x/],
    [['a.qcow2', 'b.img', '--_', 'c'], /_/],
    [['a.qcow2', 'b.img', '--backing-file'], /backing-file/],
    [['a.qcow2', 'b.img', '--backing-file='], /backing-file/],
    [['a.qcow2', 'b.img', '--backing-format'], /backing-format/],
    [['a.qcow2', 'b.img', '--backing-format', 'vmdk'], /vmdk/],
    [['a.qcow2', 'b.img', '--references'], /references/],
    [['a.qcow2', 'b.img', '--references', 'all'], /same-directory.*any.*none/],
    [['a.qcow2', 'b.img', '--snapshot'], /snapshot/],
    [['a.qcow2', 'b.img', '--data-file'], /data-file/],
    [['a.qcow2', 'b.img', '--spool-dir'], /spool-dir/],
    [['a.qcow2', 'b.img', '--spool-dir='], /--spool-dir needs the name of a folder/],
    [['a.qcow2', 'b.img', '--no-spool-dir'], /--spool-dir needs the name of a folder/],
    [['a.qcow2', 'b.img', '--no-header'], /--header needs a word: --no-header means nothing/],
    [['a.qcow2', 'b.img', '--passphrase-file'], /passphrase-file/],
    [['a.qcow2', 'b.img', '--passphrase-file', '-q'], /passphrase-file/],
    [
      ['a.qcow2', 'b.img', '--no-passphrase-file'],
      /--passphrase-file needs a word: --no-passphrase-file means nothing/,
    ],
    [['a.qcow2', 'b.img', '--passphrase-file.x=pw'], /passphrase-file\.x/],
    [['a.qcow2', 'b.img', '--passphrase-fd'], /passphrase-fd/],
    [['a.qcow2', 'b.img', '--no-passphrase-fd'], /passphrase-fd/],
    [['a.qcow2', 'b.img', '--passphrase-fd', '0', '--passphrase-file', 'pw'], /passphrase-fd.*passphrase-file/],
    [['a.qcow2', 'b.img', '--start'], /start/],
    [['a.qcow2', 'b.img', '--end'], /end/],
    [['a.qcow2', 'b.img', '--start', '1X'], /1X.*64K/],
    [['a.qcow2', 'b.img', '--threads'], /threads/],
    [['a.qcow2', 'b.img', '-j'], /j/],
  ]
  for (const [words, says] of cases) {
    await t.test(words.join(' ') || '(no words)', async (t) => {
      const error: unknown = await parseCommandLine(words).catch((error: unknown) => error)
      t.ok(error instanceof CommandLineError)
      const { code, stdout, stderr } = await runCommand(words, { cwd, isCovered: words.length === 0 })
      t.equal(code, 2)
      t.match(stderr, ONE_LINE_AND_HINT)
      t.match(stderr.split('\n')[0], says)
      t.equal(stdout.length, 0)
    })
  }
  t.same(readdirSync(cwd), ['a.qcow2'], 'nothing was written')
})

t.test('shows words with control characters in them on one line, without these', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': image })
  const nasty = '\u001b[31mred\u0007\nsecond line\u202e\u2028'
  const cases: string[][] = [
    [`--${nasty}`, 'a.qcow2', 'b.img'],
    ['a.qcow2', 'b.img', '--start', nasty],
    ['a.qcow2', 'b.img', '--end', nasty],
    ['a.qcow2', 'b.img', '--references', nasty],
    ['a.qcow2', 'b.img', '--backing-format', nasty],
  ]
  for (const words of cases) {
    await t.test(quoteText(words.join(' ')), async (t) => {
      const { code, stderr } = await runCommand(words, { cwd })
      t.equal(code, 2)
      t.match(stderr, ONE_LINE_AND_HINT)
      t.match(stderr, /red/)
    })
  }
})

t.test('refuses what makes sense as words, but not for this image or this folder', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': image, 'b.img': 'old', folder: {} })
  const cases: [words: string[], says: RegExp][] = [
    [['a.qcow2', 'b.img'], /"b\.img".*exists.*force/],
    [['a.qcow2', 'a.qcow2'], /"a\.qcow2".*exists/],
    [['--force', 'a.qcow2', 'a.qcow2'], /"a\.qcow2".*read from/],
    [['--force', 'a.qcow2', './folder/../a.qcow2'], /read from/],
    [['--force', 'a.qcow2', 'folder'], /"folder".*folder/],
    [['a.qcow2', ''], /output/],
    [['', 'c.img'], /input/],
    [['--snapshot', 'none such', 'a.qcow2', 'c.img'], /"none such"/],
    [['--snapshot', '\u001b[31m', 'a.qcow2', 'c.img'], /u001b/],
    [['--start', '5', '--end', '4', 'a.qcow2', 'c.img'], /end/],
    [['--threads', 'many', 'a.qcow2', 'c.img'], /threads/],
    [['-j', '-1', 'a.qcow2', 'c.img'], /threads/],
    [['-j1.5', 'a.qcow2', 'c.img'], /threads/],
  ]
  for (const [words, says] of cases) {
    await t.test(quoteText(words.join(' ')), async (t) => {
      const { code, stderr } = await runCommand(words, { cwd })
      t.equal(code, 2)
      t.match(stderr, ONE_LINE)
      t.match(stderr, says)
    })
  }
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'b.img', 'folder'], 'nothing was written')
})

t.test('reads numbers of bytes with suffixes', async (t) => {
  const cases: [word: string, bytes: number][] = [
    ['0', 0],
    ['007', 7],
    ['512', 512],
    ['1k', 1024],
    ['3K', 3072],
    ['2M', 2 * 2 ** 20],
    ['5g', 5 * 2 ** 30],
    ['1T', 2 ** 40],
    ['8191T', 8191 * 2 ** 40],
    ['9007199254740991', 2 ** 53 - 1],
  ]
  for (const [word, bytes] of cases) {
    const request = await parseCommandLine(['--start', word, `--end=${word}`, 'a'])
    t.match(request, { kind: 'convert', options: { start: bytes, end: bytes } }, word)
  }
})

t.test('refuses anything else as a number of bytes', async (t) => {
  const words = [
    '-1',
    '1.5',
    '1e3',
    '0x10',
    '1KB',
    '1 K',
    'K',
    'ten',
    '９',
    '9007199254740992',
    '8192T',
    '9'.repeat(400),
  ]
  for (const word of words) {
    for (const name of ['start', 'end']) {
      await t.rejects(parseCommandLine(['a', `--${name}=${word}`]), { message: new RegExp(`--${name}: `) }, word)
    }
  }
})

t.test('takes a dash for standard input and standard output', async (t) => {
  const cases: [words: string[], input: string | undefined, output: string | undefined][] = [
    [['-'], undefined, undefined],
    [['-', '-'], undefined, undefined],
    [['-', 'b'], undefined, 'b'],
    [['a', '-'], 'a', undefined],
    [['--quiet', '-'], undefined, undefined],
    [['-', '--quiet', 'b'], undefined, 'b'],
    [['--', '-', '-'], undefined, undefined],
    [['-q', '--', 'a', '-'], 'a', undefined],
    [['./-', '--quiet', './-'], './-', './-'],
    [['--passphrase-fd', '3', '-'], undefined, undefined],
    [['--passphrase-fd', '0', 'a', '-'], 'a', undefined],
  ]
  for (const [words, input, output] of cases) {
    const request = await parseCommandLine(words)
    const { kind } = request
    t.same(kind === 'convert' && [request.input, request.output], [input, output], words.join(' '))
  }
})

t.test('takes what begins like an address for one, but as an output', async (t) => {
  const url = new URL('https://example.org/a.qcow2')
  const words = ['--backing-file', 'HTTP://example.org/b', '--data-file', 'https://example.org/c', url.href, url.href]
  for (const given of [words, [url.href, url.href]]) {
    const request = await parseCommandLine(given)
    t.match(request, { kind: 'convert', input: url, output: url.href })
  }
  t.match(await parseCommandLine(words), {
    options: { backingFile: new URL('http://example.org/b'), dataFile: new URL('https://example.org/c') },
  })
  // Which protocols there are is the library's business.
  for (const word of ['file:///a', 'ftp://x', 'xhttp://y']) {
    t.match(await parseCommandLine([word]), { input: new URL(word) })
  }
  for (const word of ['http:', './http://x', 'C:/disk.qcow2', 'a b://c']) {
    t.match(await parseCommandLine([word]), { input: word })
  }
})

t.test('takes a folder for the copy, whatever its name', async (t) => {
  for (const [words, folder] of [
    [['--quiet'], undefined],
    [['--spool-dir', 'x'], 'x'],
    [['--spool-dir=/a b'], '/a b'],
    [['--spool-dir', 'x', '--spool-dir', '007'], '007'],
    [['--spool-dir=false'], 'false'],
  ] as const) {
    const request = await parseCommandLine([...words, 'a'])
    t.equal(request.kind === 'convert' && request.options.spoolDirectory, folder, words.join(' '))
  }
})

t.test('takes the number of a descriptor, and nothing that could be taken for one', async (t) => {
  for (const [words, fd] of [
    [['--passphrase-fd', '0'], 0],
    [['--passphrase-fd=003'], 3],
    [['--passphrase-fd', '2147483647'], 2 ** 31 - 1],
    [['--passphrase-fd', 'x', '--passphrase-fd', '4'], 4],
    [['--quiet'], undefined],
  ] as const) {
    const request = await parseCommandLine([...words, 'a'])
    t.equal(request.kind === 'convert' && request.passphrases?.fd, fd, words.join(' '))
  }
  for (const word of [
    '',
    ' ',
    'stdin',
    '-',
    '-1',
    '+3',
    '1.5',
    '1e1',
    '0x3',
    '３',
    '3 ',
    '2147483648',
    '9'.repeat(400),
  ]) {
    await t.rejects(
      parseCommandLine([`--passphrase-fd=${word}`, 'a']),
      { message: /^--passphrase-fd: found "/, constructor: CommandLineError },
      word,
    )
  }
})

t.test('takes files of passphrases in their order, each with one name', async (t) => {
  const cases: [words: string[], files: string[]][] = [
    [['--quiet', 'a', 'b'], []],
    [['--passphrase-file', 'x', 'a', 'b'], ['x']],
    [
      ['--passphrase-file=x', 'a', '--passphrase-file', '007', '--passphrase-file=', 'b'],
      ['x', '007', ''],
    ],
    [
      ['--passphrase-file', 'x', '--passphrase-file', 'x', 'a', 'b'],
      ['x', 'x'],
    ],
  ]
  for (const [words, files] of cases) {
    const request = await parseCommandLine(words)
    t.match(request, { kind: 'convert', input: 'a', output: 'b' })
    t.same(request.kind === 'convert' && request.passphrases?.files, files, words.join(' '))
  }
})

t.test('of an option that is given more than once the last one counts', async (t) => {
  const words = `--start 1 --start 2 --end 5 --end 6K -s a -s b --data-file a --data-file b --backing-file a --backing-file b
    --backing-format raw --backing-format qcow2 --spool-dir a --spool-dir b --references any --references none -j 1 -j 2 --force --no-force
    --no-sparse --sparse --fsync --no-fsync --salvage --no-salvage --quiet --no-quiet --debug --no-debug
    --progress --no-progress --target-is-zero --no-target-is-zero --digest md5 --digest sha1 --verify --no-verify`
  const request = await parseCommandLine([...words.split(/\s+/), 'in'])
  t.match(request, {
    options: {
      force: false,
      snapshot: 'b',
      backingFile: 'b',
      backingFormat: 'qcow2',
      dataFile: 'b',
      spoolDirectory: 'b',
      references: 'none',
      start: 2,
      end: 6144,
      sparse: true,
      targetIsZero: false,
      fsync: false,
      digest: 'sha1',
      verify: false,
      threads: 2,
    },
    progress: 'none',
    isQuiet: false,
    isSalvaging: false,
    isDebug: false,
  })
  await t.rejects(parseCommandLine(['--start', '1', '--start', 'x', 'in']), { message: /^--start: found "x"/ })
})

t.test('tells another backing file, none at all and the recorded one apart', async (t) => {
  const cases: [words: string[], backingFile: string | null | undefined][] = [
    [['--quiet'], undefined],
    [['--no-backing-file'], null],
    [['--backing-file', 'base'], 'base'],
    [['--backing-file=false'], 'false'],
  ]
  for (const [words, backingFile] of cases) {
    const request = await parseCommandLine([...words, 'a'])
    t.equal(request.kind === 'convert' && request.options.backingFile, backingFile, words.join(' '))
  }
})
