/**
 * Where a disk is hashed: in this thread, or in one of its own.
 *
 * Invariant: batches are hashed in the order in which they are added, of which `hasher` makes sure; no thread is left when
 * `close` has resolved.
 */
import type { Piscina } from 'piscina'
import { Hasher, type PieceBatch } from './hasher.js'

export interface Hashing {
  /** Resolves when the batch is hashed, whose memory nobody changes until then. At most {@link MAX_BATCHES} at once. */
  add(batch: PieceBatch): Promise<void>
  /** The digest of so many bytes, in lower-case hex, once all that was added is hashed. */
  finish(length: number): Promise<string>
  /** At any moment: what is under way fails. */
  close(): Promise<void>
}

/** Batches that may be under way: while one is hashed, the next one waits for the thread, and not the thread for it. */
export const MAX_BATCHES = 2

/** Hashes in the calling thread. */
export class InlineHashing implements Hashing {
  readonly #hasher: Hasher

  constructor(algorithm: string) {
    this.#hasher = new Hasher(algorithm)
  }

  add(batch: PieceBatch): Promise<void> {
    this.#hasher.add(batch)
    return Promise.resolve()
  }

  finish(length: number): Promise<string> {
    return Promise.resolve(this.#hasher.finish(length))
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}

/** Hashes in a thread of its own. Bytes are not copied for it if their memory is shared. */
export class ThreadHashing implements Hashing {
  readonly #pool: Promise<Piscina>

  /** @param onError Hears of a thread that has died while it had nothing to do. */
  constructor(algorithm: string, onError: (error: Error) => void) {
    this.#pool = startPool(algorithm, onError)
    // Whoever hashes hears of it.
    this.#pool.catch(() => undefined)
  }

  async add(batch: PieceBatch): Promise<void> {
    await (await this.#pool).run(batch)
  }

  async finish(length: number): Promise<string> {
    return (await this.#pool).run(length, { name: 'finish' }) as Promise<string>
  }

  async close(): Promise<void> {
    const pool = await this.#pool.catch(() => undefined)
    await pool?.destroy()
  }
}

async function startPool(algorithm: string, onError: (error: Error) => void): Promise<Piscina> {
  const { Piscina } = await import('piscina')
  const pool = new Piscina({
    filename: new URL('./digest-worker.js', import.meta.url).href,
    name: 'add',
    // None takes the place of one that has died: it could only fail, and would be there still when the pool is gone.
    minThreads: 0,
    maxThreads: 1,
    idleTimeout: Infinity,
    // As many as there are: those that have to wait in the pool are not kept in order.
    concurrentTasksPerWorker: MAX_BATCHES,
    // With them, a thread answers for all batches that it finds when it is done with the last of them.
    atomics: 'disabled',
    workerData: algorithm,
  })
  pool.on('error', onError)
  return pool
}
