/** Names of options in messages become those that are typed; everything else stays. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { inFlags } from '../../bin/flags.js'
import { runCommand } from '../fixtures/run-command.js'
import { sourceFiles } from '../fixtures/source-files.js'

t.test('names the flag where a message names an option', async (t) => {
  const cases: [message: string, expected: string][] = [
    ['"a": exists already; the option force replaces it', '"a": exists already; the option --force replaces it'],
    [
      "the backing file is not opened because of references: 'same-directory'; references: 'any' would allow it",
      'the backing file is not opened because of --references same-directory; --references any would allow it',
    ],
    ['threads: found -1, allowed is an integer', '--threads: found -1, allowed is an integer'],
    ['something: found 1, allowed is 2', 'something: found 1, allowed is 2'],
    ['the option limits.virtualSize allows 5', 'the option limits.virtualSize allows 5'],
    ['the option unknown', 'the option unknown'],
    ['are sent with the option http.headers', 'are sent with the option --header'],
  ]
  for (const [message, expected] of cases) t.equal(inFlags(message, 'qcow2-to-raw'), expected)
})

t.test('leaves alone what is quoted', async (t) => {
  const message = String.raw`"the option force \" the option force": the option "force"`
  t.equal(inFlags(message, 'qcow2-to-raw'), message)
})

t.test('knows every option that a message of the library names', async (t) => {
  const named = new Set(
    sourceFiles('lib').flatMap(({ text }) =>
      [...text.matchAll(/^[^*]*[`'"].*\bthe option (\w+)(?![\w.])/gm)].map(([, option]) => option!),
    ),
  )
  // The commands have no flags for ceilings.
  t.ok(named.delete('limits') && named.delete('memoryBytes'))
  t.ok(named.size > 3, [...named].join(', '))
  for (const option of named) t.match(inFlags(`the option ${option}`, 'qcow2-to-raw'), /^the option --/, option)
})

t.test('a command is told of no flag that it does not have', async (t) => {
  t.equal(inFlags('the option backingFile', 'qcow2-info'), 'the option backingFile')
  t.equal(inFlags('the option force', 'another'), 'the option force')
  const source = readFileSync(new URL('../../../bin/flags.ts', import.meta.url), 'utf8')
  for (const command of ['qcow2-info', 'qcow2-to-raw'] as const) {
    const help = (await runCommand(['--help'], { command })).stdout.toString()
    const [, table = ''] = new RegExp(`'${command}': \\{([^}]*)\\}`).exec(source) ?? []
    const flags = [...table.matchAll(/: '(--[\w-]+)'/g)].map(([, flag]) => flag!)
    t.ok(flags.length > 3, `${command}: ${flags.length}`)
    for (const flag of flags) t.match(help, new RegExp(`^ +(-\\w, )?${flag} `, 'm'), flag)
  }
})
