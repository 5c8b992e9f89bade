/**
 * A source of the caller's own, as the readers of images use it.
 *
 * Invariant: the caller's `read` is given ordinary memory, since many APIs refuse memory that threads share, and nobody else's
 * until it has settled.
 */
import type { Qcow2Source } from './source.js'

// As long as a run of an image that is read from a source, and all of one length, so that any can be used again: what is allocated
// for each read is 40 MiB by the time that it is collected. Only what is read into them takes memory.
const PIECE_BYTES = 2 * 2 ** 20
const MAX_IDLE = 16

export class CallerSource implements Qcow2Source {
  readonly size: number
  readonly #idle: Uint8Array[] = []

  constructor(private readonly source: Qcow2Source) {
    this.size = source.size
  }

  async read(target: Uint8Array, offset: number, signal: AbortSignal): Promise<number> {
    if (target.buffer instanceof ArrayBuffer) {
      return this.source.read(target, offset, signal)
    }
    const memory = this.#idle.pop() ?? new Uint8Array(PIECE_BYTES)
    const bytes = memory.subarray(0, target.length)
    const count = await this.source.read(bytes, offset, signal)
    target.set(bytes)
    // Not after an error: who has failed may be writing still.
    if (this.#idle.length < MAX_IDLE) {
      this.#idle.push(memory)
    }
    return count
  }

  close(): Promise<void> {
    return this.source.close()
  }
}
