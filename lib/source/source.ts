/**
 * The contract of a source, and the host file built on it: exact positional reads with errors that say where.
 *
 * Knows bytes and offsets, nothing of their meaning. Invariant: a read either fills its target (zeros past the end of
 * the file) or fails with a `Qcow2Error`; closing waits for the reads in flight.
 */
import { setMaxListeners } from 'node:events'
import type { HoleMap } from './holes.js'
import { hex, Qcow2SourceError, Qcow2UsageError, quoteText, reasonOf } from '../errors.js'

/** What an image can be read from; implement it to read from a place of your own. */
export interface Qcow2Source {
  /** Length in bytes, 0 .. 2^53 - 1; asked once. */
  readonly size: number
  /**
   * Reads up to `target.length` bytes at `offset` into `target` and resolves to how many were read: fewer than asked for
   * is fine, 0 only at the end. Several reads may be under way at once. Once `signal` says so nobody wants the bytes any
   * more: reads that can be ended should end then, as they are waited for; how no longer matters.
   */
  read(target: Uint8Array, offset: number, signal: AbortSignal): Promise<number>
  /** Frees what the source holds; called once, when no read is under way. */
  close(): Promise<void>
}

/** What a host file knows of where it came from. */
export interface HostFileOrigin {
  /** Path or description, for messages. */
  readonly label: string
  /** Path as it was opened; undefined where the source has none. */
  readonly path?: string | undefined
  /** The same for every name of one file or block device; undefined where the source has none. */
  readonly identity?: string | undefined
  /** Where the file has data; undefined if that is not known, or not worth asking. */
  readonly holes?: HoleMap | undefined
  /** Asks where the file has data, be it worth it or not. */
  readonly findHoles?: (() => Promise<HoleMap | undefined>) | undefined
  /** Bytes that the file takes on its file system; undefined if that is not known. */
  readonly allocatedBytes?: number | undefined
  /** How it comes from a server: in the parts that are read, or all of it first; undefined if it does not. */
  readonly fetched?: 'in-parts' | 'as-a-whole' | undefined
  /** Whether what it is read with takes memory of its own, which waits for the garbage collector then. Default: false. */
  readonly leavesMemory?: boolean
}

let lastId = 0

/** An open source with a name. */
export class HostFile {
  /** Number of this file in this process, for cache keys. */
  readonly id = ++lastId
  readonly label: string
  readonly path: string | undefined
  readonly identity: string | undefined
  /** Length in bytes when it was opened. */
  readonly size: number
  readonly fetched: HostFileOrigin['fetched']
  readonly leavesMemory: boolean
  /** Bytes that it took on its file system when it was opened; undefined if that is not known. */
  readonly allocatedBytes: number | undefined
  readonly #source: Qcow2Source
  readonly #findHoles: HostFileOrigin['findHoles']
  #holes: HoleMap | undefined
  readonly #abandoning = new AbortController()
  readonly #reads = new Set<Promise<unknown>>()
  #closing: Promise<void> | undefined

  constructor(source: Qcow2Source, origin: HostFileOrigin) {
    this.label = origin.label
    this.path = origin.path
    this.identity = origin.identity
    this.fetched = origin.fetched
    this.leavesMemory = origin.leavesMemory === true
    this.allocatedBytes = origin.allocatedBytes
    this.#holes = origin.holes
    this.#findHoles = origin.findHoles
    this.size = source.size
    this.#source = source
    // Any number of reads may listen to it, of which Node would warn.
    setMaxListeners(0, this.#abandoning.signal)
    if (!Number.isSafeInteger(this.size) || this.size < 0) {
      throw new Qcow2UsageError(
        'ERR_QCOW2_BAD_ARGUMENT',
        `size of the source: found ${String(this.size)}, allowed are integers from 0 to 2^53 - 1`,
        { layer: this.label, field: 'size', actual: this.size },
      )
    }
  }

  /**
   * Fills `target` from `offset` on, with zeros past the end of the file.
   *
   * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`, also if the file ends before its size; of a server
   *   `ERR_QCOW2_REQUEST_FAILED`, `ERR_QCOW2_SOURCE_CHANGED`
   * @throws {Qcow2UsageError} `ERR_QCOW2_CLOSED`, also for reads that `abandon` has ended
   */
  async read(target: Uint8Array, offset: number): Promise<void> {
    this.#refuseClosed()
    const wanted = Math.max(0, Math.min(target.length, this.size - offset))
    const reading = this.#fill(wanted === target.length ? target : target.subarray(0, wanted), offset)
    this.#reads.add(reading)
    try {
      await reading
    } finally {
      this.#reads.delete(reading)
    }
    target.fill(0, wanted)
  }

  async #fill(target: Uint8Array, offset: number): Promise<void> {
    let done = 0
    const { signal } = this.#abandoning
    while (done < target.length) {
      const rest = done === 0 ? target : target.subarray(done)
      let count: number
      try {
        // Who gave less than was asked for is not asked for the rest any more.
        if (done > 0) {
          signal.throwIfAborted()
        }
        count = await this.#source.read(rest, offset + done, signal)
      } catch (cause) {
        if (signal.aborted) {
          throw this.#closedError()
        }
        throw cause instanceof Qcow2SourceError
          ? cause
          : this.#readError(offset + done, rest.length, reasonOf(cause), cause)
      }
      if (!(Number.isInteger(count) && count > 0 && count <= rest.length)) {
        const found =
          count === 0 ? `the file ended, though its size is ${this.size}` : `the source returned ${String(count)}`
        throw this.#readError(offset + done, rest.length, found)
      }
      done += count
    }
  }

  #readError(offset: number, length: number, what: string, cause?: unknown): Qcow2SourceError {
    return new Qcow2SourceError(
      'ERR_QCOW2_READ_FAILED',
      `reading ${length} bytes at host offset ${hex(offset)}: ${what}`,
      { layer: this.label, hostOffset: offset },
      cause,
    )
  }

  /**
   * Where data and holes of the file are; undefined if that is not known.
   *
   * @throws {Qcow2UsageError} `ERR_QCOW2_CLOSED`: its descriptor may be another file's by now
   */
  get holes(): HoleMap | undefined {
    this.#refuseClosed()
    return this.#holes
  }

  /**
   * Sees to it that `holes` tells of small ones as well.
   *
   * @throws {Qcow2UsageError} `ERR_QCOW2_CLOSED`
   */
  async findHoles(): Promise<void> {
    this.#refuseClosed()
    this.#holes ??= await this.#findHoles?.()
  }

  #refuseClosed(): void {
    if (this.#closing !== undefined) {
      throw this.#closedError()
    }
  }

  #closedError(): Qcow2UsageError {
    return new Qcow2UsageError('ERR_QCOW2_CLOSED', 'the image is closed', { layer: this.label })
  }

  /**
   * Ends the reads under way, and later ones, where the source can do that, as nobody wants their bytes any more. Of a file they
   * are done sooner than ended.
   */
  abandon(): void {
    this.#abandoning.abort()
  }

  /** Waits for the reads in flight and closes the source; later calls wait for the same. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      await Promise.allSettled(this.#reads)
      try {
        await this.#source.close()
      } catch (cause) {
        throw new Qcow2SourceError('ERR_QCOW2_READ_FAILED', `closing: ${reasonOf(cause)}`, { layer: this.label }, cause)
      }
    })()
    return this.#closing
  }

  /** The name as messages show it. */
  get quoted(): string {
    return quoteText(this.label, 300)
  }
}
