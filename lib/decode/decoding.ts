/**
 * Where clusters are decoded: small batches here and now, large ones in threads, each with a memory of its own.
 *
 * Knows lanes and bytes, not images. Invariant: threads are started once there was enough to decode, and none is left
 * when `close` has resolved. What is decoded at once is bounded by bytes. Messages are paid once per batch, not per
 * cluster, and name memory that both threads see: nothing is copied for them.
 */
import type { BatchFailure } from './batch.js'
import type { CompressionType } from './decoder.js'
import { InlineLane, ThreadLane, type Lane } from './lane.js'
import type { RunMemory } from './memory-pool.js'
import { pieceBytes } from './pieces.js'

// Handing a batch over takes about as long as decoding this much.
const MIN_BATCH_BYTES = 128 * 1024
// Starting threads takes longer than decoding this much without them.
const MIN_BYTES_FOR_THREADS = 16 * 2 ** 20
// Of compressed bytes, and decoded ones that are still to be copied: lanes are never given back to the system.
const MAX_BUSY_BYTES = 64 * 2 ** 20

/** Compressed clusters next to each other on the guest. */
export interface Clusters {
  readonly compression: CompressionType
  /** Bytes. */
  readonly clusterSize: number
  /** Bytes to be read from the host for all of them. */
  readonly storedLength: number
  /** For each cluster: where its bytes begin in what is read, and how many there are at most. Ranges may overlap. */
  readonly ranges: Uint32Array
  /** One cluster after another; exactly as many bytes. */
  readonly target: Uint8Array
}

export class Decoding {
  #inline: InlineLane | undefined
  #threadLanes: readonly ThreadLane[] | undefined
  #decodedBytes = 0
  #busyBytes = 0
  readonly #waiting: (() => void)[] = []

  /**
   * @param threads 0 decodes everything in the calling thread.
   * @param bytesBeforeThreads What is decoded in the calling thread before others are started.
   */
  constructor(
    private readonly threads: number,
    private readonly bytesBeforeThreads = MIN_BYTES_FOR_THREADS,
  ) {}

  /**
   * Memory for a run of so many bytes into which clusters will be decoded without a copy. It must be given back: there
   * is no other way for it to be used again.
   */
  memoryFor(length: number): RunMemory {
    return this.#laneFor(length).memory
  }

  /**
   * Reads compressed clusters and decodes them into their target; what comes back says what failed.
   *
   * @param read Fills memory, `storedLength` bytes, from the host.
   */
  async decode(
    { compression, clusterSize, storedLength, ranges, target }: Clusters,
    read: (stored: Uint8Array) => Promise<void>,
  ): Promise<BatchFailure | undefined> {
    const lane = this.#laneFor(target.length, target)
    this.#decodedBytes += target.length
    const { memory } = lane
    const isInPlace = memory.owns(target)
    const bytes = pieceBytes(storedLength) + (isInPlace ? 0 : pieceBytes(target.length))
    await this.#enter(lane, bytes)
    const stored = memory.take(storedLength)
    const decoded = isInPlace ? target : memory.take(target.length)
    try {
      await read(stored.subarray(0, storedLength))
      const places = { stored: stored.byteOffset, target: decoded.byteOffset }
      const failure = await lane.decode({ compression, clusterSize, ranges, ...places })
      if (!isInPlace && failure === undefined) {
        target.set(decoded.subarray(0, target.length))
      }
      return failure
    } finally {
      memory.give(stored)
      if (!isInPlace) {
        memory.give(decoded)
      }
      this.#leave(lane, bytes)
    }
  }

  /** Ends the threads; to be called when nothing is being decoded. */
  async close(): Promise<void> {
    await Promise.all((this.#threadLanes ?? []).map((lane) => lane.close()))
  }

  /** The lane that has the target, if any may; else the one with the least to do. */
  #laneFor(length: number, target?: Uint8Array): Lane {
    const inline = (this.#inline ??= new InlineLane())
    if (this.threads === 0 || length < MIN_BATCH_BYTES) {
      return inline
    }
    const owner = target && [inline, ...(this.#threadLanes ?? [])].find(({ memory }) => memory.owns(target))
    if (owner !== undefined) {
      return owner
    }
    if (this.#decodedBytes < this.bytesBeforeThreads) {
      return inline
    }
    const lanes = (this.#threadLanes ??= this.#startThreads())
    return lanes.reduce((least, lane) => (lane.busyBytes < least.busyBytes ? lane : least))
  }

  #startThreads(): readonly ThreadLane[] {
    // From here on little is decoded in this thread: what it took for large batches goes once they are done.
    this.#inline = undefined
    return Array.from({ length: this.threads }, () => new ThreadLane())
  }

  async #enter(lane: Lane, bytes: number): Promise<void> {
    lane.busyBytes += bytes
    while (this.#busyBytes > 0 && this.#busyBytes + bytes > MAX_BUSY_BYTES) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve)
      })
    }
    this.#busyBytes += bytes
  }

  #leave(lane: Lane, bytes: number): void {
    lane.busyBytes -= bytes
    this.#busyBytes -= bytes
    // Each looks again whether there is room for it.
    for (const resume of this.#waiting.splice(0)) {
      resume()
    }
  }
}
