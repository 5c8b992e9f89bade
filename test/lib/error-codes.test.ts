/**
 * Every code has a test that expects it: this one reads the others and looks for those that nobody does.
 */
import { readdirSync, readFileSync } from 'node:fs'
import t from 'tap'
import ts from 'typescript'
import { ERROR_CODES } from '../../lib/errors.js'
import { sourceFiles } from '../fixtures/source-files.js'

const TESTS = new URL('../../../test/', import.meta.url)

// These are about errors as such: they make some of their own, and name codes that nothing has thrown.
const NOT_COUNTED = ['lib/errors.test.ts', 'lib/error-codes.test.ts']

/** The codes that a test names, other than to make an error of its own. */
function expectedCodes(text: string): string[] {
  const codes: string[] = []
  const visit = (node: ts.Node): void => {
    const isCode = ts.isStringLiteral(node) && /^(ERR|WARN)_QCOW2_\w+$/.test(node.text)
    if (isCode && !ts.isNewExpression(node.parent)) codes.push(node.text)
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile('x.ts', text, ts.ScriptTarget.Latest, true))
  return codes
}

const expected = new Map<string, string>()
for (const name of readdirSync(TESTS, { recursive: true, encoding: 'utf8' })) {
  const path = name.replaceAll('\\', '/')
  if (!path.endsWith('.test.ts') || NOT_COUNTED.includes(path)) continue
  for (const code of expectedCodes(readFileSync(new URL(path, TESTS), 'utf8'))) expected.set(code, path)
}

t.test('codes that a test names are told from those of errors that it makes', async (t) => {
  const text = `expect('ERR_QCOW2_A'); new Qcow2Error('ERR_QCOW2_B'); ({ code: 'ERR_QCOW2_C' }); // 'ERR_QCOW2_D'`
  t.strictSame(expectedCodes(text), ['ERR_QCOW2_A', 'ERR_QCOW2_C'])
})

t.test('every code of an error is expected by a test', async (t) => {
  for (const code of Object.keys(ERROR_CODES)) {
    t.ok(expected.has(code), `${code}: ${expected.get(code) ?? 'nowhere'}`)
  }
})

t.test('every code of a warning is expected by a test', async (t) => {
  const codes = new Set(sourceFiles('lib').flatMap(({ text }) => text.match(/WARN_QCOW2_\w+/g) ?? []))
  t.ok(codes.size > 0)
  for (const code of codes) {
    t.ok(expected.has(code), `${code}: ${expected.get(code) ?? 'nowhere'}`)
  }
})

t.test('tests expect no code that does not exist', async (t) => {
  const text = [...sourceFiles('lib'), ...sourceFiles('bin')].map((file) => file.text).join('\n')
  t.strictSame(
    [...expected.keys()].filter((code) => !new RegExp(`\\b${code}\\b`).test(text)),
    [],
  )
})
