// Prints the n-th fenced `sh` block of README.md, so that CI runs the very commands that a newcomer copies.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const n = Number(process.argv[2])
const readme = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8')
const blocks = [...readme.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, body]) => body.trim())
if (!Number.isInteger(n) || blocks[n - 1] === undefined) {
  console.error(`README.md has ${blocks.length} sh blocks: usage: node scripts/readme-command.js N, N from 1`)
  process.exit(1)
}
console.log(blocks[n - 1])
