/**
 * The conversion that a command line asks for, checked.
 *
 * Knows names and their meaning, not how they were written. Loading an option parser takes longer than converting a
 * small image, so that the plain `qcow2-to-raw in out` is understood here without one.
 */
import type { Qcow2ConvertOptions } from '../../lib/index.js'
import { CommandLineError, pathOrUrl, type TextRequest } from '../command-line.js'
import type { PassphraseOptions } from './passphrase.js'
import type { ProgressFormat } from './progress-option.js'

/** A conversion to run. */
export interface ConvertRequest {
  readonly kind: 'convert'
  /** Undefined means standard input. */
  readonly input: string | URL | undefined
  /** Undefined means standard output. */
  readonly output: string | undefined
  readonly options: Qcow2ConvertOptions
  /** Default: who sits at the terminal is asked. */
  readonly passphrases?: PassphraseOptions
  readonly progress?: ProgressFormat
  readonly isQuiet?: boolean
  /** Whether what cannot be read becomes zeros. */
  readonly isSalvaging?: boolean
  readonly isDebug?: boolean
}

/**
 * What the words ask for.
 *
 * @param words The command line without interpreter and script.
 * @throws {CommandLineError}
 */
export async function parseCommandLine(words: readonly string[]): Promise<ConvertRequest | TextRequest> {
  if (words.every((word) => word === '-' || !word.startsWith('-'))) {
    return { kind: 'convert', ...inputAndOutput(words, false), options: {} }
  }
  const { parseOptions } = await import('./options.js')
  return parseOptions(words)
}

// Who knows qemu-img types one behind -f.
const FORMATS = new Set(['qcow2', 'raw'])

/** The names of input and output, for which `-f` may have been given. @throws {CommandLineError} */
export function inputAndOutput(names: readonly string[], isForced: boolean): Pick<ConvertRequest, 'input' | 'output'> {
  const [input, output, ...more] = names
  if (input === undefined) {
    throw new CommandLineError('an input is missing: a file, an address, or "-" for standard input')
  }
  if (more.length > 0) {
    const hint = isForced && names.some((name) => FORMATS.has(name)) ? '; -f is --force, and takes no format' : ''
    throw new CommandLineError(`one input and one output are allowed, found ${names.length} names${hint}`)
  }
  return { input: input === '-' ? undefined : pathOrUrl(input), output: output === '-' ? undefined : output }
}
