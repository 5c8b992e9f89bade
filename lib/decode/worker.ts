/**
 * What a thread does, this one or another: a batch comes in, and its clusters appear in the batch's target.
 *
 * Invariant: a thread keeps its decoders, and nothing of a batch.
 */
import { decodeBatch, type Batch, type BatchFailure } from './batch.js'
import { createDecoder, type CompressionType, type Decoder } from './decoder.js'

const decoders = new Map<CompressionType, Decoder>()

/** Decodes a batch in this thread; what comes back says what failed, undefined if nothing did. */
export function decodeInThread(batch: Batch): BatchFailure | undefined {
  let decoder = decoders.get(batch.compression)
  if (decoder === undefined) {
    decoder = createDecoder(batch.compression)
    decoders.set(batch.compression, decoder)
  }
  return decodeBatch(decoder, batch)
}
