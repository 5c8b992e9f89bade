/**
 * What a conversion says to people: a bar if there is a terminal, and lines that begin with the command's name.
 *
 * Invariant: lines stand above the bar, never in it.
 */
import { Qcow2AccessError, type Qcow2Damage } from '../../lib/index.js'
import { complainer } from '../complain.js'
import { isBrokenPipe } from '../output.js'
import type { Bar } from './progress-bar.js'
import { NO_STEP, type Failure, type Report, type Salvaged, type Step } from './report.js'
import { CommandLineError } from '../command-line.js'
import type { ConvertRequest } from './request.js'

export class TextReport implements Report {
  readonly #complain: (message: string) => void
  #bar: Bar | undefined
  #isQuiet = false
  #step = NO_STEP

  /** @param name The command's. */
  constructor(name: string) {
    this.#complain = complainer(name)
  }

  async begin({ isQuiet = false, progress }: ConvertRequest): Promise<void> {
    this.#isQuiet = isQuiet
    if (process.stderr.isTTY && !isQuiet && progress !== 'none') {
      const { createBar } = await import('./progress-bar.js')
      this.#bar = createBar(process.stderr)
    }
  }

  progress(step: Step): void {
    this.#step = step
    this.#bar?.update(step)
  }

  /** A line as that of qemu-img, which programs may know. */
  answer(): void {
    const { phase, bytesDone, bytesTotal } = this.#step
    const percent = (100 * bytesDone) / Math.max(1, bytesTotal ?? Infinity)
    const isCounted = phase === 'spooling' && bytesTotal === undefined
    const line = isCounted ? `    (${bytesDone} bytes read)\n` : `    (${percent.toFixed(2)}/100%)\n`
    if (this.#bar === undefined) {
      process.stderr.write(line)
    } else {
      this.#bar.above(line)
    }
  }

  makeRoom(): void {
    this.#bar?.clear()
  }

  warning({ message }: { readonly message: string }): void {
    if (!this.#isQuiet) {
      this.makeRoom()
      this.#complain(`warning: ${message}`)
    }
  }

  damage({ offset, length, error }: Qcow2Damage): void {
    this.makeRoom()
    this.#complain(`zeros instead of guest bytes ${offset} to ${offset + length - 1}: ${error.message}`)
  }

  end(): void {
    this.#bar?.end()
  }

  salvaged({ bytes, ranges }: Salvaged, length: number): void {
    this.#complain(`salvaged: ${bytes} of ${length} bytes are zeros, ranges: ${ranges}; the rest is as in the image`)
  }

  digest(line: string): void {
    process.stderr.write(line)
  }

  /** Whoever sees no error knows that all is well. */
  result(): void {
    return undefined
  }

  failure({ error, words, isDebug }: Failure): void {
    if (isBrokenPipe(error)) {
      return
    }
    this.#complain(error.message)
    for (const hint of hints(error, words)) {
      this.#complain(hint)
    }
    if (isDebug) {
      process.stderr.write(`${error.stack}\n`)
    }
  }
}

/** What of the command helps against an error. */
function hints(error: Error, words: readonly string[]): string[] {
  if (error instanceof CommandLineError) {
    return ['--help lists the options']
  }
  const code = error instanceof Qcow2AccessError ? error.code : undefined
  if (code === 'ERR_QCOW2_PASSPHRASE_REQUIRED') {
    return ['--passphrase-file names a file that has the passphrase, --passphrase-fd an open one']
  }
  if (code === 'ERR_QCOW2_WRONG_PASSPHRASE' && words.some((word) => word.startsWith('--passphrase-'))) {
    return ['a newline at the end of a passphrase file does not count here; for QEMU it does: see README.md']
  }
  return []
}
