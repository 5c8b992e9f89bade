/**
 * Writes guest chunks into a fresh regular file and leaves holes where they are zeros.
 *
 * Knows offsets and zeros, nothing of names: the file is opened, renamed and closed by its owner. Invariant: a range is
 * written before its memory is given back, and 'finish' means that every write has ended.
 */
import type { FileHandle } from 'node:fs/promises'
import { Writable } from 'node:stream'
import type { DataChunk, GuestChunk } from '../stream/chunk.js'
import { finishError, writeError } from './sink-error.js'
import { dataRanges, type BufferRange } from './zeros.js'

/** Where a sparse file is written to. */
export interface SparseTarget {
  readonly handle: Pick<FileHandle, 'write' | 'truncate'>
  /** For messages. */
  readonly path: string
  /** Guest offset of the file's first byte. */
  readonly guestStart: number
  /** Final length of the file in bytes. */
  readonly length: number
  /** Whether zeros become holes; false writes every byte. */
  readonly isSparse: boolean
}

// Writes under way at once; the memory of as many runs is held. A second one follows when the first is done, without
// waiting for this thread; with more of them, those that wait for the file keep processors from those that work (with
// four, on two processors, writing took three times as long).
const MAX_WRITES = 2
const ZEROS_BYTES = 2 ** 20

export class SparseWriteStream extends Writable {
  /** Bytes written so far, holes not counted. */
  bytesWritten = 0
  readonly #target: SparseTarget
  readonly #writes = new Set<Promise<void>>()
  #failure: Error | undefined

  constructor(target: SparseTarget) {
    super({ objectMode: true, highWaterMark: 1 })
    this.#target = target
  }

  /** Sets the length first: a file system that cannot hold it says so before hours of writing. */
  override _construct(callback: (error?: Error | null) => void): void {
    const { handle, path, length } = this.#target
    handle.truncate(length).then(
      () => {
        callback()
      },
      (cause: unknown) => {
        callback(finishError(path, `setting the length to ${length} bytes`, cause))
      },
    )
  }

  override _write(chunk: GuestChunk, _encoding: string, callback: (error?: Error | null) => void): void {
    this.#accept(chunk).then(() => {
      callback(this.#failure)
    }, callback)
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#finish().then(() => {
      callback()
    }, callback)
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    // Not before what is being begun just now counts as well.
    void Promise.resolve()
      .then(() => Promise.allSettled(this.#writes))
      .then(() => {
        callback(error)
      })
  }

  async #accept(chunk: GuestChunk): Promise<void> {
    const writing: Promise<void> = this.#write(chunk)
      .catch((error: unknown) => {
        this.#failure ??= error as Error
      })
      .finally(() => this.#writes.delete(writing))
    this.#writes.add(writing)
    if (this.#writes.size >= MAX_WRITES) {
      await Promise.race(this.#writes)
    }
  }

  async #write(chunk: GuestChunk): Promise<void> {
    if (chunk.kind === 'data') {
      await this.#writeChunk(chunk)
    } else if (!this.#target.isSparse) {
      await this.#writeZeros(chunk.guestOffset - this.#target.guestStart, chunk.length)
    }
  }

  async #writeChunk(chunk: DataChunk): Promise<void> {
    const { guestStart, isSparse } = this.#target
    const { bytes } = chunk
    const offset = chunk.guestOffset - guestStart
    const ranges: BufferRange[] = isSparse ? dataRanges(bytes, offset) : [{ start: 0, end: bytes.length }]
    for (const { start, end } of ranges) {
      await this.#writeAll(bytes.subarray(start, end), offset + start)
    }
    chunk.release()
  }

  async #writeZeros(offset: number, length: number): Promise<void> {
    const zeros = new Uint8Array(Math.min(length, ZEROS_BYTES))
    for (let done = 0; done < length; done += zeros.length) {
      if (this.destroyed) {
        return
      }
      await this.#writeAll(zeros.subarray(0, Math.min(zeros.length, length - done)), offset + done)
    }
  }

  async #writeAll(bytes: Uint8Array, offset: number): Promise<void> {
    const { handle, path } = this.#target
    for (let done = 0; done < bytes.length;) {
      try {
        const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, offset + done)
        done += bytesWritten
      } catch (cause) {
        throw writeError(path, offset + done, bytes.length - done, cause)
      }
    }
    this.bytesWritten += bytes.length
  }

  async #finish(): Promise<void> {
    await Promise.all(this.#writes)
    if (this.#failure !== undefined) {
      throw this.#failure
    }
  }
}
