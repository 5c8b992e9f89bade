/**
 * What is said of options that a command does not have, and of those that people bring along from qemu-img.
 *
 * Invariant: a hint says what is typed here instead, or that nothing needs to be.
 */

// What qemu-img calls them; both commands are asked such things, and neither has an option of that name (of `-f` one does).
const HINTS = new Map(
  Object.entries({
    O: 'the output is always a raw disk',
    f: 'the image is always qcow2',
    output: '--json prints JSON (qcow2-info)',
    p: 'a terminal shows a bar without being asked',
    U: 'an image is never locked',
    l: '--snapshot names a snapshot',
    object: '--passphrase-file names a file with a passphrase',
    'image-opts': 'what is to be read is named by its path or address alone',
  }),
)

const flag = (name: string): string => (name.length === 1 ? `-${name}` : `--${name}`)

/** The message of yargs about a command line, in words of this package if it is about unknown options. */
export function aboutUnknownOptions(message: string): string {
  const [, list] = /^Unknown arguments?: (.+)$/s.exec(message) ?? []
  if (list === undefined) {
    return message
  }
  // It names each in both ways in which a program could ask for it: foo-bar, fooBar.
  const names = list.split(', ')
  const given = names.filter((name) => !names.some((other) => other.includes('-') && camelCase(other) === name))
  const hints = given.flatMap((name) => HINTS.get(name) ?? [])
  return [`unknown option: ${given.map(flag).join(', ')}`, ...new Set(hints)].join('; ')
}

const camelCase = (name: string): string => name.replace(/-(.)/g, (_all, letter: string) => letter.toUpperCase())
