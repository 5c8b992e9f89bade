/**
 * The memory that one decoding thread works in: WebAssembly's, so that decoders need no copy of their own, and shared, so
 * that compressed bytes are read into it and decoded ones written from it by the thread that starts reads and writes.
 *
 * Knows pieces, not what is in them. Invariant: what is taken is nobody else's until it is given back; pieces lie above
 * the decoders' tables. The memory grows to the most that was ever taken at once and is freed as a whole.
 */
import { PieceShelf, pieceBytes } from './pieces.js'

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
const MIN_GROWTH_PAGES = 64

export class LaneMemory {
  /** For the decoders. */
  readonly wasm: SharedWasmMemory = new WebAssembly.Memory({
    initial: TABLES_BYTES / PAGE_BYTES,
    maximum: MAX_PAGES,
    shared: true,
  })
  /** Growing makes a new buffer over the same memory; pieces keep the one that they were made of. */
  readonly #buffers = new WeakSet<ArrayBufferLike>()
  readonly #shelf = new PieceShelf()
  #end = TABLES_BYTES

  /** At least `length` bytes on a page of their own, with whatever was in them. */
  take(length: number): Uint8Array {
    return this.#shelf.take(length) ?? this.#cut(pieceBytes(length))
  }

  /** Takes a piece back that {@link take} gave out; once. */
  give(piece: Uint8Array): void {
    this.#shelf.give(piece)
  }

  /** Whether the bytes are (a part of) a piece of this memory. */
  owns(bytes: Uint8Array): boolean {
    return this.#buffers.has(bytes.buffer)
  }

  #cut(length: number): Uint8Array {
    const missing = this.#end + length - this.wasm.buffer.byteLength
    if (missing > 0) {
      this.wasm.grow(Math.max(MIN_GROWTH_PAGES, Math.ceil(missing / PAGE_BYTES)))
    }
    const { buffer } = this.wasm
    this.#buffers.add(buffer)
    const piece = new Uint8Array(buffer, this.#end, length)
    this.#end += length
    return piece
  }
}
