/**
 * Copies what can only be read in order into a temporary file, which can be read at random.
 *
 * Knows chunks, not where they come from. Invariant: the file loses its name as soon as it is open, so that it goes with its
 * handle, however the process ends. (Windows may show the name until then.)
 */
import { open, unlink, type FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Qcow2SourceError, Qcow2UnsupportedError, Qcow2UsageError, quoteText, reasonOf } from '../errors.js'
import { fromOwnHandle } from './file.js'
import { Pace, type Qcow2Pace } from './pace.js'
import type { HostFile } from './source.js'

// Node takes no more in one call.
const MAX_WRITE_BYTES = 2 ** 30

/** How far the copying of an input has come, and how fast it goes on. */
export interface Qcow2SpoolProgress extends Qcow2Pace {
  /** Why it is copied: it is a stream, or it lies on a server that answers no requests for parts of a file. */
  readonly reason: 'stream' | 'no-ranges'
  /** Bytes of the image so far. */
  readonly bytesDone: number
  /** Bytes of the image; undefined where nobody says so before the end. */
  readonly bytesTotal: number | undefined
}

/** How an input is copied. */
export interface SpoolOptions {
  /** Default: the system's folder for temporary files. */
  readonly directory?: string | undefined
  /** The longest input that is copied, in bytes. */
  readonly mostBytes: number
  /** Ends the copying, with its reason. */
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: Qcow2SpoolProgress) => void) | undefined
}

/** What is copied. */
export interface SpooledInput {
  readonly chunks: AsyncIterable<unknown>
  readonly label: string
  readonly reason: Qcow2SpoolProgress['reason']
  readonly bytesTotal?: number | undefined
}

/**
 * The copy; it is gone when it is closed. If it cannot be made, the chunks' iterator is told to return.
 *
 * @throws {Qcow2SourceError} `ERR_QCOW2_SPOOL_FAILED`
 * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNSUPPORTED_SIZE` beyond `mostBytes`
 * @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT` for chunks that are no bytes
 * @throws What the chunks' iterator throws, and `onProgress`
 */
export async function spool(input: SpooledInput, options: SpoolOptions): Promise<HostFile> {
  const { label, reason } = input
  const { directory = tmpdir() } = options
  const failed: Failed = (doing, cause) =>
    new Qcow2SourceError(
      'ERR_QCOW2_SPOOL_FAILED',
      `${doing} the temporary copy in ${quoteText(directory, 300)}: ${reasonOf(cause)}; the option spoolDirectory names another folder`,
      { layer: label, field: 'spoolDirectory', actual: directory },
      cause,
    )
  const iterator = input.chunks[Symbol.asyncIterator]()
  let handle: FileHandle | undefined
  try {
    options.signal?.throwIfAborted()
    handle = await createNameless(directory, failed)
    await copy(input, iterator, handle, options, failed)
    return await fromOwnHandle(handle, label, reason === 'no-ranges' ? 'as-a-whole' : undefined)
  } catch (error) {
    leave(iterator)
    // The first error is the one that counts.
    await handle?.close().catch(() => undefined)
    throw error
  }
}

type Failed = (doing: string, cause: unknown) => Error

async function createNameless(directory: string, failed: Failed): Promise<FileHandle> {
  // Opened exclusively, so that the name need not be secret, only new: to other threads and containers, too.
  const unique = [process.pid, Date.now(), Math.floor(Math.random() * 2 ** 32)].map((number) => number.toString(36))
  const path = join(directory, `.qcow2-${unique.join('-')}.spool`)
  let handle: FileHandle | undefined
  try {
    handle = await open(path, 'wx+', 0o600)
    await unlink(path)
    return handle
  } catch (cause) {
    await handle?.close().catch(() => undefined)
    throw failed('creating', cause)
  }
}

async function copy(
  { label, reason, bytesTotal }: SpooledInput,
  iterator: AsyncIterator<unknown>,
  handle: FileHandle,
  { mostBytes, signal, onProgress }: SpoolOptions,
  failed: Failed,
): Promise<void> {
  const refuseBeyond = (length: number): void => {
    if (length > mostBytes) {
      throw new Qcow2UnsupportedError(
        'ERR_QCOW2_UNSUPPORTED_SIZE',
        `the image is longer than ${mostBytes} bytes, which is what the option limits.spoolBytes allows`,
        { layer: label, field: 'limits.spoolBytes', actual: length },
      )
    }
  }
  refuseBeyond(bytesTotal ?? 0)
  const pace = new Pace(bytesTotal)
  let bytesDone = 0
  for (;;) {
    onProgress?.({ reason, bytesDone, bytesTotal, ...pace.at(bytesDone) })
    const result = await next(iterator, signal)
    if (result.done === true) {
      return
    }
    const chunk: unknown = result.value
    if (!(chunk instanceof Uint8Array)) {
      throw new Qcow2UsageError(
        'ERR_QCOW2_BAD_ARGUMENT',
        `input: found a stream of ${typeof chunk}, allowed are Uint8Arrays`,
        { layer: label, field: 'input' },
      )
    }
    refuseBeyond(bytesDone + chunk.length)
    try {
      await write(handle, chunk, bytesDone)
    } catch (cause) {
      throw failed('writing', cause)
    }
    bytesDone += chunk.length
  }
}

/** The next chunk; whoever waits for one that never comes is let go by the signal. */
async function next(
  iterator: AsyncIterator<unknown>,
  signal: AbortSignal | undefined,
): Promise<IteratorResult<unknown>> {
  let abort: (() => void) | undefined
  try {
    // A promise of its own for each chunk: one that all chunks are raced against would keep every one of them.
    return await new Promise((resolve, reject) => {
      abort = () => {
        reject(signal?.reason as Error)
      }
      signal?.throwIfAborted()
      signal?.addEventListener('abort', abort)
      Promise.resolve(iterator.next()).then(resolve, reject)
    })
  } finally {
    signal?.removeEventListener('abort', abort!)
  }
}

async function write(handle: FileHandle, chunk: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < chunk.length;) {
    const length = Math.min(chunk.length - done, MAX_WRITE_BYTES)
    done += (await handle.write(chunk, done, length, offset + done)).bytesWritten
  }
}

/** Not waited for: an iterator may return only after the chunk that does not come. */
function leave(iterator: AsyncIterator<unknown>): void {
  const leaving = async (): Promise<unknown> => iterator.return?.()
  leaving().catch(() => undefined)
}
