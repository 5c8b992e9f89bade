/** Passes chunks on and tells how far they have come. */
import { Transform } from 'node:stream'
import { Pace, type Qcow2Pace } from '../source/pace.js'
import type { GuestChunk } from './chunk.js'

/** How far a conversion has come, and how fast it goes on. */
export interface Qcow2Progress extends Qcow2Pace {
  /** What is being done: an output that is verified is read back after it has been written. */
  readonly phase: 'converting' | 'verifying'
  /** Guest bytes that have been read, or, with a digest, hashed, zeros included; from 0 again in the next phase. */
  readonly bytesDone: number
  /** Guest bytes in all. */
  readonly bytesTotal: number
}

/** Hears of progress. */
export type ProgressFunction = (progress: Qcow2Progress) => void

/** Counts bytes, and tells of them. */
export class ProgressTeller {
  #bytesDone = 0
  readonly #pace: Pace

  /**
   * @param bytesTotal Guest bytes that will come.
   * @param now Seconds on a clock that does not jump.
   */
  constructor(
    private readonly phase: Qcow2Progress['phase'],
    private readonly bytesTotal: number,
    private readonly onProgress: ProgressFunction,
    now?: () => number,
  ) {
    this.#pace = new Pace(bytesTotal, now)
  }

  /** Guest bytes so far. */
  get bytesDone(): number {
    return this.#bytesDone
  }

  /** Counts bytes more; returns an error if the function throws. */
  add(bytes: number): Error | undefined {
    this.#bytesDone += bytes
    const { phase, bytesTotal, bytesDone } = this
    const { bytesPerSecond, secondsLeft } = this.#pace.at(bytesDone)
    try {
      this.onProgress({ phase, bytesDone, bytesTotal, bytesPerSecond, secondsLeft })
      return undefined
    } catch (error) {
      return error instanceof Error ? error : new Error('onProgress threw', { cause: error })
    }
  }
}

export class ProgressMeter extends Transform {
  /** @param teller Told of each chunk. */
  constructor(private readonly teller: ProgressTeller) {
    super({ objectMode: true, highWaterMark: 1 })
  }

  override _transform(
    chunk: GuestChunk,
    _encoding: string,
    callback: (error: Error | null, chunk?: GuestChunk) => void,
  ): void {
    const failure = this.teller.add(chunk.length)
    if (failure === undefined) {
      callback(null, chunk)
    } else {
      callback(failure)
    }
  }
}
