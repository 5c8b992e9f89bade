/**
 * Messages of the library in the words of the command line: an option that a message names is called as it is typed.
 *
 * Invariant: what stands in quotation marks, which is somebody else's, stays as it is.
 */

const FLAGS: Readonly<Record<string, string>> = {
  backingFile: '--backing-file',
  backingFormat: '--backing-format',
  dataFile: '--data-file',
  digest: '--digest',
  end: '--end',
  force: '--force',
  'http.headers': '--header',
  passphrase: '--passphrase-file',
  references: '--references',
  snapshot: '--snapshot',
  spoolDirectory: '--spool-dir',
  start: '--start',
  targetIsZero: '--target-is-zero',
  threads: '--threads',
  verify: '--verify',
}

const flagOf = (option: string): string => FLAGS[option] ?? option

/** The message, with flags for names of options. */
export const inFlags = (message: string): string =>
  message
    .split(/("(?:[^"\\]|\\.)*")/)
    .map((part, index) => (index % 2 === 1 ? part : withFlags(part, index === 0)))
    .join('')

function withFlags(text: string, isStart: boolean): string {
  const named = text
    .replace(/\b(the option )(\w+(?:\.\w+)?)/g, (_all, before: string, option: string) => before + flagOf(option))
    .replace(/\breferences: '(\w+(?:-\w+)*)'/g, '--references $1')
  return isStart ? named.replace(/^(\w+)(?=: found )/, flagOf) : named
}
