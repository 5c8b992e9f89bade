// Bundles what is published as JavaScript, in dist/command: the commands that package.json's `bin` names, the library and the
// entries of its threads, with what they import of packages. They share chunks, so that the package has one copy of each.
//
// Loading some forty modules takes longer than converting a small image. The bundle is CommonJS, for which Node starts
// half of its loader only; dist/package has the module that users import (scripts/build-library.js). What a plain run does
// not need (options, a bar, a pipe) stands in chunks of its own. Functions and classes of ours keep their names, so that
// the stacks of --debug and of users tell something; comments, white space and the names of variables are not kept.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { build, transform } from 'esbuild'
import { minify } from 'terser'
import ts from 'typescript'

const root = join(import.meta.dirname, '..')
const folder = join(root, 'dist/command')
const target = 'node20.19'
const IMPORT_META = `const importMeta = { get url() { return require('node:url').pathToFileURL(__filename).href } };`
// Node shows the line that threw.
const LINE_CHARACTERS = 200

const { bin } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const commands = Object.values(bin).map((path) => basename(path, '.js'))

/** Code of packages is minified fully: whoever has to look at it looks at the package. */
const packages = {
  name: 'packages',
  setup({ onLoad }) {
    onLoad({ filter: /[\\/]node_modules[\\/].*\.[cm]?js$/, namespace: 'file' }, async ({ path }) => {
      const { code } = await transform(readFileSync(path, 'utf8'), { minify: true, target, legalComments: 'none' })
      // lru-cache looks for the clock in case that entries age, ours do not; a mere look makes Node load perf_hooks.
      return { contents: /[\\/]lru-cache[\\/]/.test(path) ? `const performance = undefined;\n${code}` : code }
    })
  },
}

/** Our help texts are ASCII, so wide as they are long: string-width would bring tables of all emoji along, and 30 ms to get ready. */
const plainWidth = {
  name: 'plain-width',
  setup({ onLoad, onResolve }) {
    onResolve({ filter: /^string-width$/ }, () => ({ path: 'string-width', namespace: 'plain' }))
    onLoad({ filter: /./, namespace: 'plain' }, () => ({ contents: 'export default (text) => text.length' }))
  },
}

// Only modules can be cut into chunks, hence two steps.
const { outputFiles, metafile } = await build({
  absWorkingDir: root,
  entryPoints: [
    ...commands.map((name) => ({ in: `dist/bin/${name}.js`, out: name })),
    { in: 'dist/lib/index.js', out: 'library' },
    // The threads' entries stand beside the code that starts them.
    { in: 'dist/lib/decode/worker.js', out: 'worker' },
    { in: 'dist/lib/digest/digest-worker.js', out: 'digest-worker' },
  ],
  outdir: folder,
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target,
  // piscina starts a file of its own, koffi is optional and has native code.
  external: ['piscina', 'koffi'],
  plugins: [packages, plainWidth],
  minifySyntax: true,
  legalComments: 'none',
  logLevel: 'warning',
  metafile: true,
  write: false,
})

mkdirSync(folder, { recursive: true })
writeFileSync(join(folder, 'package.json'), '{ "type": "commonjs" }\n')
for (const { path, text } of outputFiles) {
  const { code } = await transform(text, {
    format: 'cjs',
    platform: 'node',
    target,
    // A real import() would start the other half of the loader.
    supported: { 'dynamic-import': false },
    define: { 'import.meta.url': 'importMeta.url' },
    // Modules are strict without saying so.
    banner: `'use strict';\n${text.includes('import.meta.url') ? IMPORT_META : ''}`,
    logLevel: 'warning',
  })
  writeFileSync(join(folder, basename(path)), await withoutWaste(code))
}
writeFileSync(join(folder, 'THIRD-PARTY.txt'), notices(Object.keys(metafile.inputs)))

/** The code with short names of variables, without white space. */
async function withoutWaste(code) {
  const options = {
    // esbuild has done what matters.
    compress: false,
    mangle: { keep_classnames: true, keep_fnames: true },
    format: { max_line_len: LINE_CHARACTERS },
  }
  const { code: short } = await minify(code, options)
  // Private methods get short names as well, and there is no option against it; their order stays.
  const names = privateNames(code)
  let result = ''
  let end = 0
  for (const [index, name] of privateNames(short).entries()) {
    result += short.slice(end, name.getStart()) + names[index].text
    end = name.end
  }
  return result + short.slice(end)
}

/** Each private name in the code, as often as it is there, in order. */
function privateNames(code) {
  const found = []
  const visit = (node) => {
    if (ts.isPrivateIdentifier(node)) found.push(node)
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile('code.js', code, ts.ScriptTarget.Latest, true))
  return found.sort((a, b) => a.pos - b.pos)
}

/** Names and licences of the packages that the bundle holds code of; those with the same conditions share their text. */
function notices(inputs) {
  const folders = new Set(inputs.flatMap((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(path) ?? []))
  const sharers = new Map()
  for (const path of [...folders].sort()) {
    const { name, version, license } = JSON.parse(readFileSync(join(root, path, 'package.json'), 'utf8'))
    const file = readdirSync(join(root, path)).find((entry) => /^licen[cs]e\b/i.test(entry))
    if (file === undefined) throw new Error(`${name} has no text of its licence`)
    const lines = readFileSync(join(root, path, file), 'utf8')
      .trim()
      .split(/\r?\n/)
    const isOwn = (line) => /^\s*Copyright\b/.test(line)
    const conditions = lines
      .filter((line) => !isOwn(line))
      .join('\n')
      .trim()
    // Where lines end makes no other licence, nor do a heading and the kind of quotation marks.
    const key = conditions
      .replace(/^\(?(The )?(MIT|ISC) License( \((MIT|ISC)\))?\)?$/m, '')
      .replace(/['"]/g, '')
      .replace(/\s+/g, ' ')
      .trim()
    const group = sharers.get(key) ?? { heads: [], conditions }
    group.heads.push([`${name} ${version} (${license})`, ...lines.filter(isOwn).map((line) => line.trim())].join('\n'))
    sharers.set(key, group)
  }
  const texts = [...sharers.values()].map(({ heads, conditions }) => `${[...heads, conditions].join('\n\n')}\n`)
  return ['The files in this folder contain code of these packages.\n', ...texts].join(`\n${'-'.repeat(80)}\n\n`)
}
