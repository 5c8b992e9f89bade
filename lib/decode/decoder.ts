/**
 * Decoding one compressed cluster: its bytes in, exactly one cluster out.
 *
 * Pure: no files, no offsets. Invariant: a decoder fills its target completely or throws a `DecodeError`; it never
 * produces more than the target holds. Spec: "Compressed Clusters Descriptor", "compression_type".
 */
import { createInflateDecoder } from './inflate.js'
import { createZstdDecoder } from './zstd.js'

/** Decodes clusters of one compression type, one at a time. */
export interface Decoder {
  /**
   * Fills `target`, one cluster long, from `source`, which may go on after the compressed data.
   *
   * @throws {DecodeError}
   */
  decode(source: Uint8Array, target: Uint8Array): void
}

/** How clusters can be compressed. Spec: "Additional fields", compression_type. */
export type CompressionType = 'zlib' | 'zstd'

/** A decoder, with memory of its own. */
export const createDecoder = (type: CompressionType): Decoder =>
  type === 'zlib' ? createInflateDecoder() : createZstdDecoder()
