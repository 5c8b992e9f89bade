/**
 * zstd's clusters: one or more frames (RFC 8878) that together yield one cluster.
 *
 * The decoder is our own, in WebAssembly (zstd.as.ts): of the packaged ones the best takes nearly twice as long on Node 20,
 * which has no zstd itself, and leaves a buffer for each cluster to the garbage collector. Node 24 has, and takes twice as long for
 * clusters (measured: 3,000 of files, 250 ms against 125). As QEMU does, several and
 * skippable frames are accepted and what follows once the cluster is full is ignored; more output is an error.
 */
import { DecodeError } from './decode-error.js'
import type { Decoder } from './decoder.js'
import type { SharedWasmMemory } from './lane-memory.js'
import { instantiateDecoder } from './wasm-decoder.js'
import { ZSTD_WASM } from './zstd-wasm.js'

const PROBLEMS: Readonly<Record<number, string>> = {
  [-1]: 'the zstd frame is damaged',
  [-2]: 'the zstd frame is cut off',
  [-3]: 'the zstd frame yields more than a cluster',
  [-4]: 'the checksum of the zstd frame is wrong',
  [-5]: 'the zstd frame needs a window of more than 128 MiB',
  [-6]: 'the zstd frame needs a dictionary',
  [-7]: 'there is no zstd frame',
}

/** A decoder for compression type 1. */
export function createZstdDecoder(memory: SharedWasmMemory): Decoder {
  const decodeFrames = instantiateDecoder(ZSTD_WASM, memory)
  return {
    decode(source, sourceLength, target, targetLength) {
      const result = decodeFrames(source, sourceLength, target, targetLength)
      if (result !== targetLength) {
        throw new DecodeError(PROBLEMS[result])
      }
    },
  }
}
