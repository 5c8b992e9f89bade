// Writes what users import, in dist/package: a module that passes on what dist/command/library.js exports, and one file with
// the types of all of it, docstrings included, and of nothing else.

import { mkdirSync, writeFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { join } from 'node:path'
import { rollup } from 'rollup'
import { dts } from 'rollup-plugin-dts'

const root = join(import.meta.dirname, '..')
const folder = join(root, 'dist/package')

mkdirSync(folder, { recursive: true })
const names = Object.keys(await import('../dist/lib/index.js'))
writeFileSync(join(folder, 'index.js'), `export { ${names.join(', ')} } from '../command/library.js'\n`)

const types = await rollup({
  input: join(root, 'dist/lib/index.d.ts'),
  external: builtinModules.map((name) => `node:${name}`),
  plugins: [dts()],
  // A type that is not found would become any.
  onwarn({ message }) {
    throw new Error(message)
  },
})
await types.write({ file: join(folder, 'index.d.ts'), format: 'es' })
await types.close()
