/**
 * Memory of runs that consumers gave back.
 *
 * Fresh memory costs page faults, which on many machines cost more than the copy into it. Invariant: what is taken is
 * nobody else's until it is given back, and no more than a few runs' worth lies idle.
 */

const MAX_IDLE = 16

export class BufferPool {
  readonly #idle: Uint8Array[] = []

  /** @param minBytes What is made is at least this long, so that it fits the next taker as well. */
  constructor(private readonly minBytes: number) {}

  /** At least `length` bytes, with whatever was in them. */
  take(length: number): Uint8Array {
    for (let i = this.#idle.length - 1; i >= 0; i--) {
      if (this.#idle[i]!.length >= length) {
        return this.#idle.splice(i, 1)[0]!
      }
    }
    return Buffer.allocUnsafeSlow(Math.max(length, this.minBytes))
  }

  give(memory: Uint8Array): void {
    if (this.#idle.length < MAX_IDLE) {
      this.#idle.push(memory)
    }
  }
}
