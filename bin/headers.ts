/**
 * Headers for servers, from words of the command line and from files.
 *
 * Invariant: the value of a header, which may be a secret, is in no message.
 */
import { readFileSync } from 'node:fs'
import { quoteText } from '../lib/index.js'
import { CommandLineError } from './command-line.js'

/**
 * Names and values; of one name that is given again the last value counts.
 *
 * @param words `Name: value`, or `@` and the name of a file that has one in each line.
 * @throws {CommandLineError}
 * @throws {Error} if a file cannot be read
 */
export function headersOf(words: readonly string[]): Record<string, string> {
  const headers = new Map<string, string>()
  for (const word of words) {
    const path = word.startsWith('@') ? word.slice(1) : undefined
    for (const [index, line] of (path === undefined ? [word] : linesOf(path)).entries()) {
      const match = /^([!#$%&'*+.^_`|~\w-]+):\s*(.*?)\s*$/.exec(line)
      if (match === null) {
        const place = path === undefined ? '' : ` as number ${index + 1} of ${quoteText(path, 300)}`
        throw new CommandLineError(
          `--header: found no header${place}, allowed are "Name: value" and @FILE with such lines`,
        )
      }
      headers.set(match[1]!.toLowerCase(), match[2]!)
    }
  }
  return Object.fromEntries(headers)
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'utf8')
      .split('\n')
      .filter((line) => line.trim() !== '')
  } catch (cause) {
    throw new Error(`--header: ${quoteText(path, 300)} cannot be read: ${(cause as NodeJS.ErrnoException).code}`, {
      cause,
    })
  }
}
