#!/usr/bin/env node
/**
 * The command qcow2-to-raw: asks for a conversion, shows how it goes and says how it ended.
 *
 * Invariant: one line on standard error for an error, an exit code for its class, and no temporary file left behind,
 * whether it fails or is told to end.
 */
import { convert } from '../lib/index.js'
import { DamageReport } from './convert/damage-report.js'
import { exitCodeOf, Interrupted, SALVAGED } from './exit-code.js'
import { JsonReport } from './convert/json-report.js'
import { print } from './output.js'
import { keepHeapSmall } from './small-heap.js'
import { readProgress } from './convert/progress-option.js'
import { onProgressSignal } from './convert/progress-signal.js'
import type { Outcome, Report } from './convert/report.js'
import { CommandLineError } from './command-line.js'
import { parseCommandLine, type ConvertRequest } from './convert/request.js'
import { TextReport } from './convert/text-report.js'

// How long whoever reads standard error is waited for after an interruption.
const LAST_WORDS_MILLISECONDS = 500

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * Whether a key may be being derived, which nothing stops: the process could not end by itself. No output has been made by then.
 */
let isUnlocking = false

/** Converts. */
async function run(request: ConvertRequest, report: Report): Promise<Outcome> {
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
  const started = process.uptime()
  await report.begin(request)
  let ask: ReturnType<typeof import('./convert/passphrase.js').passphrases> | undefined
  const given: (Uint8Array | string | undefined)[] = []
  let hasWarned = false
  const damage = new DamageReport(report.damage.bind(report), controller.signal)
  const { digest: algorithm } = request.options
  try {
    const { warnings, length, bytesWritten, digest } = await convert(
      request.input ?? process.stdin,
      request.output ?? 1,
      {
        ...request.options,
        passphrase: async (layer) => {
          const { passphrases } = await import('./convert/passphrase.js')
          ask ??= passphrases(
            { files: [], fd: undefined, ...request.passphrases, mayAsk: request.progress !== 'json' },
            controller.signal,
            unguarded,
          )
          report.makeRoom()
          const passphrase = await ask(layer)
          isUnlocking = true
          given.push(passphrase)
          return passphrase
        },
        onSpool: ({ reason, ...step }) => {
          // A download that breaks off begins anew.
          if (reason === 'no-ranges' && !hasWarned) {
            hasWarned = true
            report.warning({
              code: 'WARN_QCOW2_NO_RANGES',
              message: 'the server answers no requests for parts of a file: all of it is downloaded first',
            })
          }
          report.progress({ phase: 'spooling', ...step })
        },
        blocking: true,
        signal: controller.signal,
        onProgress: (progress) => {
          isUnlocking = false
          report.progress(progress)
        },
        ...(request.isSalvaging === true ? { salvage: damage.add } : {}),
      },
    )
    damage.flush()
    report.end()
    const salvaged = damage.sum()
    if (salvaged !== undefined) {
      report.salvaged(salvaged, length)
    }
    for (const warning of warnings) {
      // That one was said when it mattered.
      if (warning.code !== 'WARN_QCOW2_NO_RANGES') {
        report.warning(warning)
      }
    }
    return {
      exitCode: salvaged === undefined ? 0 : SALVAGED,
      length,
      bytesWritten,
      seconds: process.uptime() - started,
      digest: digest === undefined ? undefined : { algorithm: algorithm!, value: digest },
      salvaged,
    }
  } finally {
    damage.flush()
    report.end()
    for (const passphrase of given.filter((one) => one instanceof Uint8Array)) {
      passphrase.fill(0)
    }
    // From here on there is nothing left to clean up: a signal ends whatever still keeps the process.
    unguard()
  }
}

/** Converts, and prints the digest that was asked for. */
async function runAndPrint(request: ConvertRequest, report: Report): Promise<Outcome> {
  if (request.options.digest === undefined) {
    return run(request, report)
  }
  const { checksumLine, isStandardOutput } = await import('./convert/checksum.js')
  // To be asked now: a file that is replaced is another one afterwards.
  const name = isStandardOutput(request.output) ? undefined : request.output
  const outcome = await run(request, report)
  const { value } = outcome.digest!
  if (name === undefined) {
    report.digest(checksumLine(value, '-'))
  } else {
    await print(checksumLine(value, name))
  }
  return outcome
}

/** Who says what there is to say, in the form that the words ask for. */
function reportFor(words: readonly string[]): Report {
  if (readProgress(words).format !== 'json') {
    return new TextReport('qcow2-to-raw')
  }
  const report = new JsonReport()
  // Node prints its own warnings otherwise, as text.
  process.removeAllListeners('warning').on('warning', ({ name, message }) => {
    report.warning({ code: name, message })
  })
  return report
}

async function main(words: readonly string[]): Promise<void> {
  keepHeapSmall()
  // Where nobody listens to what is said, the exit code still counts.
  process.stderr.on('error', () => undefined)
  const report = reportFor(words)
  onProgressSignal(report.answer.bind(report))
  let isDebug = words.includes('--debug')
  try {
    let exitCode = 0
    const request = await parseCommandLine(words)
    if (request.kind === 'text') {
      await print(request.text)
    } else {
      isDebug = request.isDebug === true
      const outcome = await runAndPrint(request, report)
      report.result(outcome)
      exitCode = outcome.exitCode
    }
    process.exitCode = exitCode
  } catch (caught) {
    const error = caught as Error
    const exitCode = exitCodeOf(error)
    process.exitCode = exitCode
    report.failure({ error, exitCode, words, isDebug })
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
