/**
 * How a decoder in WebAssembly is made, over memory that others read into and write from.
 *
 * Knows modules, not formats. Invariant: a module asks for nothing from outside but that memory, and writes only its own
 * tables, below the pieces of `LaneMemory`, and its target.
 */
import type { SharedWasmMemory } from './lane-memory.js'

/** The part of the WebAssembly API that is used; without the types of a browser nothing declares it. */
declare const WebAssembly: {
  readonly Module: new (code: Uint8Array) => object
  readonly Instance: new (module: object, imports: object) => { readonly exports: { readonly decode: WasmDecode } }
}

/**
 * Fills `targetLength` bytes from `target` on, all offsets into the memory; returns how many bytes came out, or a negative
 * code. If that is not `targetLength`, what is in the target counts for nothing.
 */
export type WasmDecode = (source: number, sourceLength: number, target: number, targetLength: number) => number

/** @param code The WebAssembly, in Base64. */
export function instantiateDecoder(code: string, memory: SharedWasmMemory): WasmDecode {
  const module = new WebAssembly.Module(Buffer.from(code, 'base64'))
  return new WebAssembly.Instance(module, { env: { memory } }).exports.decode
}
