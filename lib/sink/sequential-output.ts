/**
 * Opens what can only be written in order, and writes to it.
 *
 * Pipes and sockets are written through Node's own streams, which wait without holding a thread; files and devices by
 * plain writes. Invariant: a descriptor that was handed in is not closed here, one that was opened here is.
 */
import { close, constants, fstat, open, write, type Stats } from 'node:fs'
import { Socket } from 'node:net'
import { isatty } from 'node:tty'
import { promisify } from 'node:util'
import { setTimeout as wait } from 'node:timers/promises'
import { enlargePipe, openPipeMover, type PipeMover } from './linux-pipe.js'
import type { Mover, WriteBytes } from './sequential-write-stream.js'
import { createError, finishError, writeError } from './sink-error.js'

/** An output that is written from the beginning to the end. */
export interface SequentialOutput {
  readonly write: WriteBytes
  /** A faster way, if there is one; not while a write is under way. */
  readonly mover?: Mover | undefined
  /** Closes what was opened, once; a write to a pipe that is under way then fails, others are waited for. */
  close(): Promise<void>
}

const FIFO_POLL_MILLISECONDS = 20
// A descriptor that does not wait says so when it is full.
const FULL_POLL_MILLISECONDS = 2

/** How an output is opened and written. */
export interface SequentialOptions {
  /** Ends the wait for a FIFO's reader. */
  readonly signal?: AbortSignal | undefined
  /** Whether the thread may wait for a pipe's reader, for moments. */
  readonly isBlocking?: boolean
}

// Below this, finding out how takes longer than what it saves.
const MIN_BYTES_FOR_LARGE_PIPE = 64 * 2 ** 20

/**
 * Opens a FIFO, device or descriptor for writing.
 *
 * @param length Bytes that will be written.
 * @throws {Qcow2SinkError} `ERR_QCOW2_CREATE_FAILED`
 */
export async function openSequential(
  place: string | number,
  length: number,
  { signal, isBlocking = false }: SequentialOptions = {},
): Promise<SequentialOutput> {
  const path = typeof place === 'number' ? `file descriptor ${place}` : place
  let ours: number | undefined
  try {
    const fd = typeof place === 'number' ? place : (ours = await openForWriting(place, signal))
    const stats = await promisify(fstat)(fd)
    const isOurs = ours !== undefined
    const isLargePipe = stats.isFIFO() && length >= MIN_BYTES_FOR_LARGE_PIPE
    if (isLargePipe) {
      await enlargePipe(fd)
    }
    return needsStream(fd, stats, isOurs)
      ? await overStream(fd, isOurs, path, isLargePipe ? () => openPipeMover(fd, isBlocking) : undefined)
      : overDescriptor(fd, isOurs, path)
  } catch (cause) {
    if (ours !== undefined) {
      await promisify(close)(ours)
    }
    signal?.throwIfAborted()
    throw createError(path, cause)
  }
}

/**
 * Whether a stream of Node's writes it: FIFOs that are ours, and standard output and error. A stream over another
 * descriptor of the caller's could never be let go of without closing that.
 */
const needsStream = (fd: number, stats: Stats, isOurs: boolean): boolean =>
  fd === 1 || fd === 2 ? stats.isFIFO() || stats.isSocket() || isatty(fd) : isOurs && stats.isFIFO()

const ignore = (): void => undefined

async function overStream(
  fd: number,
  isOurs: boolean,
  path: string,
  openMover: (() => Promise<PipeMover | undefined>) | undefined,
): Promise<SequentialOutput> {
  const stream =
    fd === 1 ? process.stdout : fd === 2 ? process.stderr : new Socket({ fd, readable: false, writable: true })
  // Each write hears of its own failure; without a listener the event would end the process.
  if (!stream.listeners('error').includes(ignore)) {
    stream.on('error', ignore)
  }
  const mover = await openMover?.()
  let offset = 0
  // Others may write to standard output as well: what they wrote before comes first.
  const isBusy = (): boolean => stream.destroyed || stream.writableLength > 0
  const advance = (count: number): number => {
    offset += count
    return count
  }
  return {
    write: (bytes) =>
      new Promise((resolve, reject) => {
        stream.write(bytes, (cause) => {
          // A stream that is destroyed amid a write reports no error for it.
          if (cause || stream.destroyed) {
            reject(writeError(path, offset, bytes.length, cause ?? new Error('the output was closed')))
          } else {
            offset += bytes.length
            resolve()
          }
        })
      }),
    mover: mover && {
      get works() {
        return mover.works
      },
      moveZeros: (most) => (isBusy() ? 0 : advance(mover.moveZeros(most))),
      moveBytes: (bytes) => (isBusy() ? 0 : advance(mover.moveBytes(bytes))),
    },
    close: () => {
      mover?.close()
      if (isOurs) {
        stream.destroy()
      }
      return Promise.resolve()
    },
  }
}

function overDescriptor(fd: number, isOurs: boolean, path: string): SequentialOutput {
  let offset = 0
  let writing: Promise<void> = Promise.resolve()
  let closing: Promise<void> | undefined
  const writeSome = promisify(write)
  const writeAll = async (bytes: Uint8Array): Promise<void> => {
    for (let done = 0; done < bytes.length;) {
      try {
        const { bytesWritten } = await writeSome(fd, bytes, done, bytes.length - done, null)
        done += bytesWritten
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code === 'EAGAIN') {
          await wait(FULL_POLL_MILLISECONDS)
          continue
        }
        throw writeError(path, offset + done, bytes.length - done, cause)
      }
    }
    offset += bytes.length
  }
  return {
    write: (bytes) => (writing = writeAll(bytes)),
    close: () => (closing ??= closeAfter(writing, isOurs ? fd : undefined, path)),
  }
}

/** A descriptor that is closed under a write may be another file by the time the write happens. */
async function closeAfter(writing: Promise<void>, fd: number | undefined, path: string): Promise<void> {
  await writing.catch(() => undefined)
  if (fd !== undefined) {
    await promisify(close)(fd).catch((cause: unknown) => {
      throw finishError(path, 'closing', cause)
    })
  }
}

/** Opening a FIFO waits for its reader, on a thread that could not be called back: ask until one is there. */
async function openForWriting(path: string, signal: AbortSignal | undefined): Promise<number> {
  for (;;) {
    try {
      return await promisify(open)(path, constants.O_WRONLY | constants.O_NONBLOCK)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') {
        throw error
      }
      await wait(FIFO_POLL_MILLISECONDS, undefined, signal === undefined ? {} : { signal })
    }
  }
}
