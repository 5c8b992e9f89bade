/**
 * Writes guest chunks one after another into a Writable that cannot seek: a pipe, a terminal, a device.
 *
 * Knows order, not offsets; zeros are written out. Invariant: never more than one write is under way, and the Writable
 * below is neither ended nor destroyed, as standard output must not be.
 */
import { Writable } from 'node:stream'
import type { GuestChunk } from '../stream/chunk.js'

const ZEROS = new Uint8Array(2 ** 20)

/** Writes bytes somewhere, in order; resolves when they are taken. */
export type WriteBytes = (bytes: Uint8Array) => Promise<void>

export class SequentialWriteStream extends Writable {
  /** Bytes written so far. */
  bytesWritten = 0

  constructor(private readonly writeBytes: WriteBytes) {
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
    for (let left = chunk.length; left > 0 && !this.destroyed; left -= ZEROS.length) {
      await this.#write(left < ZEROS.length ? ZEROS.subarray(0, left) : ZEROS)
    }
  }

  async #write(bytes: Uint8Array): Promise<void> {
    await this.writeBytes(bytes)
    this.bytesWritten += bytes.length
  }
}
