/**
 * Decoding many clusters at once, wherever it runs: in this thread or in another.
 *
 * Pure. Invariant: clusters are decoded in order, up to the first that is damaged, which is named.
 */
import { DecodeError } from './decode-error.js'
import type { CompressionType, Decoder } from './decoder.js'

/** Words of `Batch.ranges` for each cluster. */
export const RANGE_WORDS = 2

/** Compressed clusters next to each other on the guest, and where they are to be decoded to. */
export interface Batch {
  readonly compression: CompressionType
  /** Bytes. */
  readonly clusterSize: number
  /** What was read from the host. */
  readonly stored: Uint8Array
  /** For each cluster: where its bytes begin in `stored`, and how many there are at most. Ranges may overlap. */
  readonly ranges: Uint32Array
  /** One cluster after another; exactly as many bytes. */
  readonly target: Uint8Array
}

/** The first cluster of a batch that could not be decoded. */
export interface BatchFailure {
  /** Counts from 0. */
  readonly cluster: number
  readonly reason: string
}

/** Decodes a batch; what comes back says what failed, undefined if nothing did. */
export function decodeBatch(
  decoder: Decoder,
  { stored, ranges, target, clusterSize }: Batch,
): BatchFailure | undefined {
  for (let cluster = 0; cluster * RANGE_WORDS < ranges.length; cluster++) {
    const start = ranges[cluster * RANGE_WORDS]!
    const source = stored.subarray(start, start + ranges[cluster * RANGE_WORDS + 1]!)
    try {
      decoder.decode(source, target.subarray(cluster * clusterSize, (cluster + 1) * clusterSize))
    } catch (error) {
      if (!(error instanceof DecodeError)) {
        throw error
      }
      return { cluster, reason: error.message }
    }
  }
  return undefined
}
