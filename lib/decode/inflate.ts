/**
 * zlib's clusters: a raw deflate stream without header or checksum, with a window of up to 32 KiB.
 *
 * The decoder is our own, in WebAssembly (inflate.as.ts): Node's makes a new stream and a new buffer for each cluster,
 * which costs a sixth of the time and hundreds of megabytes of garbage, and it cannot stop where a cluster is full. As
 * QEMU does, output beyond the cluster and bytes after the stream are ignored; too little output is an error.
 */
import { DecodeError } from './decode-error.js'
import type { Decoder } from './decoder.js'
import { INFLATE_WASM } from './inflate-wasm.js'
import type { SharedWasmMemory } from './lane-memory.js'
import { instantiateDecoder } from './wasm-decoder.js'

const OUT_OF_INPUT = -2

/** A decoder for compression type 0. */
export function createInflateDecoder(memory: SharedWasmMemory): Decoder {
  const inflate = instantiateDecoder(INFLATE_WASM, memory)
  return {
    decode(source, sourceLength, target, targetLength) {
      const result = inflate(source, sourceLength, target, targetLength)
      if (result !== targetLength) {
        throw new DecodeError(problem(result, targetLength))
      }
    },
  }
}

function problem(result: number, wanted: number): string {
  if (result >= 0) {
    return `the deflate stream yields ${result} bytes instead of ${wanted}`
  }
  return result === OUT_OF_INPUT ? 'the deflate stream is cut off' : 'the deflate stream is damaged'
}
