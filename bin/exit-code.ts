/** What the exit codes of the commands say: one number for each class of error, and for what is complete and yet not well. */
import { Qcow2AccessError, Qcow2FormatError, Qcow2UnsupportedError, Qcow2UsageError } from '../lib/index.js'
import { CommandLineError } from './command-line.js'

/** Ends a conversion because the process was told to end. */
export class Interrupted extends Error {
  constructor(readonly signal: 'SIGINT' | 'SIGTERM' | 'SIGHUP') {
    super(`interrupted by ${signal}`)
  }
}

/** The output is complete, but zeros stand where the image could not be read. */
export const SALVAGED = 6

/** A check found nothing worse than lost room. */
export const LEAKED = 7

const SIGNAL_NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const

/** The exit code for what ended the command. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof Interrupted) {
    return 128 + SIGNAL_NUMBERS[error.signal]
  }
  if (error instanceof CommandLineError || error instanceof Qcow2UsageError) {
    return 2
  }
  if (error instanceof Qcow2FormatError) {
    return 3
  }
  if (error instanceof Qcow2UnsupportedError) {
    return 4
  }
  return error instanceof Qcow2AccessError ? 5 : 1
}
