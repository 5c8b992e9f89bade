/**
 * A lane: a memory, and who decodes and decrypts what lies in it, this thread or one of its own.
 *
 * Invariant: a lane's decoders have tables in its memory, so that only one thread ever decodes there. A thread is started
 * with the lane and ends with `close`. One that fails at work is replaced; one that fails with nothing to do is the end of its lane.
 */
import type { Piscina } from 'piscina'
import type { DiskKey } from '../crypto/cipher.js'
import type { Batch, BatchFailure } from './batch.js'
import { BatchDecoder } from './batch-decoder.js'
import { LaneMemory } from './lane-memory.js'
import { SectorDecrypter, SectorSender } from './sector-batch.js'

export interface Lane {
  readonly memory: LaneMemory
  /** Bytes that are being read or decoded, or wait for it. */
  busyBytes: number
  /** Decodes a batch in the lane's memory; what comes back says what failed, undefined if nothing did. */
  decode(batch: Batch): Promise<BatchFailure | undefined>
  /** Decrypts runs of sectors (as in `SectorBatch`) in the lane's memory, or anywhere if `decryptsAnywhere`. */
  decrypt(key: DiskKey, target: Uint8Array, runs: Float64Array): Promise<void>
  readonly decryptsAnywhere: boolean
}

/** Decodes in the calling thread. */
export class InlineLane implements Lane {
  readonly memory = new LaneMemory()
  readonly #decoder = new BatchDecoder(this.memory.wasm)
  readonly #sender = new SectorSender()
  readonly #decrypter = new SectorDecrypter()
  readonly decryptsAnywhere = true
  busyBytes = 0

  decode(batch: Batch): Promise<BatchFailure | undefined> {
    return Promise.resolve(this.#decoder.decode(batch))
  }

  decrypt(key: DiskKey, target: Uint8Array, runs: Float64Array): Promise<void> {
    const batch = this.#sender.batch(key, target, runs)
    // The receiver overwrites what it gets.
    this.#decrypter.decrypt({ ...batch, spec: structuredClone(batch.spec) })
    return Promise.resolve()
  }
}

/** Decodes in a thread of its own. A pool of one thread each, as a pool of several would choose among them itself. */
export class ThreadLane implements Lane {
  readonly memory = new LaneMemory()
  readonly decryptsAnywhere = false
  busyBytes = 0
  readonly #sender = new SectorSender()
  readonly #pool: Promise<Piscina> = this.#start()
  /** What ended a thread that had nothing to do yet, or any more: nobody waited for it who would have heard. */
  #death: Error | undefined
  #end: Promise<void> | undefined

  constructor() {
    // Whoever decodes hears of it.
    this.#pool.catch(() => undefined)
  }

  decode(batch: Batch): Promise<BatchFailure | undefined> {
    return this.#run(batch, 'decode')
  }

  async decrypt(key: DiskKey, target: Uint8Array, runs: Float64Array): Promise<void> {
    const isDone = (): Promise<boolean> => this.#run(this.#sender.batch(key, target, runs), 'decrypt')
    if (!(await isDone())) {
      // A thread that has died has taken its keys along, and the next one has to be given them.
      this.#sender.forget(key)
      await isDone()
    }
  }

  /** Whether nothing can be decoded here any more. */
  get isDead(): boolean {
    return this.#death !== undefined
  }

  /** To be called when nothing is being decoded. */
  async close(): Promise<void> {
    const pool = await this.#pool.catch(() => undefined)
    await this.#end
    await pool?.destroy()
  }

  async #start(): Promise<Piscina> {
    const { Piscina } = await import('piscina')
    const filename = new URL('./worker.js', import.meta.url).href
    const pool = new Piscina({ filename, minThreads: 1, maxThreads: 1, workerData: this.memory.wasm })
    pool.on('error', (error: Error) => {
      // What waits for the next thread would wait forever if that failed as well. `destroy` fails it at once.
      this.#death ??= error
      this.#end ??= pool.destroy()
    })
    return pool
  }

  async #run<Result>(task: unknown, name: string): Promise<Result> {
    const pool = await this.#pool
    if (this.#death !== undefined) {
      throw this.#death
    }
    return pool.run(task, { name }).catch((error: unknown) => {
      throw this.#death ?? error
    }) as Promise<Result>
  }
}
