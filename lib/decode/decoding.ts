/**
 * Where clusters are decoded: small batches here and now, large ones in threads.
 *
 * Knows threads and memory, not images. Invariant: threads are started when the first large batch comes, and none is
 * left when `close` has resolved. Messages name shared memory and are paid once per batch, not per cluster.
 */
import type { Piscina } from 'piscina'
import type { Batch, BatchFailure } from './batch.js'
import { MemoryPool } from './memory-pool.js'
import { decodeInThread } from './worker.js'

// Handing a batch over takes about as long as decoding this much.
const MIN_BATCH_BYTES = 128 * 1024
// More than is ever under way: memory that is dropped stays until the garbage collector finds it.
const MAX_IDLE_BYTES = 64 * 2 ** 20

export class Decoding {
  #pool: Promise<Piscina> | undefined

  /** Memory that threads, if there are any, can see. */
  readonly memory: MemoryPool

  /** @param threads 0 decodes everything in the calling thread. */
  constructor(private readonly threads: number) {
    this.memory = new MemoryPool(threads > 0, MAX_IDLE_BYTES)
  }

  /** Fills the batch's target; what comes back says what failed. `stored` must be of {@link memory}. */
  async decode(batch: Batch): Promise<BatchFailure | undefined> {
    const { target } = batch
    if (this.threads === 0 || target.length < MIN_BATCH_BYTES) {
      return decodeInThread(batch)
    }
    const pool = await (this.#pool ??= startPool(this.threads))
    if (target.buffer instanceof SharedArrayBuffer) {
      return run(pool, batch)
    }
    const shared = this.memory.take(target.length)
    try {
      const failure = await run(pool, { ...batch, target: shared.subarray(0, target.length) })
      target.set(shared.subarray(0, target.length))
      return failure
    } finally {
      this.memory.give(shared)
    }
  }

  /** Ends the threads; to be called when nothing is being decoded. */
  async close(): Promise<void> {
    await (await this.#pool)?.destroy()
  }
}

const run = (pool: Piscina, batch: Batch): Promise<BatchFailure | undefined> =>
  pool.run(batch, { name: 'decodeInThread' }) as Promise<BatchFailure | undefined>

async function startPool(threads: number): Promise<Piscina> {
  const { Piscina } = await import('piscina')
  return new Piscina({
    filename: new URL('./worker.js', import.meta.url).href,
    minThreads: threads,
    maxThreads: threads,
  })
}
