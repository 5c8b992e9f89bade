// Bundles the command for those who run it: dist/bin and what it imports of dist/lib and of packages, in dist/command.
//
// Loading some forty modules takes longer than converting a small image. The bundle is CommonJS, for which Node starts
// half of its loader only, and is not minified, so that the stacks of --debug tell something. What a plain run does not
// need (options, a bar, a pipe) stands in chunks of its own.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { build, transform } from 'esbuild'

const root = join(import.meta.dirname, '..')
const folder = join(root, 'dist/command')
const target = 'node20.19'
const IMPORT_META = `const importMeta = { get url() { return require('node:url').pathToFileURL(__filename).href } };`

/** lru-cache looks for the clock in case that entries age, ours do not; a mere look makes Node load perf_hooks. */
const withoutClock = {
  name: 'without-clock',
  setup({ onLoad }) {
    onLoad({ filter: /[\\/]lru-cache[\\/].*\.js$/ }, ({ path }) => ({
      contents: `const performance = undefined;\n${readFileSync(path, 'utf8')}`,
    }))
  },
}

/** string-width needs some 30 ms to get ready, and only a help text asks it for anything: then it may. */
const lateWidth = {
  name: 'late-width',
  setup({ onLoad, onResolve, resolve }) {
    onResolve({ filter: /^string-width$/ }, async ({ path, kind, resolveDir, pluginData }) => {
      if (pluginData === 'inner') return undefined
      return { path: (await resolve(path, { kind, resolveDir, pluginData: 'inner' })).path, namespace: 'late' }
    })
    onLoad({ filter: /./, namespace: 'late' }, ({ path }) => ({
      contents: `let width; export default (...words) => (width ??= require(${JSON.stringify(path)}).default)(...words)`,
      resolveDir: dirname(path),
    }))
  },
}

// Only modules can be cut into chunks, hence two steps.
const { outputFiles, metafile } = await build({
  absWorkingDir: root,
  // The threads' entries stand beside the code that starts them, under the same names as in dist/lib.
  entryPoints: ['dist/bin/qcow2-to-raw.js', 'dist/lib/decode/worker.js', 'dist/lib/digest/digest-worker.js'],
  entryNames: '[name]',
  outdir: folder,
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target,
  // piscina starts a file of its own, koffi is optional and has native code.
  external: ['piscina', 'koffi'],
  plugins: [withoutClock, lateWidth],
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
  writeFileSync(join(folder, basename(path)), code)
}
writeFileSync(join(folder, 'THIRD-PARTY.txt'), notices(Object.keys(metafile.inputs)))

/** Names and licences of the packages that the bundle holds code of. */
function notices(inputs) {
  const folders = new Set(
    inputs.flatMap((path) => /^(?!late:).*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(path) ?? []),
  )
  const texts = [...folders].sort().map((path) => {
    const { name, version, license } = JSON.parse(readFileSync(join(root, path, 'package.json'), 'utf8'))
    const file = readdirSync(join(root, path)).find((entry) => /^licen[cs]e\b/i.test(entry))
    if (file === undefined) throw new Error(`${name} has no text of its licence`)
    return `${name} ${version} (${license})\n\n${readFileSync(join(root, path, file), 'utf8').trim()}\n`
  })
  return ['The command contains code of these packages.\n', ...texts].join(`\n${'-'.repeat(80)}\n\n`)
}
