// Coverage knows only the files that a test loaded: one that no test loads would pass for covered.
// Fails if a file of dist/lib or dist/bin that has code at all is missing from the last run's coverage.

import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(import.meta.dirname, '..')
const filesBelow = (folder, end) =>
  readdirSync(join(root, folder), { recursive: true })
    .filter((name) => name.endsWith(end))
    .map((name) => join(root, folder, name))
const isTypesOnly = (file) =>
  /^(export \{\};)?$/.test(
    readFileSync(file, 'utf8')
      .replace(/\/\*.*?\*\/|^\/\/[^\n]*/gms, '')
      .trim(),
  )

const seen = new Set()
for (const file of filesBelow('.tap/coverage', '.json')) {
  for (const { url } of JSON.parse(readFileSync(file, 'utf8')).result) seen.add(fileURLToPath(url))
}
const missing = [...filesBelow('dist/lib', '.js'), ...filesBelow('dist/bin', '.js')].filter(
  (file) => !seen.has(file) && !isTypesOnly(file),
)
for (const file of missing) console.error(`No test loads ${relative(root, file)}, so its coverage is unknown.`)
if (missing.length > 0) process.exitCode = 1
