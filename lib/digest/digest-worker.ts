/** What a hashing thread does: batch after batch, with the algorithm that it was started with. */
import { workerData } from 'node:worker_threads'
import { Hasher, type PieceBatch } from './hasher.js'

const hasher = new Hasher(workerData as string)

/** Hashes a batch, whose memory the thread that sent it must not change meanwhile. */
export const add = (batch: PieceBatch): void => {
  hasher.add(batch)
}

/** The digest of all so many bytes. */
export const finish = (length: number): string => hasher.finish(length)
