/**
 * What the option parsers of the commands have in common: options that both have, and how words become values.
 *
 * Runs nothing. Invariant: whatever is wrong is a `CommandLineError`, or left in `failure` for the caller to throw.
 */
import type { Argv } from 'yargs'
import { quoteText } from '../lib/index.js'
import { CommandLineError } from './command-line.js'
import { aboutUnknownOptions } from './unknown-options.js'

/** Options of an image that is no local file. */
export const SOURCE_OPTIONS = {
  header: {
    type: 'string',
    array: true,
    nargs: 1,
    describe:
      'Header for the server of an address, as "Name: value", or @FILE with one in each line; again for more of them',
    requiresArg: true,
  },
  'spool-dir': {
    type: 'string',
    describe: 'Folder for the temporary copy of what cannot be read at random [default: that of the system]',
    requiresArg: true,
  },
} as const

/** What a parser has made of the words. */
export interface Parsed {
  /** All that was given of each option, and the other words under `_`. */
  readonly given: Readonly<Record<string, unknown>>
  /** Of options that are given more than once the last one counts. */
  readonly argv: Readonly<Record<string, unknown>>
  /** What it would print: a help or the version; empty if it was not asked for that. */
  readonly text: string
  /** Why it refuses the words; undefined if it does not. */
  readonly failure: string | undefined
}

/**
 * Parses the words, and prints nothing.
 *
 * @param command Whose words they are.
 * @throws {CommandLineError} for an option of the name under which yargs keeps other words
 */
export async function parse(parser: Argv, words: readonly string[], command: string): Promise<Parsed> {
  const options = words.slice(0, words.indexOf('--') >>> 0)
  if (options.some((word) => /^--?_(?:=|$)/.test(word))) {
    throw new CommandLineError('unknown option: _')
  }
  let text = ''
  let failure: string | undefined
  parser.fail((message: string) => {
    failure ??= aboutUnknownOptions(message, command)
  })
  const given = (await parser.parseAsync([...words], {}, (_error, _argv, output) => {
    text = output
  })) as Record<string, unknown>
  const argv = Object.fromEntries(
    Object.entries(given).map(([name, value]) => [name, Array.isArray(value) ? (value.at(-1) as unknown) : value]),
  )
  failure ??= oddSwitch(options, argv)
  return { given, argv, text, failure }
}

/** What is wrong with a switch that was given a value: yargs takes any but `true` for `false`, and says nothing. */
function oddSwitch(options: readonly string[], argv: Parsed['argv']): string | undefined {
  for (const word of options) {
    const [, dashes = '', name = '', value = 'true'] = /^(--?)([\w-]+)=(.*)$/s.exec(word) ?? []
    if (typeof argv[name] === 'boolean' && value !== 'true' && value !== 'false') {
      return `${dashes}${name}: found ${quoteText(value)}, allowed is no value, true or false`
    }
  }
  return undefined
}

/** All that was given of an option that counts as often as it is given. @throws {CommandLineError} */
export function wordsOf(option: string, given: Parsed['given']): string[] {
  const words = (given[option] ?? []) as (string | false)[]
  if (words.includes(false)) {
    throw new CommandLineError(`--${option} needs a word: --no-${option} means nothing`)
  }
  return words as string[]
}

/** The folder for temporary copies. @throws {CommandLineError} */
export function spoolDirectoryOf(directory: unknown): string | undefined {
  if (directory === false || directory === '') {
    throw new CommandLineError('--spool-dir needs the name of a folder')
  }
  return directory as string | undefined
}
