/** The version of the package. */
import { readFileSync } from 'node:fs'

/** As package.json has it, which stands two folders above dist/bin and dist/command alike. */
export function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
