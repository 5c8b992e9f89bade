/** Passes chunks on and tells how far they have come. */
import { Transform } from 'node:stream'
import type { GuestChunk } from './chunk.js'

/** How far a conversion has come. */
export interface Qcow2Progress {
  /** Guest bytes that have been read, zeros included. */
  readonly bytesDone: number
  /** Guest bytes in all. */
  readonly bytesTotal: number
}

export class ProgressMeter extends Transform {
  #bytesDone = 0

  constructor(
    private readonly bytesTotal: number,
    private readonly onProgress: (progress: Qcow2Progress) => void,
  ) {
    super({ objectMode: true, highWaterMark: 1 })
  }

  override _transform(
    chunk: GuestChunk,
    _encoding: string,
    callback: (error: Error | null, chunk?: GuestChunk) => void,
  ): void {
    this.#bytesDone += chunk.length
    try {
      this.onProgress({ bytesDone: this.#bytesDone, bytesTotal: this.bytesTotal })
    } catch (error) {
      callback(error instanceof Error ? error : new Error('onProgress threw', { cause: error }))
      return
    }
    callback(null, chunk)
  }
}
