#!/usr/bin/env node
/**
 * The command qcow2-to-raw: asks for a conversion, shows how it goes and says how it ended.
 *
 * Invariant: one line on standard error for an error, an exit code for its class, and no temporary file left behind,
 * whether it fails or is told to end.
 */
import { convert, type Qcow2Damage } from '../lib/index.js'
import { exitCodeOf, Interrupted, SALVAGED } from './exit-code.js'
import type { Bar } from './progress-bar.js'
import { CommandLineError, parseCommandLine, type ConvertRequest } from './request.js'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** Converts; returns the exit code. */
async function run(request: ConvertRequest): Promise<number> {
  if (request.output === undefined && process.stdout.isTTY) {
    throw new CommandLineError('the raw disk would be written to the terminal: name an output, or redirect')
  }
  const controller = new AbortController()
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      controller.abort(new Interrupted(signal))
    })
  }
  const bar = await drawBar(request)
  // One thing that is wrong can be met piece by piece: it is told once, for all of them.
  let pending: Qcow2Damage | undefined
  const lost = { bytes: 0, ranges: 0 }
  const tellPending = (): void => {
    if (pending !== undefined) {
      bar?.clear()
      complain(wordsFor(pending))
      lost.bytes += pending.length
      lost.ranges++
      pending = undefined
    }
  }
  const salvage = (damage: Qcow2Damage): void => {
    if (pending?.error.message === damage.error.message && pending.offset + pending.length === damage.offset) {
      pending = { ...pending, length: pending.length + damage.length }
    } else {
      tellPending()
      pending = damage
    }
  }
  try {
    const { warnings, length } = await convert(request.input, request.output ?? 1, {
      ...request.options,
      blocking: true,
      signal: controller.signal,
      onProgress: bar?.update,
      ...(request.isSalvaging === true ? { salvage } : {}),
    })
    tellPending()
    bar?.end()
    if (lost.ranges > 0) {
      complain(
        `salvaged: ${lost.bytes} of ${length} bytes are zeros, ranges: ${lost.ranges}; the rest is as in the image`,
      )
    }
    for (const { message } of request.isQuiet === true ? [] : warnings) {
      complain(`warning: ${message}`)
    }
    return lost.ranges > 0 ? SALVAGED : 0
  } finally {
    tellPending()
    bar?.end()
  }
}

const wordsFor = ({ offset, length, error }: Qcow2Damage): string =>
  `zeros instead of guest bytes ${offset} to ${offset + length - 1}: ${error.message}`

async function drawBar({ isQuiet, isProgressShown }: ConvertRequest): Promise<Bar | undefined> {
  if (!process.stderr.isTTY || isQuiet === true || isProgressShown === false) {
    return undefined
  }
  const { createBar } = await import('./progress-bar.js')
  return createBar(process.stderr)
}

/** One line, whatever file names and other people's messages hold. */
function complain(message: string): void {
  const line = message.replace(/\s*\n\s*/g, ' ').replace(/[\p{C}\p{Zl}\p{Zp}]/gu, '\ufffd')
  process.stderr.write(`qcow2-to-raw: ${line}\n`)
}

/** Whether whoever reads standard output has had enough: that is their affair and needs no words. */
const isBrokenPipe = (error: unknown): boolean =>
  [error, (error as Error).cause].some((one) => (one as NodeJS.ErrnoException | undefined)?.code === 'EPIPE')

const ignore = (): void => undefined

function print(text: string): Promise<void> {
  process.stdout.on('error', ignore)
  return new Promise((resolve, reject) => {
    process.stdout.write(text, (error) => {
      if (error) {
        reject(error)
      } else {
        resolve()
      }
    })
  })
}

async function main(words: readonly string[]): Promise<void> {
  // Where nobody listens to what is said, the exit code still counts.
  process.stderr.on('error', ignore)
  let isDebug = words.includes('--debug')
  try {
    let exitCode = 0
    const request = await parseCommandLine(words)
    if (request.kind === 'text') {
      await print(request.text)
    } else {
      isDebug = request.isDebug === true
      exitCode = await run(request)
    }
    process.exitCode = exitCode
  } catch (caught) {
    const error = caught as Error
    process.exitCode = exitCodeOf(error)
    if (isBrokenPipe(error)) {
      return
    }
    complain(error.message)
    if (error instanceof CommandLineError) {
      complain('--help lists the options')
    }
    if (isDebug) {
      process.stderr.write(`${error.stack}\n`)
    }
    if (error instanceof Interrupted) {
      // A write to a pipe that nobody reads would keep the process alive.
      process.exit()
    }
  }
}

// Until the end is reached: what stops halfway, with nothing left to wait for, must not pass for complete.
process.exitCode = 1
void main(process.argv.slice(2))
