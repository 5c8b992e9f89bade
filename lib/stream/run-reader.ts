/**
 * Reads an open image from one end to the other: run by run, several at once, each into memory that suits it.
 *
 * Knows runs and memory, not streams. Invariant: chunks come in guest order without gaps, and what is under way, or done and not
 * taken, is bounded by bytes.
 */
import type { Disk } from '../image/disk.js'
import { diskOf, type Qcow2Image } from '../image/image.js'
import { LaneMemory } from '../decode/lane-memory.js'
import { allocate, MemoryPool, type RunMemory } from '../decode/memory-pool.js'
import type { DataChunk, GuestChunk } from './chunk.js'
import { GIVES_BACK, IS_SHARED, type InternalOptions } from './options.js'
import { isDecoded, planRuns, type DataRun, type Run } from './plan.js'
import { ReadAhead, type Job } from './read-ahead.js'

// Bytes that are read at once, and bytes of them under way at most. Each run costs a handful of wake-ups from thread to
// thread, whatever its length.
const RUN_BYTES = 4 * 2 ** 20
const READ_AHEAD_BYTES = 16 * 2 ** 20
// Half of all that where reading takes, and leaves behind, memory of its own: requests to servers, Blobs, callers' sources.
const FRUGAL_RUN_BYTES = RUN_BYTES / 2
const FRUGAL_READ_AHEAD_BYTES = READ_AHEAD_BYTES / 2
// Two runs for each thread that decodes: one that it works on, and one that it finds when it is done. Many threads share
// what is read ahead in shorter runs, down to this; beyond that, and where clusters are longer, more is read ahead.
const RUNS_PER_THREAD = 2
const MIN_RUN_BYTES = 2 ** 19
const MAX_READ_AHEAD_BYTES = 64 * 2 ** 20
// As runs, where each chunk has memory of its own, of which much waits for the garbage collector at any time.
export const MAX_CHUNK_BYTES = 2 ** 20
const BUFFER_READ_AHEAD_BYTES = 4 * 2 ** 20

export class RunReader {
  readonly #disk: Disk
  readonly #options: InternalOptions
  readonly #isWanted: () => boolean
  readonly #isAlone: boolean
  /** Where chunks come from that can be given back; undefined makes chunks that are the consumer's own. */
  readonly #pool: RunMemory | undefined
  readonly #runs: ReadAhead<GuestChunk>

  /**
   * @param options In object mode chunks are given back, and else at most {@link MAX_CHUNK_BYTES} long, unless a cluster is longer.
   * @param isWanted Whether what is read still matters to anybody.
   * @param isAlone Whether the image was opened for this reader and is closed with it.
   */
  constructor(image: Qcow2Image, options: InternalOptions, isWanted: () => boolean, isAlone: boolean) {
    this.#disk = diskOf(image)
    this.#options = options
    this.#isWanted = isWanted
    this.#isAlone = isAlone
    this.#pool = options.objectMode === true ? createPool(options) : undefined
    const { chain, decoding } = this.#disk.readable()
    const { start = 0, end = Infinity } = options
    const { plain, aheadBytes } = this.#sizes()
    const decodedRuns = RUNS_PER_THREAD * Math.max(1, decoding.threads)
    const decoded = Math.min(plain, Math.max(MIN_RUN_BYTES, floorToPowerOfTwo(aheadBytes / decodedRuns)))
    const windowBytes = Math.max(aheadBytes, decodedRuns * Math.max(decoded, image.clusterSize))
    const runs = planRuns(chain, start, Math.min(end + 1, image.virtualSize), { plain, decoded }, isWanted)
    this.#runs = new ReadAhead(this.#jobs(runs), Math.min(windowBytes, MAX_READ_AHEAD_BYTES))
  }

  /** The next chunk; undefined after the last one. Called one at a time. */
  async next(): Promise<GuestChunk | undefined> {
    const chunk = await this.#runs.next()
    return this.#pool === undefined && chunk?.kind === 'data' ? ownChunk(chunk) : chunk
  }

  /** Nothing more is begun; resolves when nothing is under way, and what was read and not taken is given back. */
  async close(): Promise<void> {
    for (const chunk of await this.#runs.close()) {
      if (chunk.kind === 'data') {
        chunk.release()
      }
    }
  }

  /** Bytes of a run that is not decoded, and of all that are read ahead, unless threads need more. */
  #sizes(): { readonly plain: number; readonly aheadBytes: number } {
    if (this.#pool === undefined) {
      // Each Buffer has an ArrayBuffer of its own, which its consumer may transfer, unless it is part of a larger cluster or
      // of a chunk that a small highWaterMark cut.
      return { plain: MAX_CHUNK_BYTES, aheadBytes: BUFFER_READ_AHEAD_BYTES }
    }
    return this.#disk.opened.files.some(({ leavesMemory }) => leavesMemory)
      ? { plain: FRUGAL_RUN_BYTES, aheadBytes: FRUGAL_READ_AHEAD_BYTES }
      : { plain: RUN_BYTES, aheadBytes: READ_AHEAD_BYTES }
  }

  async *#jobs(runs: AsyncIterable<Run>): AsyncGenerator<Job<GuestChunk>, void, undefined> {
    const disk = this.#disk
    for await (const run of runs) {
      const { guestOffset, length } = run
      if (run.kind === 'zeros') {
        yield { weight: 0, start: () => Promise.resolve({ kind: 'zeros', guestOffset, length }) }
      } else {
        const weight = this.#pool === undefined ? length : MemoryPool.sizeFor(length)
        yield { weight, start: () => disk.use(() => this.#readRun(disk, run)) }
      }
    }
  }

  async #readRun(disk: Disk, run: DataRun): Promise<DataChunk> {
    const { guestOffset, length, extents } = run
    const pool = this.#memoryFor(disk, run)
    const memory = pool?.take(length) ?? allocate(length)
    const bytes = memory.subarray(0, length)
    let isHeld = true
    const release = (): void => {
      if (isHeld) {
        isHeld = false
        pool?.give(memory)
      }
    }
    try {
      await disk.reader.fill(extents, bytes, guestOffset, this.#isWanted)
    } catch (error) {
      release()
      throw error
    }
    return { kind: 'data', guestOffset, length, bytes, release }
  }

  #memoryFor({ decoding, chain }: Disk, { extents }: DataRun): RunMemory | undefined {
    // Lanes never give memory back to the system: who does not give it back to them uses it only while nobody else reads.
    const mayUseLanes = this.#pool === undefined ? this.#isAlone : this.#options[GIVES_BACK] === true
    if (!mayUseLanes) {
      return this.#pool
    }
    // What a lane decodes or decrypts is copied into a Buffer no sooner than that is asked for: garbage collection finds few of
    // them in use, and keeps few for longer.
    let laneBytes = 0
    for (const extent of extents) {
      if (isDecoded(extent, chain.layers)) {
        laneBytes += extent.length
      }
    }
    return laneBytes > 0 ? decoding.memoryFor(laneBytes) : this.#pool
  }
}

/** With memory that is the consumer's own; that of a lane, which threads share, goes back to it. */
function ownChunk(chunk: DataChunk): DataChunk {
  if (chunk.bytes.buffer instanceof ArrayBuffer) {
    return chunk
  }
  const bytes = allocate(chunk.length)
  bytes.set(chunk.bytes)
  chunk.release()
  return { ...chunk, bytes }
}

const floorToPowerOfTwo = (value: number): number => 2 ** Math.floor(Math.log2(value))

const createPool = (options: InternalOptions): RunMemory =>
  options[IS_SHARED] === true ? new LaneMemory() : new MemoryPool(READ_AHEAD_BYTES)
