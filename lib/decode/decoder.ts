/**
 * Decoding one compressed cluster: its bytes in, exactly one cluster out.
 *
 * Pure: no files, no offsets. Invariant: a decoder fills its target completely or throws a `DecodeError`; it never
 * produces more than the target holds. Spec: "Compressed Clusters Descriptor", "compression_type".
 */
import { createInflateDecoder } from './inflate.js'

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

/** A decoder; zstd's is loaded when it is first asked for. */
export async function createDecoder(type: CompressionType): Promise<Decoder> {
  if (type === 'zlib') {
    return createInflateDecoder()
  }
  const { createZstdDecoder } = await import('./zstd.js')
  return createZstdDecoder()
}
