/**
 * Decoding many clusters at once, in this thread or in another.
 *
 * Pure. Invariant: clusters are decoded in order, up to the first that is damaged, which is named.
 */
import { DecodeError } from './decode-error.js'
import type { CompressionType, Decoder } from './decoder.js'

/** Words of `Batch.ranges` for each cluster. */
export const RANGE_WORDS = 2

/** Compressed clusters next to each other on the guest, and where in the decoders' memory they are and go. */
export interface Batch {
  readonly compression: CompressionType
  /** Bytes. */
  readonly clusterSize: number
  /** Offset of what was read from the host. */
  readonly stored: number
  /** For each cluster: where its bytes begin in `stored`, and how many there are at most. Ranges may overlap. */
  readonly ranges: Uint32Array
  /** Offset of the first cluster; the others follow. */
  readonly target: number
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
    const source = stored + ranges[cluster * RANGE_WORDS]!
    try {
      decoder.decode(source, ranges[cluster * RANGE_WORDS + 1]!, target + cluster * clusterSize, clusterSize)
    } catch (error) {
      if (!(error instanceof DecodeError)) {
        throw error
      }
      return { cluster, reason: error.message }
    }
  }
  return undefined
}
