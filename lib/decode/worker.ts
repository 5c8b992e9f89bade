/**
 * What a decoding thread does: batch after batch in the memory that it was started with.
 *
 * Invariant: a thread keeps its decoders and ciphers, and nothing of a batch.
 */
import { getPriority, setPriority } from 'node:os'
import { isMainThread, workerData } from 'node:worker_threads'
import type { Batch, BatchFailure } from './batch.js'
import { BatchDecoder } from './batch-decoder.js'
import type { SharedWasmMemory } from './lane-memory.js'
import { SectorDecrypter, type SectorBatch } from './sector-batch.js'

// Decoding keeps every processor busy. Were its threads as important as those that read and write, these would wait for a
// turn each time, and everybody for them: with two processors that took a quarter longer. Only Linux can tell threads apart.
// It is added to that of the process, from which only root could take away.
const NICENESS = 3
const MAX_NICENESS = 19
/* c8 ignore next 3 (coverage knows nothing of threads; the test asks the system) */
if (process.platform === 'linux' && !isMainThread) {
  setPriority(Math.min(MAX_NICENESS, getPriority() + NICENESS))
}

const decoder = new BatchDecoder(workerData as SharedWasmMemory)

/** Decodes a batch; what comes back says what failed, undefined if nothing did. */
export const decode = (batch: Batch): BatchFailure | undefined => decoder.decode(batch)

const decrypter = new SectorDecrypter()

/** Decrypts a batch, whose target both threads see; whether this thread has the key. */
export const decrypt = (batch: SectorBatch): boolean => decrypter.decrypt(batch)
