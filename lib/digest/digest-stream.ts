/**
 * Passes chunks on and hashes what they stand for, beside whoever writes it: hashing is slower than most of what else is done.
 *
 * Knows chunks, not where they are hashed. Invariant: a chunk's memory is given back when both who gets it here and the
 * hashing are done with it, and what waits to be hashed is bounded: by bytes, and zeros, of which none is stored, by chunks.
 */
import { Transform } from 'node:stream'
import type { GuestChunk } from '../stream/chunk.js'
import { ProgressTeller, type ProgressFunction } from '../stream/progress-meter.js'
import { InlineHashing, MAX_BATCHES, ThreadHashing, type Hashing } from './hashing.js'
import type { Piece } from './hasher.js'

// Whoever asks for a digest loads this room only then, and all of it.
export { checkAlgorithm } from './algorithm.js'

// Starting a thread takes longer than hashing this much without it.
const MIN_BYTES_FOR_THREAD = 16 * 2 ** 20
// Enough for the thread to have something to do while this one writes.
const MAX_WAITING_BYTES = 8 * 2 ** 20
const MAX_WAITING_CHUNKS = 64
// Some 40 ms: how often it is told how far the hashing has come.
const BATCH_BYTES = 64 * 2 ** 20

interface Waiting {
  piece: Piece
  /** The piece is hashed. */
  readonly release: () => void
}

export class DigestStream extends Transform {
  /** Of all that has passed, in lower-case hex; undefined before the end. */
  digest: string | undefined
  readonly #hashing: Hashing
  /** Not sent yet. */
  readonly #waiting: Waiting[] = []
  readonly #hashed: ProgressTeller
  #batches = 0
  #sentBytes = 0
  /** Of memory, and of chunks: not sent yet, or not hashed. */
  #heldBytes = 0
  #heldChunks = 0
  #wait: { readonly isOver: () => boolean; readonly resume: () => void } | undefined

  /**
   * @param algorithm One that `checkAlgorithm` allows.
   * @param bytesTotal Guest bytes that will come.
   * @param onProgress Hears how much has been hashed.
   */
  constructor(algorithm: string, bytesTotal: number, onProgress: ProgressFunction) {
    super({ objectMode: true, highWaterMark: 1 })
    this.#hashed = new ProgressTeller('converting', bytesTotal, onProgress)
    this.#hashing =
      bytesTotal < MIN_BYTES_FOR_THREAD
        ? new InlineHashing(algorithm)
        : new ThreadHashing(algorithm, (error) => {
            this.destroy(error)
          })
  }

  override _transform(chunk: GuestChunk, _encoding: string, callback: () => void): void {
    if (chunk.kind === 'zeros') {
      this.push(chunk)
      this.#hold(chunk.length, 0, () => undefined)
    } else {
      const [passOn, hashed] = shareRelease(() => {
        chunk.release()
      })
      this.push({ ...chunk, release: passOn })
      this.#hold(chunk.bytes, chunk.length, hashed)
    }
    this.#send()
    this.#waitUntil(() => this.#heldBytes < MAX_WAITING_BYTES && this.#heldChunks < MAX_WAITING_CHUNKS, callback)
  }

  override _flush(callback: (error?: Error | null) => void): void {
    this.#waitUntil(
      () => this.#heldChunks === 0,
      () => {
        this.#hashing.finish(this.#hashed.bytesDone).then((digest) => {
          this.digest = digest
          callback()
        }, callback)
      },
    )
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    void this.#hashing.close().then(() => {
      callback(error)
    })
  }

  #hold(piece: Piece, bytes: number, release: () => void): void {
    this.#heldBytes += bytes
    this.#heldChunks += 1
    this.#waiting.push({
      piece,
      release: () => {
        this.#heldBytes -= bytes
        this.#heldChunks -= 1
        release()
      },
    })
  }

  #send(): void {
    while (this.#batches < MAX_BATCHES && this.#waiting.length > 0) {
      this.#batches += 1
      void this.#hash(this.#takeBatch())
    }
  }

  /** What waits, as much as makes a batch. */
  #takeBatch(): Waiting[] {
    const batch: Waiting[] = []
    for (let bytes = 0; bytes < BATCH_BYTES && this.#waiting.length > 0;) {
      const first = this.#waiting[0]!
      if (typeof first.piece === 'number' && first.piece > BATCH_BYTES - bytes) {
        batch.push({ piece: BATCH_BYTES - bytes, release: () => undefined })
        first.piece -= BATCH_BYTES - bytes
        return batch
      }
      batch.push(first)
      this.#waiting.shift()
      bytes += lengthOf(first.piece)
    }
    return batch
  }

  async #hash(batch: readonly Waiting[]): Promise<void> {
    const pieces = batch.map(({ piece }) => piece)
    const position = this.#sentBytes
    const bytes = pieces.reduce<number>((sum, piece) => sum + lengthOf(piece), 0)
    this.#sentBytes += bytes
    try {
      await this.#hashing.add({ position, pieces })
    } catch (error) {
      this.destroy(error as Error)
    }
    if (this.destroyed) {
      return
    }
    for (const { release } of batch) {
      release()
    }
    this.#batches -= 1
    const failure = this.#hashed.add(bytes)
    if (failure !== undefined) {
      this.destroy(failure)
      return
    }
    this.#send()
    this.#goOn()
  }

  /** One at a time. */
  #waitUntil(isOver: () => boolean, resume: () => void): void {
    this.#wait = { isOver, resume }
    this.#goOn()
  }

  #goOn(): void {
    const wait = this.#wait
    if (wait?.isOver() === true) {
      this.#wait = undefined
      wait.resume()
    }
  }
}

const lengthOf = (piece: Piece): number => (typeof piece === 'number' ? piece : piece.length)

/** Two functions, of which the last one to be called calls the given one. */
function shareRelease(release: () => void): [() => void, () => void] {
  const holders = new Set([0, 1])
  const without = (holder: number) => (): void => {
    if (holders.delete(holder) && holders.size === 0) {
      release()
    }
  }
  return [without(0), without(1)]
}
