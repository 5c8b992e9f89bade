/**
 * What the decoders in WebAssembly share: how they are made, and memory for one cluster's bytes and what becomes of them.
 *
 * Knows memory, not formats. Invariant: a decoder is told exactly where it may read and write; its own tables lie below
 * both. Its memory grows to the largest cluster it has seen, and is never given back while it lives.
 */

/** The part of the WebAssembly API that is used; without the types of a browser nothing declares it. */
declare const WebAssembly: {
  readonly Module: new (code: Uint8Array) => object
  readonly Instance: new (module: object) => { readonly exports: WasmExports }
}

interface WasmExports {
  readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): number }
  /** Fills `targetLength` bytes from `target` on; returns how many it filled, or a negative code. */
  readonly decode: (source: number, sourceLength: number, target: number, targetLength: number) => number
}

const PAGE = 65536
/** The decoder's tables take what lies below. */
const SOURCE = 3 * PAGE
const ALIGNMENT = 16

/** A decoder of its own, with memory of its own. */
export class WasmDecoder {
  readonly #exports: WasmExports
  #heap: Uint8Array

  /** @param code The WebAssembly, in Base64. */
  constructor(code: string) {
    this.#exports = new WebAssembly.Instance(new WebAssembly.Module(Buffer.from(code, 'base64'))).exports
    this.#heap = new Uint8Array(this.#exports.memory.buffer)
  }

  /** Decodes `source`; `target` is written only if it can be filled. Returns how many bytes came out, or a code. */
  decode(source: Uint8Array, target: Uint8Array): number {
    const { memory, decode } = this.#exports
    const at = SOURCE + Math.ceil(source.length / ALIGNMENT) * ALIGNMENT
    const end = at + target.length
    if (end > this.#heap.length) {
      memory.grow(Math.ceil((end - this.#heap.length) / PAGE))
      this.#heap = new Uint8Array(memory.buffer)
    }
    this.#heap.set(source, SOURCE)
    const result = decode(SOURCE, source.length, at, target.length)
    if (result === target.length) {
      target.set(this.#heap.subarray(at, end))
    }
    return result
  }
}
