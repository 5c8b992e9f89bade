/** Decodes batches in one memory, whatever their compression types. Invariant: keeps its decoders, nothing of a batch. */
import { decodeBatch, type Batch, type BatchFailure } from './batch.js'
import { createDecoder, type CompressionType, type Decoder } from './decoder.js'
import type { SharedWasmMemory } from './lane-memory.js'

export class BatchDecoder {
  readonly #decoders = new Map<CompressionType, Decoder>()

  constructor(private readonly memory: SharedWasmMemory) {}

  /** Decodes a batch here and now; what comes back says what failed, undefined if nothing did. */
  decode(batch: Batch): BatchFailure | undefined {
    let decoder = this.#decoders.get(batch.compression)
    if (decoder === undefined) {
      decoder = createDecoder(batch.compression, this.memory)
      this.#decoders.set(batch.compression, decoder)
    }
    return decodeBatch(decoder, batch)
  }
}
