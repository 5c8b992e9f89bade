/** Passes chunks on and tells how far they have come. */
import { Transform } from 'node:stream'
import type { GuestChunk } from './chunk.js'

/** How far a conversion has come. */
export interface Qcow2Progress {
  /** What is being done: an output that is verified is read back after it has been written. */
  readonly phase: 'converting' | 'verifying'
  /** Guest bytes that have been read, or, with a digest, hashed, zeros included; from 0 again in the next phase. */
  readonly bytesDone: number
  /** Guest bytes in all. */
  readonly bytesTotal: number
}

/** Hears of progress. */
export type ProgressFunction = (progress: Qcow2Progress) => void

/** Tells of progress; returns an error if the function throws. */
export function tell(onProgress: ProgressFunction, progress: Qcow2Progress): Error | undefined {
  try {
    onProgress(progress)
    return undefined
  } catch (error) {
    return error instanceof Error ? error : new Error('onProgress threw', { cause: error })
  }
}

export class ProgressMeter extends Transform {
  #bytesDone = 0

  constructor(
    private readonly phase: Qcow2Progress['phase'],
    private readonly bytesTotal: number,
    private readonly onProgress: ProgressFunction,
  ) {
    super({ objectMode: true, highWaterMark: 1 })
  }

  override _transform(
    chunk: GuestChunk,
    _encoding: string,
    callback: (error: Error | null, chunk?: GuestChunk) => void,
  ): void {
    this.#bytesDone += chunk.length
    const { phase, bytesTotal } = this
    const failure = tell(this.onProgress, { phase, bytesDone: this.#bytesDone, bytesTotal })
    if (failure === undefined) {
      callback(null, chunk)
    } else {
      callback(failure)
    }
  }
}
