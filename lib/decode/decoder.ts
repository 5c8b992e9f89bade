/**
 * Decoding one compressed cluster: its bytes in, exactly one cluster out.
 *
 * Pure: no files, no host or guest offsets. Invariant: a decoder fills its target completely or throws a `DecodeError`;
 * it never produces more than the target holds. Spec: "Compressed Clusters Descriptor", "compression_type".
 */
import { createInflateDecoder } from './inflate.js'
import type { SharedWasmMemory } from './lane-memory.js'
import { createZstdDecoder } from './zstd.js'

/** Decodes clusters of one compression type, one at a time, within one memory. */
export interface Decoder {
  /**
   * Fills one cluster from its bytes, which may go on after the compressed data.
   *
   * @param source Where they begin in the memory; with `sourceLength` bytes.
   * @param target Where the cluster goes; `targetLength` bytes, of which some may be written even if it throws.
   * @throws {DecodeError}
   */
  decode(source: number, sourceLength: number, target: number, targetLength: number): void
}

/** How clusters can be compressed. Spec: "Additional fields", compression_type. */
export type CompressionType = 'zlib' | 'zstd'

/** A decoder; one memory holds the tables of one decoder of each type. */
export const createDecoder = (type: CompressionType, memory: SharedWasmMemory): Decoder =>
  type === 'zlib' ? createInflateDecoder(memory) : createZstdDecoder(memory)
