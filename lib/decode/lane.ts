/**
 * A lane: a memory, and who decodes what lies in it, this thread or one of its own.
 *
 * Invariant: a lane's decoders have tables in its memory, so that only one thread ever decodes there. A thread is started
 * with the lane and ends with `close`.
 */
import type { Piscina } from 'piscina'
import type { Batch, BatchFailure } from './batch.js'
import { BatchDecoder } from './batch-decoder.js'
import { LaneMemory } from './lane-memory.js'

export interface Lane {
  readonly memory: LaneMemory
  /** Bytes that are being read or decoded, or wait for it. */
  busyBytes: number
  /** Decodes a batch in the lane's memory; what comes back says what failed, undefined if nothing did. */
  decode(batch: Batch): Promise<BatchFailure | undefined>
  /** To be called when nothing is being decoded. */
  close(): Promise<void>
}

/** Decodes in the calling thread. */
export class InlineLane implements Lane {
  readonly memory = new LaneMemory()
  readonly #decoder = new BatchDecoder(this.memory.wasm)
  busyBytes = 0

  decode(batch: Batch): Promise<BatchFailure | undefined> {
    return Promise.resolve(this.#decoder.decode(batch))
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}

/** Decodes in a thread of its own. A pool of one thread each, as a pool of several would choose among them itself. */
export class ThreadLane implements Lane {
  readonly memory = new LaneMemory()
  busyBytes = 0
  readonly #pool: Promise<Piscina> = this.#start()

  async decode(batch: Batch): Promise<BatchFailure | undefined> {
    return (await this.#pool).run(batch, { name: 'decode' }) as Promise<BatchFailure | undefined>
  }

  async close(): Promise<void> {
    await (await this.#pool).destroy()
  }

  async #start(): Promise<Piscina> {
    const { Piscina } = await import('piscina')
    const filename = new URL('./worker.js', import.meta.url).href
    const pool = new Piscina({ filename, minThreads: 1, maxThreads: 1 })
    // Tasks come in order, so that this one is done before the first batch. If it fails, every batch will.
    pool.run(this.memory.wasm, { name: 'begin' }).catch(() => undefined)
    return pool
  }
}
