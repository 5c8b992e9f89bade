/**
 * Messages of the library in the words of the command line: an option that a message names is called as it is typed.
 *
 * Invariant: what stands in quotation marks, which is somebody else's, stays as it is.
 */

/** What each command calls the library's options; those that it does not have stay as they are. */
const FLAGS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'qcow2-info': {
    'http.headers': '--header',
    references: '--references',
    snapshot: '--snapshot',
    spoolDirectory: '--spool-dir',
  },
  'qcow2-to-raw': {
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
  },
}

/** The message, with a command's flags for names of options. */
export function inFlags(message: string, command: string): string {
  const flagOf = (option: string): string => FLAGS[command]?.[option] ?? option
  const named = (text: string): string =>
    text
      .replace(/\b(the option )(\w+(?:\.\w+)?)/g, (_all, before: string, option: string) => before + flagOf(option))
      .replace(/\breferences: '(\w+(?:-\w+)*)'/g, '--references $1')
  return message
    .split(/("(?:[^"\\]|\\.)*")/)
    .map((part, index) => (index % 2 === 1 ? part : named(part)))
    .join('')
    .replace(/^(\w+)(?=: found )/, flagOf)
}
