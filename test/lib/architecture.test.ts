// The house: which room may import which, and which rooms may reach for files, the network and threads.
import t from 'tap'
import {
  importsOf,
  namesUsed,
  sourceFiles,
  statementsBesideReexports,
  type SourceFile,
} from '../fixtures/source-files.js'

/** From the top floor down: a room imports only from floors below its own (and within itself). */
const FLOORS: readonly (readonly string[])[] = [
  ['bin'],
  ['index'],
  ['convert'],
  ['sink'],
  ['digest'],
  ['stream'],
  ['image'],
  ['check', 'decode'],
  ['crypto'],
  ['format', 'source'],
  ['errors'],
]

const FILES = /^(node:)?fs(\/|$)/
const NETWORK = /^(node:)?(https?|http2|net|tls|dgram|dns)(\/|$)|^undici$/
const THREADS = /^(node:)?(worker_threads|child_process|cluster)$|^piscina$/
const NETWORK_GLOBALS = ['fetch', 'WebSocket', 'EventSource', 'XMLHttpRequest']
const THREAD_GLOBALS = ['Worker', 'SharedWorker']
const BACK_DOORS = ['require', 'createRequire', 'getBuiltinModule', 'eval', 'Function']

const lib = sourceFiles('lib')
const bin = sourceFiles('bin')
const all = [...lib, ...bin]

/** `lib/format/header.ts` stands in `format`, `lib/errors.ts` in `errors`, all of `bin/` in `bin`. */
function roomOf(path: string): string {
  const [top, second = ''] = path.replace(/\.ts$/, '').split('/')
  return top === 'lib' ? second : top!
}

const isOwn = (name: string): boolean => /^(lib|bin)\//.test(name)

const floorOf = (path: string): number => FLOORS.findIndex((rooms) => rooms.includes(roomOf(path)))

const mayImport = (from: string, to: string): boolean => roomOf(from) === roomOf(to) || floorOf(to) > floorOf(from)

/** Files that import what they should not, as `file -> module`. */
function offences(files: readonly SourceFile[], isForbidden: (name: string, from: string) => boolean): string[] {
  return files.flatMap((file) =>
    importsOf(file)
      .filter((name) => isForbidden(name, file.path))
      .map((name) => `${file.path} -> ${name}`),
  )
}

const outside = (...rooms: readonly string[]): SourceFile[] => lib.filter(({ path }) => !rooms.includes(roomOf(path)))
const inside = (...rooms: readonly string[]): SourceFile[] => lib.filter(({ path }) => rooms.includes(roomOf(path)))

/** Files that use one of these names, as `file: name`. */
function users(files: readonly SourceFile[], names: readonly string[]): string[] {
  return files.flatMap((file) => {
    const used = namesUsed(file)
    return names.filter((name) => used.has(name)).map((name) => `${file.path}: ${name}`)
  })
}

t.test('every kind of import is seen', async (t) => {
  const text = [
    `import a, { b } from './header.js'`,
    `import type { C } from '../errors.js'`,
    `import './units.js'`,
    `export { d } from '../image/image.js'`,
    `export type * from 'node:net'`,
    `const later = await import('node:fs')`,
    `let e: import('piscina').Piscina`,
    `// import 'not-this'`,
    `const f = "import 'nor this'"`,
  ].join('\n')
  t.strictSame(importsOf({ path: 'lib/format/sample.ts', text }).sort(), [
    'lib/errors.ts',
    'lib/format/header.ts',
    'lib/format/units.ts',
    'lib/image/image.ts',
    'node:fs',
    'node:net',
    'piscina',
  ])
  const used = namesUsed({ path: 'x.ts', text: 'globalThis.fetch(a); b.Worker(); ({ eval: 1 }); new EventSource()' })
  t.strictSame([...used].sort(), ['EventSource', 'a', 'b', 'fetch', 'globalThis'])
})

t.test('an arrow that points upward is told from one that points down', async (t) => {
  const arrows: [from: string, to: string, isAllowed: boolean][] = [
    ['lib/image/mapping.ts', 'lib/format/entries.ts', true],
    ['lib/image/mapping.ts', 'lib/image/chain.ts', true],
    ['lib/sink/find-output.ts', 'lib/source/file.ts', true],
    ['lib/format/entries.ts', 'lib/image/mapping.ts', false],
    ['lib/format/entries.ts', 'lib/source/file.ts', false],
    ['lib/source/file.ts', 'lib/format/units.ts', false],
    ['lib/errors.ts', 'lib/format/units.ts', false],
    ['lib/convert.ts', 'lib/index.ts', false],
    ['lib/index.ts', 'bin/exit-code.ts', false],
  ]
  for (const [from, to, isAllowed] of arrows) {
    t.equal(mayImport(from, to), isAllowed, `${from} -> ${to}`)
  }
})

t.test('every file stands in a room of the house', async (t) => {
  t.ok(lib.length > 30 && bin.length > 1, `${lib.length} files in lib, ${bin.length} in bin`)
  const homeless = all.filter(({ path }) => floorOf(path) === -1).map(({ path }) => path)
  t.strictSame(homeless, [])
})

t.test('nothing imports upward', async (t) => {
  t.strictSame(
    offences(all, (name, from) => isOwn(name) && !mayImport(from, name)),
    [],
  )
})

t.test('imports between rooms lead to files that are there', async (t) => {
  const paths = new Set(all.map(({ path }) => path))
  t.strictSame(
    offences(all, (name) => isOwn(name) && !paths.has(name)),
    [],
  )
})

t.test('the commands import the library by its front door alone', async (t) => {
  t.strictSame(
    offences(bin, (name) => name.startsWith('lib/') && name !== 'lib/index.ts'),
    [],
  )
  t.ok(
    bin.some((file) => importsOf(file).includes('lib/index.ts')),
    'and do import it',
  )
})

t.test('the examples import the package by its name, as its users do', async (t) => {
  const examples = sourceFiles('examples')
  t.strictSame(
    offences(examples, (name) => isOwn(name)),
    [],
  )
  for (const file of examples) {
    t.ok(importsOf(file).includes('qcow2'), file.path)
  }
})

t.test('the front door only passes things on', async (t) => {
  const [index] = inside('index')
  t.strictSame(statementsBesideReexports(index!), [])
})

t.test('errors stand on nothing', async (t) => {
  t.strictSame(
    offences(inside('errors'), () => true),
    [],
  )
})

t.test('format is bytes in, value out: it imports nothing but itself and errors', async (t) => {
  t.strictSame(
    offences(inside('format'), (name) => !/^lib\/(format\/|errors\.ts$)/.test(name)),
    [],
  )
})

t.test('files are touched in source and sink only', async (t) => {
  t.strictSame(
    offences(outside('source', 'sink'), (name) => FILES.test(name)),
    [],
  )
  t.ok(
    inside('source').some((file) => importsOf(file).some((name) => FILES.test(name))),
    'and are touched there',
  )
})

t.test('the network is touched in source and sink only', async (t) => {
  t.strictSame(
    offences(outside('source', 'sink'), (name) => NETWORK.test(name)),
    [],
  )
  t.strictSame(users(outside('source', 'sink'), NETWORK_GLOBALS), [])
})

/** Asking which thread this is starts none. */
const withoutAsking = (file: SourceFile): SourceFile => ({
  ...file,
  text: file.text.replace(/^import { isMainThread } from 'node:worker_threads'$/m, ''),
})

t.test('threads and processes are started in decode and digest only', async (t) => {
  t.strictSame(
    offences(outside('decode', 'digest').map(withoutAsking), (name) => THREADS.test(name)),
    [],
  )
  t.strictSame(users(outside('decode', 'digest'), THREAD_GLOBALS), [])
})

t.test('no module is loaded past the rules', async (t) => {
  t.strictSame(users(lib, BACK_DOORS), [])
  t.strictSame(
    lib.filter(({ text }) => /getBuiltinModule|process\.binding/.test(text)).map(({ path }) => path),
    [],
  )
})
