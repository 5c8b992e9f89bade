/**
 * Hands guest chunks in order to a function that writes them, and first to one that moves them, if there is one.
 *
 * Knows order, not offsets. Invariant: never more than one write is under way; what is written to, which may be standard
 * output, is opened and closed by its owner.
 */
import { Writable } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import type { GuestChunk } from '../stream/chunk.js'
import type { PipeMover } from './linux-pipe.js'

const ZEROS = new Uint8Array(2 ** 20)
// What is written after all when a pipe that things are moved into is full: that ends when there is room again.
const PIECE_BYTES = { zeros: 65536, data: 131072 }

/** Writes bytes somewhere, in order; resolves when they are taken. */
export type WriteBytes = (bytes: Uint8Array) => Promise<void>

export class SequentialWriteStream extends Writable {
  /** Bytes written so far. */
  bytesWritten = 0

  /** @param mover Another way to write, asked first. */
  constructor(
    private readonly writeBytes: WriteBytes,
    private readonly mover?: Pick<PipeMover, 'moveBytes' | 'moveZeros'>,
  ) {
    super({ objectMode: true, highWaterMark: 1 })
  }

  override _write(chunk: GuestChunk, _encoding: string, callback: (error?: Error | null) => void): void {
    this.#accept(chunk).then(() => {
      callback()
    }, callback)
  }

  async #accept(chunk: GuestChunk): Promise<void> {
    const { kind, length } = chunk
    for (let done = 0; done < length && !this.destroyed;) {
      const moved = this.#move(chunk, done)
      const count = moved === 0 ? await this.#write(chunk, done) : moved
      this.bytesWritten += count
      done += count
      // Signals and timers have their turn, even if there is always room and always something to be moved.
      if (moved > 0 && (kind === 'zeros' || done === length)) {
        await setImmediate()
      }
    }
    if (kind === 'data') {
      chunk.release()
    }
  }

  /** Moves what it can from the chunk's byte `from` on; returns how much. */
  #move(chunk: GuestChunk, from: number): number {
    if (this.mover === undefined) {
      return 0
    }
    return chunk.kind === 'data'
      ? this.mover.moveBytes(chunk.bytes.subarray(from))
      : this.mover.moveZeros(chunk.length - from)
  }

  /** Writes a piece of the chunk, from its byte `from` on; returns how much. */
  async #write(chunk: GuestChunk, from: number): Promise<number> {
    const most = this.mover === undefined ? Infinity : PIECE_BYTES[chunk.kind]
    const length = Math.min(chunk.length - from, most, chunk.kind === 'zeros' ? ZEROS.length : Infinity)
    await this.writeBytes(chunk.kind === 'data' ? chunk.bytes.subarray(from, from + length) : ZEROS.subarray(0, length))
    return length
  }
}
