/**
 * What is said of options that a command does not have, and of those that people bring along from qemu-img.
 *
 * Invariant: a hint says what is typed here instead, or that nothing needs to be.
 */

// What qemu-img calls them, by command.
const HINTS: Readonly<Record<string, ReadonlyMap<string, string>>> = {
  'qcow2-to-raw': new Map([
    ['O', 'the output is always a raw disk'],
    ['p', 'a terminal shows a bar without being asked'],
    ['U', 'an image is never locked'],
    ['l', '--snapshot names a snapshot'],
    ['S', 'zeros become holes without being asked'],
    ['object', '--passphrase-file names a file with a passphrase'],
    ['image-opts', 'what is to be read is named by its path or address alone'],
  ]),
  'qcow2-info': new Map([
    ['f', 'the image is always qcow2'],
    ['output', '--json prints JSON'],
    ['U', 'an image is never locked'],
    ['image-opts', 'what is to be read is named by its path or address alone'],
  ]),
}

const flag = (name: string): string => (name.length === 1 ? `-${name}` : `--${name}`)

/** The message of yargs about a command line, in words of this package if it is about unknown options. */
export function aboutUnknownOptions(message: string, command: string): string {
  const [, list] = /^Unknown arguments?: (.+)$/s.exec(message) ?? []
  if (list === undefined) {
    return message
  }
  // It names each in both ways in which a program could ask for it: foo-bar, fooBar.
  const names = list.split(', ')
  const given = names.filter(
    (name) => !names.some((other) => other.includes('-') && other !== name && plainOf(other) === plainOf(name)),
  )
  const hints = given.flatMap((name) => HINTS[command]?.get(name) ?? [])
  return [`unknown option: ${given.map(flag).join(', ')}`, ...new Set(hints)].join('; ')
}

/** What both ways of writing a name have in common. */
const plainOf = (name: string): string => name.toLowerCase().replace(/[-_]/g, '')
