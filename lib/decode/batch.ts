/**
 * Decoding many clusters at once, in this thread or in another.
 *
 * Pure. Invariant: clusters are decoded in order, up to the first that is damaged, which is named.
 */
import { DecodeError } from './decode-error.js'
import type { CompressionType, Decoder } from './decoder.js'

/** Words of `Batch.places` for each cluster. */
export const PLACE_WORDS = 3

/** Compressed clusters, and where in the decoders' memory they are and go. */
export interface Batch {
  readonly compression: CompressionType
  /** Bytes. */
  readonly clusterSize: number
  /** Offset of what was read from the host. */
  readonly stored: number
  /** Offset of what is decoded. */
  readonly target: number
  /**
   * For each cluster: where its bytes begin in `stored`, how many there are at most, and where it goes in `target`. What is
   * stored may overlap.
   */
  readonly places: Uint32Array
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
  { stored, target, places, clusterSize }: Batch,
): BatchFailure | undefined {
  for (let at = 0; at < places.length; at += PLACE_WORDS) {
    try {
      decoder.decode(stored + places[at]!, places[at + 1]!, target + places[at + 2]!, clusterSize)
    } catch (error) {
      if (!(error instanceof DecodeError)) {
        throw error
      }
      return { cluster: at / PLACE_WORDS, reason: error.message }
    }
  }
  return undefined
}
