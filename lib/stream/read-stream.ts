/**
 * The guest's disk as a Readable: what Node asks of a stream, and nothing else.
 *
 * Knows when to open, push and close; runs are planned and read elsewhere. Invariant: chunks come in guest order
 * without gaps, and once 'close' is emitted nothing that the stream opened is open.
 */
import { Readable } from 'node:stream'
import { diskOf, Qcow2Image } from '../image/image.js'
import type { Disk } from '../image/disk.js'
import { badOption, checkRange, type Qcow2OpenOptions } from '../image/options.js'
import type { Qcow2Input } from '../source/open-source.js'
import { LaneMemory } from '../decode/lane-memory.js'
import { allocate, MemoryPool, type RunMemory } from '../decode/memory-pool.js'
import type { DataChunk, GuestChunk } from './chunk.js'
import { planRuns, type DataRun, type Run } from './plan.js'
import { ReadAhead, type Job } from './read-ahead.js'

/** Options of {@link createReadStream}, named as those of `fs.createReadStream`. */
export interface Qcow2ReadStreamOptions extends Qcow2OpenOptions {
  /** First guest byte, an offset from 0 on. Default: 0. Past the end of the disk the stream is empty. */
  readonly start?: number | undefined
  /** Last guest byte, inclusive. Default: the last byte of the disk, to which it is clipped. */
  readonly end?: number | undefined
  /**
   * Bytes that are kept ready for the consumer, and of a chunk, which never has more than 1 MiB. Default: 1 MiB. About
   * 4 MiB are read ahead either way, or 2 MiB for each decoding thread if that is more. In object mode it has no effect,
   * and 16 MiB are read ahead, or 8 MiB for each decoding thread; in both modes at most 64 MiB.
   */
  readonly highWaterMark?: number | undefined
  /**
   * Default: false, the stream emits Buffers that are the consumer's own. If true it emits {@link GuestChunk}s: a run
   * of zeros is one chunk however long it is, and the memory of data chunks can be given back.
   */
  readonly objectMode?: boolean | undefined
  /** Destroys the stream with the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

// Bytes that are read at once, and bytes of them under way at most. Each run costs a handful of wake-ups from thread to
// thread, whatever its length.
const RUN_BYTES = 4 * 2 ** 20
const READ_AHEAD_BYTES = 16 * 2 ** 20
const MAX_READ_AHEAD_BYTES = 64 * 2 ** 20
// Requests take memory of their own, and leave some behind: half of all that where images come from a server.
const FETCHED_RUN_BYTES = RUN_BYTES / 2
const FETCHED_READ_AHEAD_BYTES = READ_AHEAD_BYTES / 2
// Two runs for each thread that decodes: one that it works on, and one that it finds when it is done.
const RUNS_PER_THREAD = 2
// As runs, where each chunk has memory of its own, of which much waits for the garbage collector at any time.
const MAX_CHUNK_BYTES = 2 ** 20
const BUFFER_READ_AHEAD_BYTES = 4 * 2 ** 20
const DEFAULT_HIGH_WATER_MARK = 2 ** 20

/**
 * Key of the option for consumers in object mode that give every chunk back: they get the memory that clusters are
 * decoded in, which is never freed by anything else.
 */
export const GIVES_BACK = Symbol('gives back')

/**
 * Key of the option for whoever opened an image for one stream alone, and closes it: destroying the stream, or what fails in it,
 * then ends all that is being read, as it does where the stream opened the image.
 */
export const IS_ALONE = Symbol('is alone')

/** Key of the option for consumers who give chunks back and show them to other threads before: all memory is shared. */
export const IS_SHARED = Symbol('is shared')

/** The options with all three. */
export interface InternalOptions extends Qcow2ReadStreamOptions {
  readonly [GIVES_BACK]?: boolean
  readonly [IS_ALONE]?: boolean
  readonly [IS_SHARED]?: boolean
}

/**
 * The raw disk inside a qcow2 image.
 *
 * Emits 'open' with the {@link Qcow2Image} and then 'ready' before the first chunk. `destroy()` at any moment closes
 * what the stream opened; an image that was handed in stays open.
 */
export class Qcow2ReadStream extends Readable {
  /** Guest bytes emitted so far. */
  bytesRead = 0
  /** Size of the disk in bytes; undefined until 'open'. */
  virtualSize: number | undefined
  readonly #input: Qcow2Input | Qcow2Image
  readonly #options: Qcow2ReadStreamOptions
  readonly #chunkBytes: number
  /** Where chunks come from that can be given back; undefined makes chunks that are the consumer's own. */
  readonly #pool: RunMemory | undefined
  #image: Qcow2Image | undefined
  #runs: ReadAhead<GuestChunk> | undefined
  /** Ends the opening: `destroy` would wait for it. */
  readonly #opening = new AbortController()
  #isWanted = false
  #isPulling = false
  #pulling: Promise<void> | undefined
  #rest: GuestChunk | undefined
  #unsubscribe: (() => void) | undefined

  /**
   * @param input What {@link Qcow2Image.open} takes, opened right after the constructor; or an open image.
   * @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT`
   */
  constructor(input: Qcow2Input | Qcow2Image, options: Qcow2ReadStreamOptions = {}) {
    const { highWaterMark = DEFAULT_HIGH_WATER_MARK, objectMode = false, signal } = options
    checkRange(options.start, options.end)
    if (!Number.isSafeInteger(highWaterMark) || highWaterMark < 1) {
      throw badOption('highWaterMark', highWaterMark, 'an integer from 1 to 2^53 - 1')
    }
    super({ objectMode, highWaterMark: objectMode ? 1 : highWaterMark, emitClose: true, autoDestroy: true })
    this.#pool = objectMode ? createPool(options) : undefined
    this.#input = input
    this.#options = options
    this.#chunkBytes = Math.min(highWaterMark, MAX_CHUNK_BYTES)
    this.#destroyOn(signal)
  }

  #destroyOn(signal: AbortSignal | undefined): void {
    if (signal === undefined) {
      return
    }
    const abort = (): void => {
      const reason: unknown = signal.reason
      this.destroy(reason instanceof Error ? reason : new Error('the stream was aborted', { cause: reason }))
    }
    if (signal.aborted) {
      abort()
    } else {
      signal.addEventListener('abort', abort, { once: true })
      this.#unsubscribe = () => {
        signal.removeEventListener('abort', abort)
      }
    }
  }

  /** Ends the reading, and the opening if it is under way; what the stream opened is closed when it emits 'close'. */
  override destroy(error?: Error): this {
    this.#opening.abort()
    const isAlone = this.#image !== this.#input || (this.#options as InternalOptions)[IS_ALONE] === true
    if (this.#image !== undefined && isAlone && !this.readableEnded) {
      diskOf(this.#image).abandon()
    }
    return super.destroy(error)
  }

  /** @internal */
  override _construct(callback: (error?: Error | null) => void): void {
    if (this.destroyed) {
      callback()
      return
    }
    this.#open().then(
      () => {
        callback()
        if (!this.destroyed) {
          this.emit('open', this.#image)
          this.emit('ready')
        }
      },
      (error: unknown) => {
        // Who has been destroyed meanwhile ends with the reason for that.
        callback(this.destroyed ? null : (error as Error))
      },
    )
  }

  /** @internal */
  override _read(): void {
    this.#isWanted = true
    if (!this.#isPulling) {
      this.#pulling = this.#pull()
    }
  }

  /** @internal */
  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#unsubscribe?.()
    this.#close().then(
      () => {
        callback(error)
      },
      (closeError: unknown) => {
        callback(error ?? (closeError as Error))
      },
    )
  }

  async #open(): Promise<void> {
    const input = this.#input
    const image =
      input instanceof Qcow2Image
        ? input
        : await Qcow2Image.open(input, { ...this.#options, signal: this.#opening.signal })
    this.#image = image
    const { chain, decoding } = diskOf(image).readable()
    const { start = 0, end = Infinity } = this.#options
    // Each Buffer has an ArrayBuffer of its own, which its consumer may transfer, unless it is part of a larger cluster or
    // of a chunk that a small highWaterMark cut.
    const isFetched = diskOf(image).opened.files.some(({ fetched }) => fetched !== undefined)
    const [objectRunBytes, objectAheadBytes] = isFetched
      ? [FETCHED_RUN_BYTES, FETCHED_READ_AHEAD_BYTES]
      : [RUN_BYTES, READ_AHEAD_BYTES]
    const runBytes = this.readableObjectMode ? objectRunBytes : MAX_CHUNK_BYTES
    const runs = planRuns(chain, start, Math.min(end + 1, image.virtualSize), runBytes, () => !this.destroyed)
    const leastBytes = this.readableObjectMode ? objectAheadBytes : BUFFER_READ_AHEAD_BYTES
    const windowBytes = Math.max(leastBytes, decoding.threads * RUNS_PER_THREAD * Math.max(runBytes, image.clusterSize))
    this.#runs = new ReadAhead(this.#jobs(runs), Math.min(windowBytes, MAX_READ_AHEAD_BYTES))
    this.virtualSize = image.virtualSize
  }

  async #close(): Promise<void> {
    await this.#runs?.close()
    await this.#pulling
    if (this.#image !== this.#input) {
      await this.#image?.close()
    }
  }

  /** Pushes until the consumer has enough. It may ask again while a chunk is pushed, so both flags change at once. */
  async #pull(): Promise<void> {
    this.#isPulling = true
    try {
      while (this.#isWanted && !this.destroyed) {
        this.#rest ??= await this.#runs?.next()
        this.#isWanted = false
        if (this.#rest === undefined) {
          this.#pushEnd()
        } else if (this.#pushNext(this.#rest)) {
          this.#isWanted = true
        }
      }
    } catch (error) {
      this.destroy(error as Error)
    } finally {
      this.#isPulling = false
    }
  }

  /** Nothing more comes after `destroy` either: that is the end of the reading, and must not look like that of the disk. */
  #pushEnd(): void {
    if (!this.destroyed) {
      this.push(null)
    }
  }

  async *#jobs(runs: AsyncIterable<Run>): AsyncGenerator<Job<GuestChunk>, void, undefined> {
    const disk = diskOf(this.#image!)
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
    await disk.reader.fill(extents, bytes, guestOffset, () => !this.destroyed)
    let isHeld = true
    const release = (): void => {
      if (isHeld) {
        isHeld = false
        pool?.give(memory)
      }
    }
    return { kind: 'data', guestOffset, length, bytes, release }
  }

  #memoryFor({ decoding, chain }: Disk, { extents }: DataRun): RunMemory | undefined {
    if ((this.#options as InternalOptions)[GIVES_BACK] !== true) {
      return this.#pool
    }
    // What a lane decodes or decrypts.
    let laneBytes = 0
    for (const { kind, depth, length } of extents) {
      if (kind === 'compressed' || (kind === 'data' && chain.layers[depth]!.encryption !== undefined)) {
        laneBytes += length
      }
    }
    return laneBytes > 0 ? decoding.memoryFor(laneBytes) : this.#pool
  }

  /** Pushes the chunk, or as much of it as one chunk may hold and keeps the rest; false if the consumer has enough. */
  #pushNext(chunk: GuestChunk): boolean {
    if (this.readableObjectMode) {
      this.#rest = undefined
      this.bytesRead += chunk.length
      return this.push(chunk)
    }
    const length = Math.min(chunk.length, this.#chunkBytes)
    this.#rest = length === chunk.length ? undefined : restOf(chunk, length)
    this.bytesRead += length
    return this.push(
      chunk.kind === 'zeros' ? Buffer.alloc(length) : Buffer.from(chunk.bytes.buffer, chunk.bytes.byteOffset, length),
    )
  }
}

const createPool = (options: InternalOptions): RunMemory =>
  options[IS_SHARED] === true ? new LaneMemory() : new MemoryPool(READ_AHEAD_BYTES)

function restOf(chunk: GuestChunk, from: number): GuestChunk {
  const rest = { ...chunk, guestOffset: chunk.guestOffset + from, length: chunk.length - from }
  return rest.kind === 'data' ? { ...rest, bytes: rest.bytes.subarray(from) } : rest
}

/** A stream in object mode. */
export interface Qcow2ObjectStream extends Qcow2ReadStream {
  /** The chunks, in guest order. */
  [Symbol.asyncIterator](): NodeJS.AsyncIterator<GuestChunk>
}

/**
 * The raw disk inside a qcow2 image as a Readable; like `fs.createReadStream` it returns at once and opens then.
 *
 * @param input What {@link Qcow2Image.open} takes, or an open {@link Qcow2Image} (which then stays open, and whose own options
 *   count).
 * @returns A stream whose 'error' event carries the errors of {@link Qcow2Image.open} and {@link Qcow2Image.read}
 * @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT`
 */
export function createReadStream(
  input: Qcow2Input | Qcow2Image,
  options: Qcow2ReadStreamOptions & { readonly objectMode: true },
): Qcow2ObjectStream
export function createReadStream(input: Qcow2Input | Qcow2Image, options?: Qcow2ReadStreamOptions): Qcow2ReadStream
export function createReadStream(
  input: Qcow2Input | Qcow2Image,
  options: Qcow2ReadStreamOptions = {},
): Qcow2ReadStream {
  return new Qcow2ReadStream(input, options)
}
