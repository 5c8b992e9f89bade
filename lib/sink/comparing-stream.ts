/**
 * Compares an output with the guest chunks that were written into it, and writes nothing.
 *
 * Knows offsets and bytes, and holes as far as the file system tells of them. Invariant: 'finish' means that the output has the
 * bytes of every chunk at their place, and, if it is a file, none besides.
 */
import type { Stats } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { Writable } from 'node:stream'
import { hex } from '../errors.js'
import { openHoleMap, type HoleMap } from '../source/holes.js'
import type { GuestChunk } from '../stream/chunk.js'
import { dropCache } from './drop-cache.js'
import { finishError, verifyError } from './sink-error.js'

/** What is compared. */
export interface WrittenOutput {
  /** Open for reading; everything was written. */
  readonly handle: Pick<FileHandle, 'fd' | 'read' | 'stat' | 'sync'>
  /** For messages. */
  readonly path: string
  /** Guest offset of the output's first byte. */
  readonly guestStart: number
  /** Bytes that were written, holes included. */
  readonly length: number
}

const READ_BYTES = 2 ** 20
const STAT_BLOCK_BYTES = 512

export class ComparingStream extends Writable {
  readonly #output: WrittenOutput
  // Of the zeros no byte is ever written: the system has one page for all of them.
  readonly #found = Buffer.allocUnsafeSlow(READ_BYTES)
  readonly #zeros = Buffer.alloc(READ_BYTES)
  #holes: HoleMap | undefined
  #comparing: Promise<void> | undefined

  constructor(output: WrittenOutput) {
    super({ objectMode: true, highWaterMark: 1 })
    this.#output = output
  }

  override _construct(callback: (error?: Error | null) => void): void {
    this.#prepare().then(() => {
      callback()
    }, callback)
  }

  override _write(chunk: GuestChunk, _encoding: string, callback: (error?: Error | null) => void): void {
    this.#comparing = this.#compare(chunk)
    this.#comparing.then(() => {
      callback()
    }, callback)
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    void Promise.allSettled([this.#comparing]).then(() => {
      callback(error)
    })
  }

  /** What is still in memory gets to the disk, so that it can be read back from there. */
  async #prepare(): Promise<void> {
    const { handle, path, length } = this.#output
    let stats: Stats
    try {
      await handle.sync()
      stats = await handle.stat()
    } catch (cause) {
      throw finishError(path, 'flushing it to the disk, to read it back', cause)
    }
    await dropCache(handle.fd)
    if (!stats.isFile()) {
      return
    }
    if (stats.size !== length) {
      throw verifyError(path, `the file is ${stats.size} bytes long, not ${length}`, { actual: stats.size })
    }
    this.#holes = await openHoleMap(handle.fd, length - stats.blocks * STAT_BLOCK_BYTES)
  }

  async #compare(chunk: GuestChunk): Promise<void> {
    const from = chunk.guestOffset - this.#output.guestStart
    if (chunk.kind === 'data') {
      await this.#compareRange(from, from + chunk.length, (at, length) =>
        chunk.bytes.subarray(at - from, at - from + length),
      )
      chunk.release()
      return
    }
    const end = from + chunk.length
    for (let at = from; at < end && !this.destroyed;) {
      const data = Math.min(end, this.#holes?.nextData(at) ?? at)
      const hole = Math.min(end, this.#holes?.nextHole(data) ?? end)
      await this.#compareRange(data, hole, (_at, length) => this.#zeros.subarray(0, length))
      at = hole
    }
  }

  /** Compares bytes `from` to `end` of the output with what is expected of each piece of them. */
  async #compareRange(
    from: number,
    end: number,
    expectedAt: (at: number, length: number) => Uint8Array,
  ): Promise<void> {
    for (let at = from; at < end && !this.destroyed;) {
      const found = await this.#readAt(at, Math.min(READ_BYTES, end - at))
      const expected = expectedAt(at, found.length)
      if (found.compare(expected) !== 0) {
        throw this.#difference(at, found, expected)
      }
      at += found.length
    }
  }

  /** Some bytes of the output, at least one. */
  async #readAt(at: number, length: number): Promise<Buffer> {
    const { handle, path } = this.#output
    let count: number
    try {
      count = (await handle.read(this.#found, 0, length, at)).bytesRead
    } catch (cause) {
      throw verifyError(path, `reading back ${length} bytes at offset ${hex(at)}`, this.#factsAt(at), cause)
    }
    if (count === 0) {
      throw verifyError(path, `it ends at offset ${hex(at)}, ${length} bytes too early`, this.#factsAt(at))
    }
    return this.#found.subarray(0, count)
  }

  #difference(start: number, found: Uint8Array, expected: Uint8Array): Error {
    const index = found.findIndex((byte, i) => byte !== expected[i])
    const [actual, wanted] = [found[index]!, expected[index]!]
    const facts = this.#factsAt(start + index)
    return verifyError(
      this.#output.path,
      `the byte at offset ${hex(facts.hostOffset)}, guest offset ${hex(facts.guestOffset)}, is ${hex(actual)}, not ${hex(wanted)}`,
      { ...facts, actual },
    )
  }

  #factsAt(hostOffset: number): { hostOffset: number; guestOffset: number } {
    return { hostOffset, guestOffset: this.#output.guestStart + hostOffset }
  }
}
