/**
 * Where clusters are decoded and sectors decrypted: small batches here and now, large ones in threads, each with a memory of
 * its own.
 *
 * Knows lanes and bytes, not images. Invariant: threads are started once there was enough to decode, no more of them than
 * have something to do, and none is left when `close` has resolved. What is read and decoded at once is bounded by bytes.
 * Messages are paid once per batch, not per cluster, and name memory that both threads see: nothing is copied for them.
 */
import type { DiskKey } from '../crypto/cipher.js'
import { PLACE_WORDS, type BatchFailure } from './batch.js'
import type { CompressionType } from './decoder.js'
import { InlineLane, ThreadLane, type Lane } from './lane.js'
import type { RunMemory } from './memory-pool.js'
import { RUN_NUMBERS } from './sector-batch.js'

// Handing a batch over takes about as long as decoding this much.
const MIN_BATCH_BYTES = 128 * 1024
// Starting threads takes longer than decoding this much without them.
const MIN_BYTES_FOR_THREADS = 8 * 2 ** 20
// Of compressed bytes, and decoded ones that are still to be copied.
const MAX_BUSY_BYTES = 64 * 2 ** 20

/** Compressed clusters, and where they are to be decoded to. */
export interface Clusters {
  readonly compression: CompressionType
  /** Bytes. */
  readonly clusterSize: number
  /** Bytes to be read from the host for all of them. */
  readonly storedLength: number
  /** As in a batch: for each cluster its place in what is read, the length there, and its place in the target. */
  readonly places: Uint32Array
  readonly target: Uint8Array
}

export class Decoding {
  #inline: InlineLane | undefined
  #threadLanes: ThreadLane[] = []
  #decodedBytes = 0
  #busyBytes = 0
  readonly #waiting: (() => void)[] = []

  /**
   * @param threads At most so many; 0 decodes everything in the calling thread.
   * @param bytesBeforeThreads What is decoded in the calling thread before others are started.
   */
  constructor(
    readonly threads: number,
    private readonly bytesBeforeThreads = MIN_BYTES_FOR_THREADS,
  ) {}

  /**
   * Memory for a run of which so many bytes will be decoded or decrypted, without a copy. It must be given back: there is
   * no other way for it to be used again.
   */
  memoryFor(decodedBytes: number): RunMemory {
    return this.#laneFor(decodedBytes).memory
  }

  /**
   * Reads compressed clusters and decodes them into their target; what comes back says what failed.
   *
   * @param read Fills memory, `storedLength` bytes, from the host.
   * @param isWanted Asked before each step; once it says no, the call ends with an error.
   */
  async decode(
    clusters: Clusters,
    read: (stored: Uint8Array) => Promise<void>,
    isWanted: () => boolean = () => true,
  ): Promise<BatchFailure | undefined> {
    const { compression, clusterSize, storedLength, target, places } = clusters
    const decodedBytes = (places.length / PLACE_WORDS) * clusterSize
    const lane = this.#laneFor(decodedBytes, target)
    this.#decodedBytes += decodedBytes
    const isInPlace = lane.memory.owns(target)
    const bytes = storedLength + (isInPlace ? 0 : decodedBytes)
    await this.#enter(lane, bytes)
    const taken: Uint8Array[] = []
    const take = (length: number): Uint8Array => {
      const piece = lane.memory.take(length)
      taken.push(piece)
      return piece
    }
    try {
      refuseUnwanted(isWanted)
      const stored = take(storedLength)
      await read(stored.subarray(0, storedLength))
      refuseUnwanted(isWanted)
      return isInPlace
        ? await lane.decode({ compression, clusterSize, places, stored: stored.byteOffset, target: target.byteOffset })
        : await decodeAndCopy(lane, clusters, stored, take(decodedBytes))
    } finally {
      for (const piece of taken) {
        lane.memory.give(piece)
      }
      this.#leave(lane, bytes)
    }
  }

  /** Decrypts sectors where they lie in the target; `runs` are those of a `SectorBatch`. `isWanted` as for {@link decode}. */
  async decrypt(
    key: DiskKey,
    target: Uint8Array,
    runs: Float64Array,
    isWanted: () => boolean = () => true,
  ): Promise<void> {
    let bytes = 0
    for (let at = 1; at < runs.length; at += RUN_NUMBERS) {
      bytes += runs[at]!
    }
    const lane = this.#laneFor(bytes, target)
    this.#decodedBytes += bytes
    await this.#enter(lane, bytes)
    try {
      refuseUnwanted(isWanted)
      if (lane.decryptsAnywhere || lane.memory.owns(target)) {
        await lane.decrypt(key, target, runs)
      } else {
        await decryptCopy(lane, key, target, runs, bytes)
      }
    } finally {
      this.#leave(lane, bytes)
    }
  }

  /** Ends the threads and drops all memory; to be called when nothing is being decoded. */
  async close(): Promise<void> {
    const lanes = this.#threadLanes
    this.#inline = undefined
    this.#threadLanes = []
    await Promise.all(lanes.map((lane) => lane.close()))
  }

  /** The lane that has the target, if any may; else the one with the least to do. */
  #laneFor(decodedBytes: number, target?: Uint8Array): Lane {
    const inline = (this.#inline ??= new InlineLane())
    if (this.threads === 0 || decodedBytes < MIN_BATCH_BYTES) {
      return inline
    }
    const lanes = this.#threadLanes.filter(({ isDead }) => !isDead)
    const owner = target && [inline, ...lanes].find(({ memory }) => memory.owns(target))
    if (owner !== undefined) {
      return owner
    }
    if (this.#decodedBytes < this.bytesBeforeThreads) {
      return inline
    }
    const [first, ...others] = lanes
    const least = others.reduce((a, b) => (b.busyBytes < a.busyBytes ? b : a), first ?? this.#addThread())
    return least.busyBytes > 0 && lanes.length < this.threads ? this.#addThread() : least
  }

  #addThread(): ThreadLane {
    // From here on little is decoded in this thread: what it took for large batches goes once they are done.
    this.#inline = undefined
    const lane = new ThreadLane()
    this.#threadLanes.push(lane)
    return lane
  }

  /** Waits until there is room, in the order of those who came. */
  async #enter(lane: Lane, bytes: number): Promise<void> {
    lane.busyBytes += bytes
    for (let isFirst = true; ; isFirst = false) {
      const isFull = this.#busyBytes > 0 && this.#busyBytes + bytes > MAX_BUSY_BYTES
      if (!isFull && !(isFirst && this.#waiting.length > 0)) {
        this.#busyBytes += bytes
        return
      }
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve)
      })
    }
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

/** Nobody hears of the error, as nobody wants what it is about. */
function refuseUnwanted(isWanted: () => boolean): void {
  if (!isWanted()) {
    throw new Error('what was to be read is not wanted any more')
  }
}

/** Decodes the clusters one after another into memory of the lane, and copies them from there to where they belong. */
async function decodeAndCopy(
  lane: Lane,
  clusters: Clusters,
  stored: Uint8Array,
  decoded: Uint8Array,
): Promise<BatchFailure | undefined> {
  const { compression, clusterSize, target, places: wanted } = clusters
  const places = wanted.map((word, at) => (at % PLACE_WORDS === 2 ? Math.floor(at / PLACE_WORDS) * clusterSize : word))
  const batch = { compression, clusterSize, places, stored: stored.byteOffset, target: decoded.byteOffset }
  const failure = await lane.decode(batch)
  if (failure !== undefined) {
    return failure
  }
  for (let at = 0; at < places.length;) {
    const [from, to] = [places[at + 2]!, wanted[at + 2]!]
    let length = 0
    // Neighbours in one go: most clusters are.
    do {
      length += clusterSize
      at += PLACE_WORDS
    } while (at < places.length && wanted[at + 2] === to + length)
    target.set(decoded.subarray(from, from + length), to)
  }
  return undefined
}

/** Decrypts by way of the lane's memory, as its thread sees no other. */
async function decryptCopy(
  lane: Lane,
  key: DiskKey,
  target: Uint8Array,
  wanted: Float64Array,
  bytes: number,
): Promise<void> {
  const copy = lane.memory.take(bytes)
  try {
    const runs = Float64Array.from(wanted)
    for (let at = 0, used = 0; at < runs.length; at += RUN_NUMBERS) {
      const [from, length] = [wanted[at]!, wanted[at + 1]!]
      copy.set(target.subarray(from, from + length), used)
      runs[at] = used
      used += length
    }
    await lane.decrypt(key, copy, runs)
    for (let at = 0; at < runs.length; at += RUN_NUMBERS) {
      const [from, length] = [runs[at]!, runs[at + 1]!]
      target.set(copy.subarray(from, from + length), wanted[at])
    }
  } finally {
    lane.memory.give(copy)
  }
}
