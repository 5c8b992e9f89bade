/**
 * Copies what can only be read in order into a temporary file, which can be read at random.
 *
 * Knows chunks, not where they come from. Invariant: the file loses its name as soon as it is open, so that it goes with its
 * handle, however the process ends. (Windows may show the name until then.)
 */
import { open, rm, type FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { Qcow2SourceError, Qcow2UnsupportedError, Qcow2UsageError, quoteText, reasonOf } from '../errors.js'
import { fromOwnHandle } from './file.js'
import type { HostFile } from './source.js'

/** How far the copying of an input has come. */
export interface Qcow2SpoolProgress {
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

let created = 0

/**
 * The copy; it is gone when it is closed.
 *
 * @throws {Qcow2SourceError} `ERR_QCOW2_SPOOL_FAILED`
 * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNSUPPORTED_SIZE` beyond `mostBytes`
 * @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT` for chunks that are no bytes
 * @throws What the chunks' iterator throws
 */
export async function spool(input: SpooledInput, options: SpoolOptions): Promise<HostFile> {
  const { label } = input
  const directory = options.directory ?? tmpdir()
  const path = join(
    directory,
    `.qcow2-${[process.pid, Date.now(), ++created].map((n) => n.toString(36)).join('-')}.spool`,
  )
  const failed = (doing: string, cause: unknown): Qcow2SourceError =>
    new Qcow2SourceError(
      'ERR_QCOW2_SPOOL_FAILED',
      `${doing} the temporary copy in ${quoteText(directory, 300)}: ${reasonOf(cause)}; the option spoolDirectory names another folder`,
      { layer: label, field: 'spoolDirectory', actual: directory },
      cause,
    )
  let handle: FileHandle | undefined
  try {
    handle = await open(path, 'wx+', 0o600)
    await rm(path)
  } catch (cause) {
    await handle?.close()
    throw failed('creating', cause)
  }
  try {
    await copy(input, handle, options, failed)
    return await fromOwnHandle(handle, label, input.reason === 'no-ranges' ? 'as-a-whole' : undefined)
  } catch (error) {
    await handle.close()
    throw error
  }
}

async function copy(
  { chunks, label, reason, bytesTotal }: SpooledInput,
  handle: FileHandle,
  { mostBytes, signal, onProgress }: SpoolOptions,
  failed: (doing: string, cause: unknown) => Error,
): Promise<void> {
  const tell = (bytesDone: number): void => onProgress?.({ reason, bytesDone, bytesTotal })
  let length = 0
  tell(length)
  for await (const chunk of untilAborted(chunks, signal)) {
    if (!(chunk instanceof Uint8Array)) {
      throw new Qcow2UsageError(
        'ERR_QCOW2_BAD_ARGUMENT',
        `input: found a stream of ${typeof chunk}, allowed are Uint8Arrays`,
        {
          field: 'input',
        },
      )
    }
    if (length + chunk.length > mostBytes) {
      throw new Qcow2UnsupportedError(
        'ERR_QCOW2_UNSUPPORTED_SIZE',
        `the image is longer than ${mostBytes} bytes, which is what the option limits.spoolBytes allows`,
        { layer: label, field: 'limits.spoolBytes', actual: mostBytes },
      )
    }
    for (let done = 0; done < chunk.length;) {
      try {
        done += (await handle.write(chunk, done, chunk.length - done, length + done)).bytesWritten
      } catch (cause) {
        throw failed('writing', cause)
      }
    }
    length += chunk.length
    tell(length)
  }
}

/** The chunks; whoever waits for one that never comes is let go by the signal. */
async function* untilAborted(chunks: AsyncIterable<unknown>, signal: AbortSignal | undefined): AsyncGenerator {
  const iterator = chunks[Symbol.asyncIterator]()
  // A promise that all chunks were raced against would keep every one of them.
  let letGo: ((reason: unknown) => void) | undefined
  const abort = (): void => letGo?.(signal?.reason)
  let isDone = false
  try {
    signal?.addEventListener('abort', abort)
    for (;;) {
      signal?.throwIfAborted()
      const result = await new Promise<IteratorResult<unknown>>((resolve, reject) => {
        letGo = reject
        iterator.next().then(resolve, reject)
      })
      if (result.done === true) {
        isDone = true
        return
      }
      yield result.value
    }
  } catch (error) {
    // An iterator that has failed is done as well.
    isDone = signal?.aborted !== true
    throw error
  } finally {
    signal?.removeEventListener('abort', abort)
    if (!isDone) {
      leave(chunks, iterator)
    }
  }
}

/** Not waited for: a stream's iterator would wait for the chunk that does not come. */
function leave(chunks: AsyncIterable<unknown>, iterator: AsyncIterator<unknown>): void {
  if (chunks instanceof Readable) {
    chunks.destroy()
  }
  iterator.return?.().catch(() => undefined)
}
