/**
 * The guest's disk as a Readable: what Node asks of a stream, and nothing else.
 *
 * Knows when to open, push and close; runs are planned and read elsewhere. Invariant: chunks come in guest order
 * without gaps, and once 'close' is emitted nothing that the stream opened is open.
 */
import { Readable } from 'node:stream'
import { diskOf, Qcow2Image } from '../image/image.js'
import { badOption, checkRange } from '../image/options.js'
import type { Qcow2Input } from '../source/open-source.js'
import type { GuestChunk } from './chunk.js'
import { IS_ALONE, type InternalOptions, type Qcow2ReadStreamOptions } from './options.js'
import { MAX_CHUNK_BYTES, RunReader } from './run-reader.js'

const DEFAULT_HIGH_WATER_MARK = 2 ** 20

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
  #image: Qcow2Image | undefined
  #runs: RunReader | undefined
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
    if (this.#image !== undefined && this.#isAlone(this.#image) && !this.readableEnded) {
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
    this.#runs = new RunReader(image, this.#options, () => !this.destroyed, this.#isAlone(image))
    this.virtualSize = image.virtualSize
  }

  /** Whether the image was opened for this stream. */
  #isAlone(image: Qcow2Image): boolean {
    return image !== this.#input || (this.#options as InternalOptions)[IS_ALONE] === true
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
