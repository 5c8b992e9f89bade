/**
 * Ordinary memory that is used again and again for runs.
 *
 * Fresh memory costs page faults, which on many machines cost more than the copy into it. Invariant: what is taken is
 * nobody else's until it is given back, and what lies idle is bounded by bytes.
 */
import { pieceBytes, PieceShelf } from './pieces.js'

/** Where runs get their memory. */
export interface RunMemory {
  /** At least `length` bytes, with whatever was in them. */
  take(length: number): Uint8Array
  /** Takes memory back that {@link take} gave out; once. */
  give(memory: Uint8Array): void
}

// An allocator's large blocks begin 16 bytes behind a page. Some processors copy from a page to such a place, as a read of
// a file does, at a quarter of their speed (measured: AMD Zen 3, `rep movsb`, 2.4 instead of 8.5 GB/s); 48 bytes on they do not.
const HEAD_BYTES = 48

/** Fresh ordinary memory, where it is fast to read into. */
export function allocate(length: number): Buffer {
  return Buffer.allocUnsafeSlow(HEAD_BYTES + length).subarray(HEAD_BYTES)
}

export class MemoryPool implements RunMemory {
  readonly #shelf = new PieceShelf()

  /** @param maxIdleBytes What is given back beyond this is dropped. */
  constructor(private readonly maxIdleBytes: number) {}

  take(length: number): Uint8Array {
    return this.#shelf.take(length) ?? allocate(pieceBytes(length))
  }

  give(memory: Uint8Array): void {
    if (this.#shelf.bytes + memory.length <= this.maxIdleBytes) {
      this.#shelf.give(memory)
    }
  }
}
