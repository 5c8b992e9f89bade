/**
 * What a decoding thread does: a batch comes in, its clusters appear in the shared memory that came with it.
 *
 * Invariant: a thread keeps its decoders, and nothing of a batch.
 */
import { decodeBatch, type Batch, type BatchFailure } from './batch.js'
import { createDecoder, type CompressionType, type Decoder } from './decoder.js'

const decoders = new Map<CompressionType, Decoder>()

/** Decodes a batch in this thread. */
export async function decodeInThread(batch: Batch): Promise<BatchFailure | undefined> {
  let decoder = decoders.get(batch.compression)
  if (decoder === undefined) {
    decoder = await createDecoder(batch.compression)
    decoders.set(batch.compression, decoder)
  }
  return decodeBatch(decoder, batch)
}
