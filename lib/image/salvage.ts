/**
 * What is done with what cannot be read, if the caller wants the rest: it becomes zeros, and the caller hears of it.
 *
 * Knows ranges and errors, not how either came about. Invariant: nothing is passed over in silence, and only damage of the
 * image and failed reads are passed over at all: a wrong call, or a bug, ends what it is met in, and so does a server that is
 * not there any more or has another image now.
 */
import { Qcow2FormatError, Qcow2SourceError } from '../errors.js'

/** Guest bytes that could not be read and are zeros instead. */
export interface Qcow2Damage {
  /** Guest offset in bytes. */
  readonly offset: number
  /** Bytes, at least 1. */
  readonly length: number
  /** What is wrong; of several that lie next to each other, with the first of them. */
  readonly error: Qcow2FormatError | Qcow2SourceError
}

/** Hears of damage. The reading waits for the promise that it may return; what it throws, or rejects with, ends the reading. */
export type SalvageFunction = (damage: Qcow2Damage) => unknown

/** Collects damage of one look-up or read, and joins neighbours of one kind that are found one after the other. */
export class DamageList {
  readonly #found: { offset: number; length: number; error: Qcow2Damage['error'] }[] = []

  constructor(private readonly tell: SalvageFunction | undefined) {}

  /** Whether the error is one that can be gone on after, and somebody wants to. */
  accepts(error: unknown): error is Qcow2Damage['error'] {
    return (
      this.tell !== undefined &&
      (error instanceof Qcow2FormatError ||
        (error instanceof Qcow2SourceError && error.code === 'ERR_QCOW2_READ_FAILED'))
    )
  }

  /**
   * Notes that guest bytes become zeros.
   *
   * @throws The error itself, if nobody wants to go on, or if it is none that could be gone on after
   */
  add(offset: number, length: number, error: unknown): void {
    if (!this.accepts(error)) {
      throw error
    }
    const last = this.#found[this.#found.length - 1]
    if (last?.error.code === error.code && last.error.layer === error.layer && last.offset + last.length === offset) {
      last.length += length
    } else {
      this.#found.push({ offset, length, error })
    }
  }

  /** Fills with zeros what was found of the target, which begins at a guest offset. */
  clear(target: Uint8Array, guestOffset: number): void {
    for (const { offset, length } of this.#found) {
      target.fill(0, offset - guestOffset, offset - guestOffset + length)
    }
  }

  /** Tells the caller what was found. */
  async report(): Promise<void> {
    for (const damage of this.#found.splice(0)) {
      await this.tell?.(damage)
    }
  }
}
