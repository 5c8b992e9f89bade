/**
 * docs/errors.md and what other documents say about codes: every code of the code, with its class, and none besides. And that links
 * lead somewhere.
 */
import { existsSync, readdirSync } from 'node:fs'
import t from 'tap'
import ts from 'typescript'
import * as api from '../lib/index.js'
import { documentText, fencedBlocks, quoted, tableWith } from './fixtures/markdown.js'
import { sourceFiles } from './fixtures/source-files.js'

const CODE = /^ERR_QCOW2_\w+$/

/** The classes that `lib/` throws each code with, by code: `new Qcow2FormatError('ERR_...')`. */
function classesByCode(): Map<string, Set<string>> {
  const classes = new Map<string, Set<string>>()
  for (const { path, text } of sourceFiles('lib')) {
    const visit = (node: ts.Node): void => {
      if (ts.isNewExpression(node) && ts.isIdentifier(node.expression) && node.arguments?.[0] !== undefined) {
        for (const code of literalsIn(node.arguments[0]).filter((literal) => CODE.test(literal))) {
          classes.set(code, (classes.get(code) ?? new Set()).add(node.expression.text))
        }
      }
      ts.forEachChild(node, visit)
    }
    visit(ts.createSourceFile(path, text, ts.ScriptTarget.Latest))
  }
  return classes
}

/** All string literals of an expression: the code may depend on a condition. */
function literalsIn(node: ts.Node): string[] {
  if (ts.isStringLiteral(node)) return [node.text]
  const found: string[] = []
  ts.forEachChild(node, (child) => void found.push(...literalsIn(child)))
  return found
}

const documents = [
  'README.md',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  ...readdirSync(new URL('../../docs/', import.meta.url))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
  'bench/README.md',
  'examples/README.md',
]
const guide = documentText('docs/errors.md')
const rows = tableWith(guide, 'what helps')
const thrown = classesByCode()

t.test('every code is thrown by the package, always with the same class', async (t) => {
  for (const code of Object.keys(api.ERROR_CODES)) {
    t.equal(thrown.get(code)?.size, 1, `${code}: ${[...(thrown.get(code) ?? [])].join(', ')}`)
  }
  t.strictSame([...thrown.keys()].sort(), Object.keys(api.ERROR_CODES).sort(), 'and no other code is')
})

t.test('docs/errors.md has every code, once, with the class that it is thrown with', async (t) => {
  t.strictSame(rows.flatMap((row) => quoted(row['code']!)).sort(), Object.keys(api.ERROR_CODES).sort())
  for (const row of rows) {
    const [code = ''] = quoted(row['code']!)
    const [name = ''] = thrown.get(code) ?? []
    t.ok(name in api, `${name} is exported`)
    t.equal(row['class'], name.replace(/^Qcow2(\w+)Error$/, '$1').toLowerCase(), code)
    t.not(row['when'], '', `${code} says when`)
  }
})

t.test('docs/errors.md has every code of a warning, and no other', async (t) => {
  const used = sourceFiles('lib').flatMap(({ text }) => text.match(/WARN_QCOW2_\w+/g) ?? [])
  t.ok(used.length > 0)
  const [, warnings = ''] = guide.split('Warnings (`image.warnings`)')
  t.strictSame(
    tableWith(warnings, 'code')
      .flatMap((row) => quoted(row['code']!))
      .sort(),
    [...new Set(used)].sort(),
  )
})

t.test('documents mention no code that does not exist', async (t) => {
  const known = new Set([
    ...Object.keys(api.ERROR_CODES),
    ...sourceFiles('lib').flatMap(({ text }) => text.match(/WARN_QCOW2_\w+/g) ?? []),
  ])
  let mentions = 0
  for (const path of documents) {
    for (const [mention] of documentText(path).matchAll(/\b(ERR|WARN)_QCOW2_\w+/g)) {
      mentions++
      t.ok(known.has(mention), `${mention} in ${path}`)
    }
  }
  t.ok(mentions > known.size, `${mentions} mentions`)
})

t.test('documents link to files that are there', async (t) => {
  let links = 0
  for (const path of documents) {
    const base = new URL(`../../${path}`, import.meta.url)
    for (const [, target = ''] of documentText(path).matchAll(/\]\(([^)#\s]+)[^)]*\)/g)) {
      if (/^https?:/.test(target)) continue
      links++
      t.ok(existsSync(new URL(target, base)), `${target} in ${path}`)
    }
  }
  t.ok(links > 8, `${links} links`)
})

t.test('examples/README.md lists every example', async (t) => {
  const list = documentText('examples/README.md')
  for (const { path } of sourceFiles('examples')) {
    const name = path.replace('examples/', '')
    t.ok(list.includes(`](${name})`), name)
  }
})

t.test('the Job of docs/parts.md has as many pods as its script is told that there are parts', async (t) => {
  const [job = ''] = fencedBlocks(documentText('docs/parts.md'))
    .filter(({ language }) => language === 'yaml')
    .map(({ text }) => text)
  const [, completions] = /^ +completions: (\d+)/m.exec(job) ?? []
  const [, parts] = /command: \[node, convert-in-parts\.js, [^ ]+, [^ ]+, '(\d+)'\]/.exec(job) ?? []
  t.ok(completions)
  t.equal(parts, completions)
})

t.test('documents mention no class of errors that does not exist', async (t) => {
  const names = ['README.md', 'docs/errors.md'].flatMap((path) => documentText(path).match(/\bQcow2\w*Error\b/g) ?? [])
  t.ok(names.length > 0)
  for (const name of new Set(names)) t.ok(name in api, name)
})
