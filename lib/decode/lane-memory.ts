/**
 * The memory that one decoding thread works in: WebAssembly's, so that decoders need no copy of their own, and shared, so
 * that compressed bytes are read into it and decoded ones written from it by the thread that starts reads and writes.
 *
 * Knows pieces, not what is in them. Invariant: what is taken is nobody else's until it is given back; pieces lie above
 * the decoders' tables. What is given back is joined with what lies free beside it, so that the memory grows to little
 * more than the most that was ever taken at once; it is freed as a whole.
 */

/** The part of the WebAssembly API that is used; without the types of a browser nothing declares it. */
declare const WebAssembly: {
  readonly Memory: new (limits: { initial: number; maximum: number; shared: true }) => SharedWasmMemory
}

/** A `WebAssembly.Memory`; it can be sent to another thread. */
export interface SharedWasmMemory {
  readonly buffer: SharedArrayBuffer
  /** By so many pages of 64 KiB. */
  grow(pages: number): number
}

const PAGE_BYTES = 65536
/** What lies below is the decoders' own. */
export const TABLES_BYTES = 3 * PAGE_BYTES
// As scripts/build-wasm.js tells the decoders; 4 GiB, of which only what is used takes memory.
const MAX_PAGES = 65536
// Growing is no more than a call to the system, yet every thread hears of it.
const MIN_GROWTH_BYTES = 64 * PAGE_BYTES

/** Bytes that lie free. */
interface Gap {
  offset: number
  length: number
}

const endOf = ({ offset, length }: Gap): number => offset + length

export class LaneMemory {
  /** For the decoders. */
  readonly wasm: SharedWasmMemory = new WebAssembly.Memory({
    initial: TABLES_BYTES / PAGE_BYTES,
    maximum: MAX_PAGES,
    shared: true,
  })
  /** Growing makes a new buffer over the same memory; pieces keep the one that they were made of. */
  readonly #buffers = new WeakSet<ArrayBufferLike>()
  /** In order, no two of them beside each other. There are never many: pieces are large, and few are out at once. */
  readonly #gaps: Gap[] = []

  /** `length` bytes, and up to 64 KiB more, on pages of their own, with whatever was in them. */
  take(length: number): Uint8Array {
    const bytes = Math.max(1, Math.ceil(length / PAGE_BYTES)) * PAGE_BYTES
    const index = this.#gaps.findIndex((gap) => gap.length >= bytes)
    const gap = index >= 0 ? this.#gaps[index]! : this.#growBy(bytes)
    const { offset } = gap
    gap.offset += bytes
    gap.length -= bytes
    if (gap.length === 0) {
      this.#gaps.splice(this.#gaps.indexOf(gap), 1)
    }
    const { buffer } = this.wasm
    this.#buffers.add(buffer)
    return new Uint8Array(buffer, offset, bytes)
  }

  /** Takes a piece back that {@link take} gave out; once. */
  give({ byteOffset, length }: Uint8Array): void {
    const next = this.#gaps.findIndex(({ offset }) => offset > byteOffset)
    this.#insert(next < 0 ? this.#gaps.length : next, { offset: byteOffset, length })
  }

  /** Whether the bytes are (a part of) a piece of this memory. */
  owns(bytes: Uint8Array): boolean {
    return this.#buffers.has(bytes.buffer)
  }

  /** The last gap, made longer until it has so many bytes. */
  #growBy(bytes: number): Gap {
    const end = this.wasm.buffer.byteLength
    const last = this.#gaps[this.#gaps.length - 1]
    const free = last && endOf(last) === end ? last.length : 0
    const length = Math.max(MIN_GROWTH_BYTES, bytes - free)
    this.wasm.grow(length / PAGE_BYTES)
    this.#insert(this.#gaps.length, { offset: end, length })
    return this.#gaps[this.#gaps.length - 1]!
  }

  #insert(index: number, gap: Gap): void {
    const [before, after] = [this.#gaps[index - 1], this.#gaps[index]]
    if (after?.offset === endOf(gap)) {
      gap.length += after.length
      this.#gaps.splice(index, 1)
    }
    if (before && endOf(before) === gap.offset) {
      before.length += gap.length
    } else {
      this.#gaps.splice(index, 0, gap)
    }
  }
}
