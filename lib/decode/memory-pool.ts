/**
 * Ordinary memory that is used again and again for runs.
 *
 * Fresh memory costs page faults, which on many machines cost more than the copy into it (measured: 2 MiB take 0.35 ms, and 0.08 ms
 * where they have been used before). Invariant: what is taken is nobody else's until it is given back, and what lies idle is bounded
 * by bytes.
 */

/** Where runs get their memory. */
export interface RunMemory {
  /** At least `length` bytes, with whatever was in them. */
  take(length: number): Uint8Array
  /** Takes memory back that {@link take} gave out; once. */
  give(memory: Uint8Array): void
}

const MIN_BYTES = 65536

// An allocator's large blocks begin 16 bytes behind a page. Some processors copy from a page to such a place, as a read of
// a file does, at a quarter of their speed (measured: AMD Zen 3, `rep movsb`, 2.4 instead of 8.5 GB/s); 48 bytes on they do not.
const HEAD_BYTES = 48

/** Fresh ordinary memory, where it is fast to read into. */
export function allocate(length: number): Buffer {
  return Buffer.allocUnsafeSlow(HEAD_BYTES + length).subarray(HEAD_BYTES)
}

export class MemoryPool implements RunMemory {
  readonly #idle = new Map<number, Uint8Array[]>()
  #idleBytes = 0

  /** @param maxIdleBytes What is given back beyond this is dropped. */
  constructor(private readonly maxIdleBytes: number) {}

  /** How much memory {@link take} gives out for so many bytes: less than twice as much, or 64 KiB; hence few sizes. */
  static sizeFor(length: number): number {
    return Math.max(MIN_BYTES, 2 ** Math.ceil(Math.log2(length)))
  }

  take(length: number): Uint8Array {
    const bytes = MemoryPool.sizeFor(length)
    const idle = this.#idle.get(bytes)?.pop()
    this.#idleBytes -= idle?.length ?? 0
    return idle ?? allocate(bytes)
  }

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
