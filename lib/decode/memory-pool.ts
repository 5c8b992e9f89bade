/**
 * Memory that is used again and again for runs.
 *
 * Fresh memory costs page faults, which on many machines cost more than the copy into it. Invariant: what is taken is
 * nobody else's until it is given back, and what lies idle is bounded by bytes.
 */

const MIN_BYTES = 65536

export class MemoryPool {
  readonly #idle = new Map<number, Uint8Array[]>()
  #idleBytes = 0

  /**
   * @param isShared Whether threads can see the memory (some Node and Web APIs refuse such memory).
   * @param maxIdleBytes What is given back beyond this is dropped.
   */
  constructor(
    private readonly isShared: boolean,
    private readonly maxIdleBytes: number,
  ) {}

  /** How much memory {@link take} gives out for so many bytes: less than twice as much, or 64 KiB. */
  static sizeFor(length: number): number {
    return Math.max(MIN_BYTES, 2 ** Math.ceil(Math.log2(length)))
  }

  /** At least `length` bytes, with whatever was in them. */
  take(length: number): Uint8Array {
    const bytes = MemoryPool.sizeFor(length)
    const idle = this.#idle.get(bytes)?.pop()
    if (idle !== undefined) {
      this.#idleBytes -= bytes
      return idle
    }
    return this.isShared ? new Uint8Array(new SharedArrayBuffer(bytes)) : Buffer.allocUnsafeSlow(bytes)
  }

  /** Takes memory back that {@link take} gave out; once. */
  give(memory: Uint8Array): void {
    const bytes = memory.length
    if (this.#idleBytes + bytes > this.maxIdleBytes) {
      return
    }
    const list = this.#idle.get(bytes)
    if (list === undefined) {
      this.#idle.set(bytes, [memory])
    } else {
      list.push(memory)
    }
    this.#idleBytes += bytes
  }
}
