// Compiles the decoders written in AssemblyScript (lib/decode/*.as.ts) to WebAssembly, each into a module beside it that
// holds the code as text: so it is found wherever the package is bundled to, and needs no file access.

import { readFileSync, writeFileSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import asc from 'assemblyscript/asc'

const OPTIMIZATION = ['-O3', '--converge', '--noAssert', '--runtime', 'stub', '--enable', 'simd']
// Decoders work in memory that threads share (lib/decode/lane-memory.ts has the same numbers of pages).
const MEMORY = [
  '--importMemory',
  '--initialMemory',
  '3',
  '--maximumMemory',
  '65536',
  '--sharedMemory',
  '--enable',
  'threads',
]
const FLAGS = [...OPTIMIZATION, ...MEMORY]

const folder = join(import.meta.dirname, '../lib/decode')
for (const file of (await readdir(folder)).filter((name) => name.endsWith('.as.ts'))) {
  const name = file.slice(0, -'.as.ts'.length)
  let wasm = Buffer.alloc(0)
  const { error, stderr } = await asc.main([file, '--outFile', 'out.wasm', ...FLAGS], {
    readFile: (path) => (path === file ? readFileSync(join(folder, path), 'utf8') : null),
    writeFile: (path, contents) => {
      wasm = Buffer.from(contents)
    },
    listFiles: () => [],
  })
  if (error !== null) {
    console.error(stderr.toString())
    throw error
  }
  const target = join(folder, `${name}-wasm.ts`)
  const constant = `${name.toUpperCase()}_WASM`
  writeFileSync(
    target,
    `/** WebAssembly made from ${file}, in Base64; not to be edited. */\nexport const ${constant} =\n  '${wasm.toString('base64')}'\n`,
  )
}
