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
// Written where nothing could be moved: such a write ends when the pipe has room for it. More of data than of zeros, which are
// moved as soon as there is any room, data when half of the pipe is free.
const PIECE_BYTES = { zeros: 65536, data: 131072 }

/** Another way to write, which takes what it can at once: 0 if that is nothing. */
export type Mover = Pick<PipeMover, 'works' | 'moveBytes' | 'moveZeros'>

/** Writes bytes somewhere, in order; resolves when they are taken. */
export type WriteBytes = (bytes: Uint8Array) => Promise<void>

export class SequentialWriteStream extends Writable {
  /** Bytes written so far. */
  bytesWritten = 0

  /** @param mover Asked first, as long as it works. */
  constructor(
    private readonly writeBytes: WriteBytes,
    private readonly mover?: Mover,
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
      const mover = this.mover?.works === true ? this.mover : undefined
      const moved = mover === undefined ? 0 : move(mover, chunk, done)
      const count = moved > 0 ? moved : await this.#write(chunk, done, mover === undefined ? length : PIECE_BYTES[kind])
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

  /** Writes `most` bytes of the chunk or fewer, from its byte `from` on; returns how many. */
  async #write(chunk: GuestChunk, from: number, most: number): Promise<number> {
    const left = Math.min(chunk.length - from, most)
    const piece = chunk.kind === 'data' ? chunk.bytes.subarray(from, from + left) : ZEROS.subarray(0, left)
    await this.writeBytes(piece)
    return piece.length
  }
}

/** Moves what it can from the chunk's byte `from` on; returns how much. */
const move = (mover: Mover, chunk: GuestChunk, from: number): number =>
  chunk.kind === 'data' ? mover.moveBytes(chunk.bytes.subarray(from)) : mover.moveZeros(chunk.length - from)
