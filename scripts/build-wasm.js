// Compiles the decoders written in AssemblyScript (lib/decode/*.as.ts, and what they import) to WebAssembly, each into a
// module beside it that holds the code as text: so it is found wherever the package is bundled to, and needs no file access.

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

// Where the compiler may lay down a decoder's constants: each one has a part of memory for its own, beside its tables.
const MEMORY_BASE = { inflate: 0x400, zstd: 0x8000 }

/** A file's text, or null if there is none: the compiler asks for the same module by more than one name. */
function textOf(path) {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (error.code === 'ENOENT') return null
    throw error
  }
}

const folder = join(import.meta.dirname, '../lib/decode')
for (const file of (await readdir(folder)).filter((name) => name.endsWith('.as.ts'))) {
  const name = file.slice(0, -'.as.ts'.length)
  let wasm = Buffer.alloc(0)
  const flags = [...FLAGS, '--memoryBase', String(MEMORY_BASE[name])]
  const { error, stderr } = await asc.main([file, '--outFile', 'out.wasm', ...flags], {
    readFile: (path) => textOf(join(folder, path)),
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
