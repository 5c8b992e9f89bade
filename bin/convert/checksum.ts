/**
 * The digest of an output as a line of text, and where that line may go.
 *
 * Invariant: the line is the one that GNU `sha256sum` prints for the output, so that `sha256sum -c` takes it.
 */
import { fstatSync, statSync } from 'node:fs'

const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r' }

/**
 * The line for a file.
 *
 * @param name What the file is called; "-" for standard output.
 */
export function checksumLine(digest: string, name: string): string {
  const escaped = name.replace(/[\\\n\r]/g, (character) => ESCAPES[character]!)
  // A backslash before all of it says that there are some in the name.
  return `${escaped === name ? '' : '\\'}${digest}  ${escaped}\n`
}

/** Whether an output (undefined means standard output) is what standard output is, by whatever name: `/dev/stdout`, ... */
export function isStandardOutput(output: string | undefined): boolean {
  if (output === undefined) {
    return true
  }
  try {
    const [given, standard] = [statSync(output, { bigint: true }), fstatSync(1, { bigint: true })]
    return given.dev === standard.dev && given.ino === standard.ino
  } catch {
    return false
  }
}
