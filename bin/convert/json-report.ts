/**
 * What a conversion says to programs: one JSON object a line, each with its `event`, and a last one that says how it ended.
 *
 * Invariant: a line is one line for whoever reads it; numbers are numbers, and what is unknown is null.
 */
import type { Qcow2Damage } from '../../lib/index.js'
import { inFlags } from '../flags.js'
import { printableJson } from '../json-text.js'
import { NO_STEP, type Failure, type Outcome, type Report, type Step } from './report.js'
import type { ConvertRequest } from './request.js'

// Whose flags messages name.
const COMMAND = 'qcow2-to-raw'

// Four times a second.
const STEP_SECONDS = 0.25

export class JsonReport implements Report {
  #isQuiet = false
  #step = NO_STEP
  #said = -Infinity
  #hasEnded = false

  /** @param now Seconds on a clock that does not jump. */
  constructor(private readonly now: () => number = () => process.uptime()) {}

  begin({ isQuiet = false }: ConvertRequest): Promise<void> {
    this.#isQuiet = isQuiet
    return Promise.resolve()
  }

  progress(step: Step): void {
    this.#step = step
    const now = this.now()
    // What nobody reads is not piled up: the next line says more.
    if (!this.#isQuiet && now - this.#said >= STEP_SECONDS && !process.stderr.writableNeedDrain) {
      this.answer()
    }
  }

  answer(): void {
    if (!this.#hasEnded) {
      this.#said = this.now()
      say('progress', this.#step)
    }
  }

  /** Lines need no room made. */
  makeRoom(): void {
    return undefined
  }

  warning({ code, message }: { readonly code: string; readonly message: string }): void {
    if (!this.#isQuiet) {
      say('warning', { code, message: inFlags(message, COMMAND) })
    }
  }

  damage({ offset, length, error: { code, message } }: Qcow2Damage): void {
    say('damage', { offset, length, code, message })
  }

  /** Nothing has to be finished. */
  end(): void {
    return undefined
  }

  /** The result has it. */
  salvaged(): void {
    return undefined
  }

  /** The result has it. */
  digest(): void {
    return undefined
  }

  result({ exitCode, length, bytesWritten, seconds, digest, salvaged }: Outcome): void {
    this.#hasEnded = true
    say('result', {
      exitCode,
      bytes: length,
      bytesWritten,
      seconds: Math.round(seconds * 1000) / 1000,
      ...(digest && { digest }),
      ...(salvaged && { salvaged }),
    })
  }

  failure({ error, exitCode, isDebug }: Failure): void {
    const { code, message, stack } = error as NodeJS.ErrnoException
    this.#hasEnded = true
    say('result', { exitCode, code, message: inFlags(message, COMMAND), ...(isDebug && { stack }) })
  }
}

/** Prints a line. */
function say(event: string, facts: object): void {
  const line = JSON.stringify({ event, ...facts }, (_name, value: unknown) => value ?? null)
  process.stderr.write(`${printableJson(line)}\n`)
}
