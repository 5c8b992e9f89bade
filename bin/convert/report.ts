/** What a conversion is to say while it runs and when it has ended, in whatever form. */
import type { Qcow2Damage, Qcow2Pace, Qcow2Progress } from '../../lib/index.js'
import type { ConvertRequest } from './request.js'

/** How far what is under way has come: a copy of the image that has to be made first, or the disk. */
export interface Step extends Qcow2Pace {
  readonly phase: Qcow2Progress['phase'] | 'spooling'
  readonly bytesDone: number
  /** Undefined as long as nobody knows. */
  readonly bytesTotal: number | undefined
}

/** Nothing has been heard yet. */
export const NO_STEP: Step = {
  phase: 'converting',
  bytesDone: 0,
  bytesTotal: undefined,
  bytesPerSecond: 0,
  secondsLeft: undefined,
}

/** Zeros that stand for what could not be read. */
export interface Salvaged {
  readonly bytes: number
  readonly ranges: number
}

/** A conversion that has ended well, or nearly. */
export interface Outcome {
  readonly exitCode: number
  /** Length of the output in bytes. */
  readonly length: number
  readonly bytesWritten: number
  readonly seconds: number
  readonly digest: { readonly algorithm: string; readonly value: string } | undefined
  /** Undefined if nothing was lost. */
  readonly salvaged: Salvaged | undefined
}

/** What went wrong. */
export interface Failure {
  readonly error: Error
  readonly exitCode: number
  /** The command line. */
  readonly words: readonly string[]
  readonly isDebug: boolean
}

/** Says all this on standard error, each thing on lines of its own. */
export interface Report {
  /** A conversion begins. */
  begin(request: ConvertRequest): Promise<void>
  progress(step: Step): void
  /** Somebody asks how far it has come. */
  answer(): void
  /** Somebody else is going to write. */
  makeRoom(): void
  warning(warning: { readonly code: string; readonly message: string }): void
  damage(damage: Qcow2Damage): void
  /** Nothing more will be heard of progress. */
  end(): void
  /**
   * What was lost.
   *
   * @param length Bytes of the output.
   */
  salvaged(salvaged: Salvaged, length: number): void
  /**
   * The digest, where standard output has the disk.
   *
   * @param line As `sha256sum` prints it.
   */
  digest(line: string): void
  /** All is done. */
  result(outcome: Outcome): void
  failure(failure: Failure): void
}
