/**
 * One pass over the disk: from an open image, by way of whoever measures it, into a sink.
 *
 * Knows how streams are wired, not what they do. Invariant: when it has settled, all of them are closed, and nothing is under
 * way.
 */
import { once } from 'node:events'
import type { Readable, Transform, Writable } from 'node:stream'
import pump from 'pump'
import type { Qcow2Image } from '../image/image.js'
import { GIVES_BACK, IS_ALONE, IS_SHARED, type InternalOptions } from '../stream/options.js'
import { createReadStream } from '../stream/read-stream.js'

/** What of the disk goes through, and how. */
export interface PassOptions {
  readonly start?: number | undefined
  readonly end?: number | undefined
  readonly signal?: AbortSignal | undefined
  /** Whether `between` shows chunks to other threads. */
  readonly isShared?: boolean
}

/**
 * Moves the disk through all of them.
 *
 * @param image Nobody else reads it meanwhile: if anything fails, what is still being read of it is given up. It stays open.
 * @param between Passes on what it gets.
 * @param sink Gives every chunk back.
 * @throws The first error of any of them, or the signal's reason
 */
export async function runPass(
  image: Qcow2Image,
  between: Transform,
  sink: Writable,
  { start, end, signal, isShared = false }: PassOptions,
): Promise<void> {
  const streamOptions: InternalOptions & { objectMode: true } = {
    start,
    end,
    signal,
    objectMode: true,
    // What is decoded is written from where it was decoded.
    [GIVES_BACK]: true,
    [IS_ALONE]: true,
    [IS_SHARED]: isShared,
  }
  const stream = createReadStream(image, streamOptions)
  const parts: [Readable, Transform, Writable] = [stream, between, sink]
  // The stream hears of the signal itself, but may have ended by then, with the sink still at work.
  const abort = (): void => {
    sink.destroy(new Error('the conversion was aborted'))
  }
  signal?.addEventListener('abort', abort)
  try {
    await new Promise<void>((resolve, reject) => {
      pump(parts, (error) => {
        if (error) {
          reject(error)
        } else {
          resolve()
        }
      })
    })
  } catch (error) {
    signal?.throwIfAborted()
    throw error
  } finally {
    signal?.removeEventListener('abort', abort)
    // pump has destroyed the others by now, but what they have under way may still use memory and handles.
    await Promise.all(parts.map(closed))
  }
  signal?.throwIfAborted()
}

/** Destroys a stream, if nobody has, and waits until it has let go of everything. */
async function closed(stream: Readable | Writable): Promise<void> {
  stream.on('error', () => undefined)
  stream.destroy()
  if (!stream.closed) {
    await once(stream, 'close')
  }
}
