/**
 * Hands guest chunks in order to a function that writes them, and zeros first to one that moves them, if there is one.
 *
 * Knows order, not offsets. Invariant: never more than one write is under way; what is written to, which may be standard
 * output, is opened and closed by its owner.
 */
import { Writable } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import type { GuestChunk } from '../stream/chunk.js'
import type { MoveZeros } from './linux-pipe.js'

const ZEROS = new Uint8Array(2 ** 20)
// Zeros that are written after all when a pipe that they are moved into is full: that ends when there is room again.
const PIECE_BYTES = 65536

/** Writes bytes somewhere, in order; resolves when they are taken. */
export type WriteBytes = (bytes: Uint8Array) => Promise<void>

export class SequentialWriteStream extends Writable {
  /** Bytes written so far. */
  bytesWritten = 0

  /** @param moveZeros Another way to write zeros, asked first. */
  constructor(
    private readonly writeBytes: WriteBytes,
    private readonly moveZeros?: MoveZeros,
  ) {
    super({ objectMode: true, highWaterMark: 1 })
  }

  override _write(chunk: GuestChunk, _encoding: string, callback: (error?: Error | null) => void): void {
    this.#accept(chunk).then(() => {
      callback()
    }, callback)
  }

  async #accept(chunk: GuestChunk): Promise<void> {
    if (chunk.kind === 'data') {
      await this.#write(chunk.bytes)
      chunk.release()
      return
    }
    for (let left = chunk.length; left > 0 && !this.destroyed;) {
      left -= await this.#writeZeros(left)
    }
  }

  /** Writes `most` zeros or fewer; returns how many. */
  async #writeZeros(most: number): Promise<number> {
    const moved = this.moveZeros?.(most) ?? 0
    if (moved > 0) {
      this.bytesWritten += moved
      await setImmediate()
      return moved
    }
    const length = Math.min(most, this.moveZeros === undefined ? ZEROS.length : PIECE_BYTES)
    await this.#write(ZEROS.subarray(0, length))
    return length
  }

  async #write(bytes: Uint8Array): Promise<void> {
    await this.writeBytes(bytes)
    this.bytesWritten += bytes.length
  }
}
