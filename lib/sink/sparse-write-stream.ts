/**
 * Writes guest chunks at their places, into a fresh regular file or a block device, and passes over what is zeros.
 *
 * Knows offsets and zeros, nothing of names: what is written to is opened, renamed and closed by its owner. Invariant: a
 * range is written before its memory is given back, and 'finish' means that every write has ended.
 */
import { writeSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { Writable } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import type { DataChunk, GuestChunk } from '../stream/chunk.js'
import { Ext4Blocks } from './ext4-blocks.js'
import { finishError, writeError } from './sink-error.js'
import { dataRanges, type BufferRange } from './zeros.js'

/** What is written to. */
export interface SparseTarget {
  readonly handle: Pick<FileHandle, 'fd' | 'write' | 'truncate'>
  /** For messages. */
  readonly path: string
  /** Guest offset of its first byte. */
  readonly guestStart: number
  /** Length that the file gets, in bytes; undefined for a device, which has one. */
  readonly length: number | undefined
  /** Whether zeros are not written, because they are there already, as holes are; false writes every byte. */
  readonly isSparse: boolean
  /** Whether data may be written while the calling thread waits, which saves it a wake-up for each write. */
  readonly isBlocking: boolean
  /** Whether `Ext4Blocks` may then take its blocks: those of a regular file that replaces none, or is synced. */
  readonly takesBlocks?: boolean
}

// Writes under way at once; the memory of as many runs is held. A second one follows when the first is done, without
// waiting for this thread; with more of them, those that wait for the file keep processors from those that work (with
// four, on two processors, writing took three times as long).
const MAX_WRITES = 2

// No write reaches over a multiple of this. Linux puts each aligned 2 MiB of a longer write into one huge page, and a
// virtual machine that gives idle memory back to its host has to fetch those from there: writing took three times as long.
const WRITE_BYTES = 2 ** 20

const ZEROS = new Uint8Array(WRITE_BYTES)

export class SparseWriteStream extends Writable {
  /** Bytes written so far; zeros that were passed over are not counted. */
  bytesWritten = 0
  readonly #target: SparseTarget
  readonly #writes = new Set<Promise<void>>()
  #failure: Error | undefined
  readonly #blocks: Ext4Blocks | undefined

  constructor(target: SparseTarget) {
    super({ objectMode: true, highWaterMark: 1 })
    this.#target = target
    this.#blocks = target.isBlocking && target.takesBlocks === true ? new Ext4Blocks(target.handle.fd) : undefined
  }

  /** Sets the length first: a file system that cannot hold it says so before hours of writing. */
  override _construct(callback: (error?: Error | null) => void): void {
    const { handle, path, length } = this.#target
    if (length === undefined) {
      callback()
      return
    }
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
    if (this.#target.isBlocking) {
      await writing
    } else if (this.#writes.size >= MAX_WRITES) {
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
    await this.#letOthersWork()
  }

  async #writeZeros(offset: number, length: number): Promise<void> {
    for (let done = 0; done < length; done += WRITE_BYTES) {
      if (this.destroyed) {
        return
      }
      await this.#writeAll(ZEROS.subarray(0, Math.min(WRITE_BYTES, length - done)), offset + done)
      await this.#letOthersWork()
    }
  }

  async #writeAll(bytes: Uint8Array, offset: number): Promise<void> {
    this.#blocks?.take(offset, bytes.length)
    for (let done = 0; done < bytes.length;) {
      const position = offset + done
      const length = Math.min(bytes.length - done, WRITE_BYTES - (position % WRITE_BYTES))
      try {
        const writing = this.#writePart(bytes, done, length, position)
        // Waiting for what is there already would cost more than a small write.
        const written = typeof writing === 'number' ? writing : await writing
        if (written === 0) {
          throw new Error('the system took none of them')
        }
        done += written
      } catch (cause) {
        throw writeError(this.#target.path, position, bytes.length - done, cause)
      }
    }
    this.bytesWritten += bytes.length
  }

  /** As many bytes as the system takes; returns their number. */
  #writePart(bytes: Uint8Array, at: number, length: number, position: number): number | Promise<number> {
    const { handle, isBlocking } = this.#target
    return isBlocking
      ? writeSync(handle.fd, bytes, at, length, position)
      : handle.write(bytes, at, length, position).then(({ bytesWritten }) => bytesWritten)
  }

  /** Signals, timers and reads get their turn, which they would not if every write blocks and memory is read from. */
  async #letOthersWork(): Promise<void> {
    if (this.#target.isBlocking) {
      await setImmediate()
    }
  }

  async #finish(): Promise<void> {
    await Promise.all(this.#writes)
    if (this.#failure !== undefined) {
      throw this.#failure
    }
  }
}
