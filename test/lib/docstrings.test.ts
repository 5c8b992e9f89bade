// What a user's editor shows: every export of the package, every option and every method comes with its docstring.
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import t from 'tap'
import { ERROR_CODES } from '../../lib/errors.js'

const declarations = fileURLToPath(new URL('../../lib/index.d.ts', import.meta.url))
const program = ts.createProgram([declarations], { noLib: true, types: [], noResolve: false })
const checker = program.getTypeChecker()
const index = program.getSourceFile(declarations)!

const resolved = (symbol: ts.Symbol): ts.Symbol =>
  (symbol.flags & ts.SymbolFlags.Alias) !== 0 ? checker.getAliasedSymbol(symbol) : symbol

const exported = checker
  .getExportsOfModule(checker.getSymbolAtLocation(index)!)
  .map((symbol) => ({ name: symbol.name, symbol: resolved(symbol) }))

/** The text of a docstring, without its tags. */
const docOf = (symbol: ts.Symbol): string =>
  ts.displayPartsToString(symbol.getDocumentationComment(checker)).replace(/\s+/g, ' ').trim()

/** The public properties and methods that a class or an interface declares itself. */
function membersOf(symbol: ts.Symbol): ts.Symbol[] {
  return (symbol.declarations ?? [])
    .filter((node) => ts.isClassDeclaration(node) || ts.isInterfaceDeclaration(node))
    .flatMap((node) => [...node.members])
    .filter((member) => (ts.getCombinedModifierFlags(member) & ts.ModifierFlags.Private) === 0)
    .flatMap(({ name }) => (name === undefined || ts.isPrivateIdentifier(name) ? [] : [name]))
    .map((name) => checker.getSymbolAtLocation(name)!)
    .filter((member) => !member.name.startsWith('_'))
}

t.test('the declarations can be read, and name what the package exports', async (t) => {
  const names = exported.map(({ name }) => name)
  for (const name of [
    'convert',
    'createReadStream',
    'Qcow2Image',
    'Qcow2ReadStream',
    'Qcow2Error',
    'Qcow2OpenOptions',
  ]) {
    t.ok(names.includes(name), name)
  }
  const unresolved = exported.filter(({ symbol }) => symbol.declarations === undefined).map(({ name }) => name)
  t.strictSame(unresolved, [])
})

t.test('every export says what it is', async (t) => {
  for (const { name, symbol } of exported) {
    t.match(docOf(symbol), /^\S.{8,}[.;:)]/, name)
  }
})

t.test('every option and every member of a class says what it is', async (t) => {
  const withMembers = exported.filter(
    ({ name, symbol }) => (symbol.flags & ts.SymbolFlags.Class) !== 0 || /(Options|Result|Source|Progress)$/.test(name),
  )
  let seen = 0
  for (const { name, symbol } of withMembers) {
    for (const member of membersOf(symbol)) {
      seen++
      t.not(docOf(member), '', `${name}.${member.name}`)
    }
  }
  t.ok(seen > 40, `${seen} members`)
})

t.test('docstrings name no error code that does not exist', async (t) => {
  const codes = Object.keys(ERROR_CODES)
  // An ellipsis stands for all codes that begin so.
  const isKnown = (mention: string): boolean =>
    mention.endsWith('...') ? codes.some((code) => code.startsWith(mention.slice(0, -3))) : codes.includes(mention)
  let seen = 0
  for (const { fileName, text } of program.getSourceFiles()) {
    if (!fileName.includes('/dist/lib/')) continue
    for (const [mention] of text.matchAll(/ERR_QCOW2_\w+(\.\.\.)?/g)) {
      seen++
      t.ok(isKnown(mention), `${mention}, in ${fileName.replace(/.*\/dist\//, '')}`)
    }
  }
  t.ok(seen > 40, `${seen} mentions`)
})

t.test('functions and classes that reach for files tell the codes of their errors', async (t) => {
  const throwing = (symbol: ts.Symbol): string[] =>
    symbol
      .getJsDocTags(checker)
      .filter((tag) => tag.name === 'throws')
      .map((tag) => ts.displayPartsToString(tag.text))
  const open = exported
    .flatMap(({ symbol }) => [symbol, ...(symbol.exports?.values() ?? [])])
    .filter((symbol) => symbol.name === 'open' || symbol.name === 'convert')
  t.equal(open.length, 2)
  for (const symbol of open) {
    t.ok(throwing(symbol).length > 0, `${symbol.name} has @throws`)
  }
})
