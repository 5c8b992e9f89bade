// Compiles the WebAssembly decoders, then everything else into a fresh dist/, bundles what is published, and makes the commands
// executable: the bundles that users run and the modules that the tests cover.

import { spawnSync } from 'node:child_process'
import { chmodSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, join } from 'node:path'

const root = join(import.meta.dirname, '..')
const { bin } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')

await import('./build-wasm.js')
rmSync(join(root, 'dist'), { recursive: true, force: true })
const { status, error } = spawnSync(process.execPath, [tsc, '--project', root], { stdio: 'inherit' })
if (error) throw error
if (status !== 0) process.exit(status ?? 1)
await import('./build-command.js')
await import('./build-library.js')
for (const path of Object.values(bin)) {
  for (const file of [path, `dist/bin/${basename(path)}`]) chmodSync(join(root, file), 0o755)
}
