/**
 * What a decoding thread does: it is told its memory once, then decodes batch after batch in it.
 *
 * Invariant: called by the pool of one lane only, in the order of its calls.
 */
import type { Batch, BatchFailure } from './batch.js'
import { BatchDecoder } from './batch-decoder.js'
import type { SharedWasmMemory } from './lane-memory.js'

let decoder: BatchDecoder

/** Prepares the thread. */
export function begin(memory: SharedWasmMemory): void {
  decoder = new BatchDecoder(memory)
}

/** Decodes a batch; what comes back says what failed, undefined if nothing did. */
export const decode = (batch: Batch): BatchFailure | undefined => decoder.decode(batch)
