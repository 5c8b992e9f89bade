/**
 * What a command says on standard error, line by line and in its own words.
 *
 * Invariant: a line is one line, whatever file names and other people's messages hold.
 */

import { inFlags } from './flags.js'

/** Prints lines that begin with the command's name. */
export function complainer(name: string): (message: string) => void {
  return (message) => {
    const line = inFlags(message, name)
      .replace(/\s*\n\s*/g, ' ')
      .replace(/[\p{C}\p{Zl}\p{Zp}]/gu, '\ufffd')
    process.stderr.write(`${name}: ${line}\n`)
  }
}

let draining: Promise<void> | undefined

/** Waits for whoever reads standard error, if much is waiting to be read there; undefined if not, or once the signal says so. */
export function drained(signal: AbortSignal): Promise<void> | undefined {
  if (!process.stderr.writableNeedDrain || signal.aborted) {
    return undefined
  }
  draining ??= new Promise<void>((resolve) => {
    const done = (): void => {
      draining = undefined
      process.stderr.off('drain', done).off('close', done)
      signal.removeEventListener('abort', done)
      resolve()
    }
    process.stderr.on('drain', done).on('close', done)
    signal.addEventListener('abort', done)
  })
  return draining
}
