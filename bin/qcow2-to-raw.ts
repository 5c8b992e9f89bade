#!/usr/bin/env node
/**
 * The command qcow2-to-raw: asks for a conversion, shows how it goes and says how it ended.
 *
 * Invariant: one line on standard error for an error, an exit code for its class, and no temporary file left behind,
 * whether it fails or is told to end.
 */
import { convert, Qcow2AccessError } from '../lib/index.js'
import { complain } from './complain.js'
import { DamageReport } from './damage-report.js'
import { exitCodeOf, Interrupted, SALVAGED } from './exit-code.js'
import type { Bar } from './progress-bar.js'
import { CommandLineError, parseCommandLine, type ConvertRequest } from './request.js'

// How long whoever reads standard error is waited for after an interruption.
const LAST_WORDS_MILLISECONDS = 500

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * Whether a key may be being derived, which nothing stops: the process could not end by itself. No output has been made by then.
 */
let isUnlocking = false

/** Converts. */
async function run(request: ConvertRequest): Promise<{ exitCode: number; digest: string | undefined }> {
  if (request.output === undefined && process.stdout.isTTY) {
    throw new CommandLineError('the raw disk would be written to the terminal: name an output, or redirect')
  }
  if (request.input === undefined && process.stdin.isTTY) {
    throw new CommandLineError('the image would be read from the terminal: name a file, or redirect')
  }
  const controller = new AbortController()
  const handlers = SIGNALS.map((signal) => [signal, () => controller.abort(new Interrupted(signal))] as const)
  const guard = (): void => {
    for (const [signal, handler] of handlers) {
      process.on(signal, handler)
    }
  }
  const unguard = (): void => {
    for (const [signal, handler] of handlers) {
      process.off(signal, handler)
    }
  }
  // While the process waits for a file or a pipe no handler would run; and there is nothing to clean up yet.
  const unguarded = <T>(read: () => T): T => {
    unguard()
    try {
      return read()
    } finally {
      guard()
    }
  }
  guard()
  const bar = await drawBar(request)
  let ask: ReturnType<typeof import('./passphrase.js').passphrases> | undefined
  const given: (Uint8Array | string | undefined)[] = []
  let hasWarned = false
  const damage = new DamageReport(() => bar?.clear(), controller.signal)
  try {
    const { warnings, length, digest } = await convert(request.input ?? process.stdin, request.output ?? 1, {
      ...request.options,
      passphrase: async (layer) => {
        const { passphrases } = await import('./passphrase.js')
        ask ??= passphrases(request.passphrases ?? { files: [], fd: undefined }, controller.signal, unguarded)
        const passphrase = await ask(layer)
        bar?.restart()
        isUnlocking = true
        given.push(passphrase)
        return passphrase
      },
      onSpool: ({ reason, bytesDone, bytesTotal }) => {
        // A download that breaks off begins anew.
        if (reason === 'no-ranges' && !hasWarned && request.isQuiet !== true) {
          hasWarned = true
          complain('warning: the server answers no requests for parts of a file: all of it is downloaded first')
        }
        bar?.spool(bytesDone, bytesTotal)
      },
      blocking: true,
      signal: controller.signal,
      onProgress: (progress) => {
        isUnlocking = false
        bar?.update(progress)
      },
      ...(request.isSalvaging === true ? { salvage: damage.add } : {}),
    })
    damage.flush()
    bar?.end()
    const salvaged = damage.sum(length)
    if (salvaged !== undefined) {
      complain(salvaged)
    }
    for (const { code, message } of request.isQuiet === true ? [] : warnings) {
      // That one was said when it mattered.
      if (code !== 'WARN_QCOW2_NO_RANGES') {
        complain(`warning: ${message}`)
      }
    }
    return { exitCode: salvaged === undefined ? 0 : SALVAGED, digest }
  } finally {
    damage.flush()
    bar?.end()
    for (const passphrase of given.filter((one) => one instanceof Uint8Array)) {
      passphrase.fill(0)
    }
    // From here on there is nothing left to clean up: a signal ends whatever still keeps the process.
    unguard()
  }
}

async function drawBar({ isQuiet, isProgressShown }: ConvertRequest): Promise<Bar | undefined> {
  if (!process.stderr.isTTY || isQuiet === true || isProgressShown === false) {
    return undefined
  }
  const { createBar } = await import('./progress-bar.js')
  return createBar(process.stderr)
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

/** Converts, and prints the digest that was asked for; returns the exit code. */
async function runAndPrint(request: ConvertRequest): Promise<number> {
  if (request.options.digest === undefined) {
    return (await run(request)).exitCode
  }
  const { checksumLine, isStandardOutput } = await import('./checksum.js')
  // To be asked now: a file that is replaced is another one afterwards.
  const name = isStandardOutput(request.output) ? undefined : request.output
  const { exitCode, digest = '' } = await run(request)
  if (name === undefined) {
    process.stderr.write(checksumLine(digest, '-'))
  } else {
    await print(checksumLine(digest, name))
  }
  return exitCode
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
      exitCode = await runAndPrint(request)
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
    if (error instanceof Qcow2AccessError && error.code === 'ERR_QCOW2_PASSPHRASE_REQUIRED') {
      complain('--passphrase-file names a file that has the passphrase, --passphrase-fd an open one')
    }
    const isGiven = words.some((word) => word.startsWith('--passphrase-'))
    if (isGiven && error instanceof Qcow2AccessError && error.code === 'ERR_QCOW2_WRONG_PASSPHRASE') {
      complain('a newline at the end of a passphrase file does not count here; for QEMU it does: see README.md')
    }
    if (isDebug) {
      process.stderr.write(`${error.stack}\n`)
    }
    if (error instanceof Interrupted) {
      // A write to a pipe that nobody reads would keep the process alive. What was said last still has a moment.
      const leave = (): void => {
        /* c8 ignore next 2 (whoever is killed tells nothing of coverage; unlocking.test.ts sees it) */
        if (isUnlocking) {
          process.kill(process.pid, error.signal)
        } else {
          process.exit()
        }
      }
      setTimeout(leave, LAST_WORDS_MILLISECONDS)
      process.stderr.write('', leave)
    }
  }
}

// Until the end is reached: what stops halfway, with nothing left to wait for, must not pass for complete.
process.exitCode = 1
void main(process.argv.slice(2))
