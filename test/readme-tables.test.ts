/**
 * README.md's tables: the options are those of --help, with their defaults; the exit codes and classes are those of the code.
 */
import t from 'tap'
import { exitCodeOf, Interrupted, LEAKED, SALVAGED } from '../bin/exit-code.js'
import { CommandLineError } from '../bin/command-line.js'
import * as api from '../lib/index.js'
import { documentText, quoted, tableWith } from './fixtures/markdown.js'
import { runCommand } from './fixtures/run-command.js'

const readme = documentText('README.md')

interface Option {
  readonly name: string
  readonly alias: string | undefined
  readonly default: string | undefined
  readonly choices: readonly string[]
}

/** What --help says about each option. */
async function optionsOfHelp(): Promise<Option[]> {
  const { stdout } = await runCommand(['--help'])
  const [, list = ''] = /\nOptions:\n(.*?)\n\n/s.exec(stdout.toString()) ?? []
  return list.split(/\n(?= +(?:-\w, )?--)/).map((part) => {
    const text = part.replace(/\s+/g, ' ')
    const [, alias, name = ''] = /^ (?:-(\w), )?--([\w-]+)/.exec(text) ?? []
    const [, choices = ''] = /\[choices: (.*?)\]/.exec(text) ?? []
    const [, byDefault] = /\[default: (.*?)\]/.exec(text) ?? []
    return { name, alias, default: byDefault, choices: [...choices.matchAll(/"(.*?)"/g)].map(([, word]) => word!) }
  })
}

/** What the README says about each option; a row may be about several. */
function optionsOfReadme(): (Option & { readonly meaning: string })[] {
  return tableWith(readme, 'option').flatMap((row) => {
    const words = quoted(row['option']!)
    return words.flatMap((word, index) => {
      if (!word.startsWith('--')) return []
      const name = word.replace(/^--(\[no-\]|no-)?/, '').replace(/ .*/, '')
      // The short name stands before the long one.
      const [, alias] = /^-(\w)$/.exec(words[index - 1] ?? '') ?? []
      return [{ name, alias, default: row['default'], choices: [], meaning: row['meaning']! }]
    })
  })
}

// The help speaks of values, the README of what they mean.
const DEFAULTS: Readonly<Record<string, readonly [help: string | undefined, readme: string]>> = {
  force: ['false', 'off'],
  snapshot: [undefined, 'the active disk'],
  'backing-file': [undefined, 'the one the image names'],
  'backing-format': ['as recorded', 'as the image records'],
  'data-file': [undefined, 'the one the image names'],
  header: [undefined, ''],
  'spool-dir': ['that of the system', 'that of the system'],
  references: ['"same-directory"', '`same-directory`'],
  start: ['0', 'the whole disk'],
  end: ['the last', 'the whole disk'],
  sparse: ['true', 'sparse'],
  'target-is-zero': ['false', 'off'],
  threads: ['one per CPU, at most 4; of images from servers 2', 'one per CPU, at most 4'],
  salvage: ['false', 'off'],
  'passphrase-file': ['ask', 'asked for on a terminal'],
  'passphrase-fd': [undefined, ''],
  digest: [undefined, ''],
  verify: ['false', 'off'],
  fsync: ['false', 'off'],
  progress: ['bar, if it is a terminal', 'on a terminal'],
  quiet: ['false', 'off'],
  debug: ['false', 'off'],
  completion: [undefined, ''],
  help: [undefined, ''],
  version: [undefined, ''],
}

t.test('the README has every option that --help lists, and no other', async (t) => {
  const names = (await optionsOfHelp()).map(({ name }) => name)
  t.ok(names.length > 10, `${names.length} options`)
  t.strictSame([...new Set(optionsOfReadme().map(({ name }) => name))].sort(), names.sort())
})

t.test('options have the same short names in both', async (t) => {
  const helped = new Map((await optionsOfHelp()).map(({ name, alias }) => [name, alias]))
  for (const { name, alias } of optionsOfReadme()) {
    t.equal(alias, helped.get(name), name)
  }
})

t.test('options have the same defaults in both', async (t) => {
  for (const { name, default: byDefault } of await optionsOfHelp()) {
    t.equal(byDefault, DEFAULTS[name]?.[0], `--${name} in the help`)
  }
  for (const { name, default: byDefault } of optionsOfReadme()) {
    t.equal(byDefault, DEFAULTS[name]?.[1], `--${name} in the README`)
  }
})

t.test('where an option takes one of some words, the README names them all', async (t) => {
  const choosing = (await optionsOfHelp()).filter(({ choices }) => choices.length > 0)
  t.ok(choosing.length > 1, `${choosing.length} options`)
  for (const { name, choices } of choosing) {
    const { meaning = '' } = optionsOfReadme().find((option) => option.name === name) ?? {}
    t.strictSame(quoted(meaning).sort(), [...choices].sort(), name)
  }
})

t.test('the --no-... forms that the README shows are understood', async (t) => {
  const words = tableWith(readme, 'option').flatMap((row) => [...quoted(row['option']!), ...quoted(row['meaning']!)])
  const negative = words.map((word) => word.replace('[no-]', 'no-')).filter((word) => word.startsWith('--no-'))
  t.ok(negative.length > 2, negative.join(', '))
  for (const word of negative) {
    const { stderr } = await runCommand([word, 'no-such-image.qcow2', '-'])
    t.notMatch(stderr, /unknown option/, word)
    t.match(stderr, /no-such-image/, word)
  }
})

const rows = tableWith(readme, 'exit code')

type ErrorClass = new (code: 'ERR_QCOW2_CLOSED', message: string) => api.Qcow2Error

const classes = Object.entries(api).filter(
  ([, value]) => typeof value === 'function' && value.prototype instanceof api.Qcow2Error,
) as unknown as [string, ErrorClass][]

t.test('every class of errors stands in the table with its exit code, and no other class does', async (t) => {
  t.ok(classes.length > 4, `${classes.length} classes`)
  t.strictSame(rows.flatMap((row) => quoted(row['class']!)).sort(), classes.map(([name]) => name).sort())
  for (const [name, Class] of classes) {
    const row = rows.find((row) => quoted(row['class']!).includes(name))
    t.equal(row?.['exit code'], String(exitCodeOf(new Class('ERR_QCOW2_CLOSED', 'closed'))), name)
  }
})

t.test('the table has every exit code that there is', async (t) => {
  const signals = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const
  const codes = [
    0,
    SALVAGED,
    LEAKED,
    exitCodeOf(new Error('a bug')),
    exitCodeOf(new CommandLineError('wrong')),
    ...classes.map(([, Class]) => exitCodeOf(new Class('ERR_QCOW2_CLOSED', 'closed'))),
    ...signals.map((signal) => exitCodeOf(new Interrupted(signal))),
  ]
  const listed = rows.flatMap((row) => row['exit code']!.split(', '))
  t.strictSame(listed.sort(), [...new Set(codes)].map(String).sort())
})

t.test('the exit codes of signals stand beside their names', async (t) => {
  const found = rows.filter(({ meaning }) => meaning!.includes('SIG'))
  t.equal(found.length, 1)
  for (const row of found) {
    const names = row['meaning']!.match(/SIG[A-Z]+/g) ?? []
    const codes = names.map((name) => String(exitCodeOf(new Interrupted(name as 'SIGINT'))))
    t.equal(row['exit code'], codes.join(', '), names.join(', '))
  }
})

t.test('the exit codes of --help are those of the table', async (t) => {
  const listed = new Set<string>()
  for (const command of ['qcow2-to-raw', 'qcow2-info'] as const) {
    const { stdout } = await runCommand(['--help'], { command })
    const [, list = ''] = /Exit codes: (.*)/s.exec(stdout.toString().replace(/\s+/g, ' ')) ?? []
    for (const code of list.match(/\b\d+\b/g) ?? []) listed.add(code)
  }
  t.strictSame([...listed].sort(), rows.flatMap((row) => row['exit code']!.split(', ')).sort())
})
