/**
 * Headers on the command line: words and files of them, and no value in any message.
 */
import { inspect } from 'node:util'
import { join } from 'node:path'
import t from 'tap'
import { headersOf } from '../../bin/headers.js'
import { CommandLineError } from '../../bin/command-line.js'
import { parseCommandLine } from '../../bin/convert/request.js'
import { thrownBy } from '../fixtures/expect-refusal.js'

t.test('takes names and values', async (t) => {
  const cases: [words: string[], headers: Record<string, string>][] = [
    [[], {}],
    [['Authorization: Bearer abc'], { authorization: 'Bearer abc' }],
    [['X-Token:abc'], { 'x-token': 'abc' }],
    [['a:   b c  '], { a: 'b c' }],
    [['a: b: c'], { a: 'b: c' }],
    [['a:'], { a: '' }],
    [["!#$%&'*+.^_`|~-09: strange, yet allowed"], { "!#$%&'*+.^_`|~-09": 'strange, yet allowed' }],
    [['a: 1', 'b: 2', 'A: 3'], { a: '3', b: '2' }],
    [['cookie: a=@b'], { cookie: 'a=@b' }],
    [
      ['__proto__: x', 'constructor: y'],
      Object.fromEntries([
        ['__proto__', 'x'],
        ['constructor', 'y'],
      ]),
    ],
  ]
  for (const [words, headers] of cases) t.strictSame(Object.entries(headersOf(words)), Object.entries(headers))
})

t.test('takes the lines of files', async (t) => {
  const folder = t.testdir({
    one: 'Authorization: Bearer abc\n\nX-Token: def',
    windows: 'a: 1\r\nb: 2\r\n\r\n',
    empty: '',
    '@odd name': 'c: 3\n',
  })
  const at = (name: string): string => `@${join(folder, name)}`
  t.strictSame(headersOf([at('one')]), { authorization: 'Bearer abc', 'x-token': 'def' })
  t.strictSame(headersOf([at('windows'), 'a: 9']), { a: '9', b: '2' })
  t.strictSame(headersOf([at('empty'), at('@odd name')]), { c: '3' })
})

t.test('refuses what is no header, and does not say what it was', async (t) => {
  const folder = t.testdir({ bad: 'a: 1\nsecret\n', worse: 'se\0cret: x', folded: 'a: 1\n secret: 2\n' })
  const at = (name: string): string => `@${join(folder, name)}`
  for (const word of [
    'secret',
    '',
    ': secret',
    'a secret: b',
    ' a: secret',
    'a: secret\nb: c',
    'ü: secret',
    'secret = b',
    at('bad'),
    at('worse'),
    at('folded'),
  ]) {
    const error = thrownBy(() => headersOf([word]))
    t.ok(error instanceof CommandLineError)
    t.match(
      (error as Error).message,
      /^--header: found no header( as number [12] of ".+")?, allowed are "Name: value" and @FILE with such lines$/,
    )
    t.notMatch(inspect(error), /secret/)
  }
})

t.test('says which file cannot be read, and why', async (t) => {
  const folder = t.testdir({ folder: {} })
  for (const [name, code] of [
    ['missing', 'ENOENT'],
    ['folder', 'EISDIR'],
    ['folder\nx', 'ENOENT'],
  ] as const) {
    const error = thrownBy(() => headersOf([`@${join(folder, name)}`])) as Error
    t.notOk(error instanceof CommandLineError)
    t.match(error.message, new RegExp(`^--header: "[^\\n]*/${name.replace('\n', '\\\\n')}" cannot be read: ${code}$`))
    t.match(error.cause, { code })
  }
})

t.test('is asked for by --header, again and again', async (t) => {
  const folder = t.testdir({ one: 'b: 2' })
  const request = await parseCommandLine([
    '--header',
    'A: 1',
    '--header',
    `@${join(folder, 'one')}`,
    'https://example.org/a.qcow2',
    '--header=c: 3',
    'out.img',
  ])
  t.match(request, {
    kind: 'convert',
    input: new URL('https://example.org/a.qcow2'),
    output: 'out.img',
    options: { http: { headers: { a: '1', b: '2', c: '3' } } },
  })
  for (const words of [['--header'], ['--no-header'], ['--header', 'secret'], ['--header='], ['--header', '--quiet']]) {
    const error: unknown = await parseCommandLine(['in', 'out', ...words]).catch((error: unknown) => error)
    t.ok(error instanceof CommandLineError, words.join(' '))
    t.notMatch((error as Error).message, /secret/)
  }
})
