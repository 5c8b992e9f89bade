/**
 * One call from an image to a raw disk: opens both ends, wires stream, progress and sink, and cleans up.
 *
 * Knows the order of things, not how any of them is done. Invariant: whatever happens, everything opened is closed, and
 * a regular output file is either complete or as it was before (a block device may be partly written).
 */
import { once } from 'node:events'
import type { Readable, Transform, Writable } from 'node:stream'
import pump from 'pump'
import { assertNever, Qcow2UsageError, quoteText } from './errors.js'
import { diskOf, Qcow2Image } from './image/image.js'
import type { Qcow2Warning } from './image/metadata.js'
import type { OpenedChain } from './image/open-chain.js'
import { badOption, checkRange, type Qcow2OpenOptions } from './image/options.js'
import { AtomicFile } from './sink/atomic-file.js'
import { BlockDevice } from './sink/block-device.js'
import { findOutput, identityOfPath, type FoundOutput, type Qcow2Output } from './sink/find-output.js'
import { SequentialWriteStream } from './sink/sequential-write-stream.js'
import { SparseWriteStream } from './sink/sparse-write-stream.js'
import { holdErrors } from './source/caller-stream.js'
import type { Qcow2Input } from './source/open-source.js'
import { ProgressMeter, type Qcow2Progress } from './stream/progress-meter.js'
import { createReadStream, GIVES_BACK, IS_ALONE, type InternalOptions } from './stream/read-stream.js'

/** Options of {@link convert}. */
export interface Qcow2ConvertOptions extends Qcow2OpenOptions {
  /** First guest byte to convert. Default: 0. */
  readonly start?: number | undefined
  /** Last guest byte to convert, inclusive. Default: the last byte of the disk. */
  readonly end?: number | undefined
  /**
   * Whether an existing output file is replaced (once the new one is complete), and a block device overwritten (where it
   * stands). Default: false.
   */
  readonly force?: boolean | undefined
  /**
   * Whether zeros become holes of a regular output file. Default: true; false writes every byte. A block device has no holes:
   * zeros are written, but for `targetIsZero`.
   */
  readonly sparse?: boolean | undefined
  /**
   * Whether the block device that is written to reads as zeros already, so that zeros need not be written (unless `sparse`
   * is false). If it does not, what it held shows through. Other outputs do not take it. Default: false.
   */
  readonly targetIsZero?: boolean | undefined
  /**
   * Whether a regular output file and its folder are flushed to the disk before the call resolves; a block device always is.
   * Default: false.
   */
  readonly fsync?: boolean | undefined
  /**
   * Whether a regular output file or a block device may be written while the calling thread waits, and whether that may
   * wait some milliseconds for whoever reads a pipe: faster (a file by a tenth to a fifth where little is compressed), for
   * programs that have nothing else to do meanwhile, as the command. Default: false.
   */
  readonly blocking?: boolean | undefined
  /** Called for each chunk, whose data is at most some megabytes but whose zeros have no bound; what it throws ends the conversion. */
  readonly onProgress?: ((progress: Qcow2Progress) => void) | undefined
  /** Ends the conversion; the call rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

/** What a conversion did. */
export interface Qcow2ConvertResult {
  /** Length of the output in bytes. */
  readonly length: number
  /** Bytes that were written; less than `length` by the zeros that became holes, or that a device had already. */
  readonly bytesWritten: number
  /** What was odd about the image, yet did not keep it from being read. */
  readonly warnings: readonly Qcow2Warning[]
}

/**
 * Writes the raw disk inside a qcow2 image to a file, block device, FIFO, character device or descriptor.
 *
 * A regular file is written sparsely under a temporary name beside its own and renamed when it is complete: on failure
 * the output is as it was before. It is exactly as long as the virtual disk (or the part asked for).
 *
 * A block device (by its path, with `force`) is written from its beginning on, zeros included, and flushed. It must have
 * room, and on Linux it must not be in use; what lies behind the disk stays. On failure it is partly written.
 *
 * @param input What {@link Qcow2Image.open} takes.
 * @param output A path, a `file:` URL, or an open file descriptor, which is written to in order and left open.
 * @throws The errors of {@link Qcow2Image.open} and {@link Qcow2Image.read}
 * @throws {Qcow2SinkError} `ERR_QCOW2_CREATE_FAILED`, `ERR_QCOW2_WRITE_FAILED`
 * @throws {Qcow2UsageError} `ERR_QCOW2_OUTPUT_EXISTS`, `ERR_QCOW2_OUTPUT_IS_INPUT`, `ERR_QCOW2_OUTPUT_TOO_SMALL`,
 *   `ERR_QCOW2_UNSUPPORTED_OUTPUT`
 */
export async function convert(
  input: Qcow2Input,
  output: Qcow2Output,
  options: Qcow2ConvertOptions = {},
): Promise<Qcow2ConvertResult> {
  const { signal, start, end } = options
  checkRange(start, end)
  signal?.throwIfAborted()
  holdErrors(input, options.backingFile, options.dataFile)
  const found = await findOutput(output, options.force === true)
  if (options.targetIsZero === true && found.kind !== 'device') {
    throw badOption('targetIsZero', true, 'false, as the output is no block device')
  }
  const image = await Qcow2Image.open(input, options)
  try {
    await refuseInput(found, diskOf(image).readable().opened)
    signal?.throwIfAborted()
    const bytesWritten = await write(image, found, options)
    return { length: lengthOf(image, options), bytesWritten, warnings: image.warnings }
  } catch (error) {
    // Where all went well it is closed already; here the first error is the one that counts.
    await image.close().catch(() => undefined)
    signal?.throwIfAborted()
    throw error
  }
}

/** Bytes of the part of the disk that is converted. */
function lengthOf(image: Qcow2Image, { start = 0, end = Infinity }: Qcow2ConvertOptions): number {
  return Math.max(0, Math.min(end + 1, image.virtualSize) - start)
}

/** Writes the output, of whatever kind it is; returns how many bytes. */
function write(image: Qcow2Image, found: FoundOutput, options: Qcow2ConvertOptions): Promise<number> {
  switch (found.kind) {
    case 'file':
      return toFile(image, found, options)
    case 'device':
      return toDevice(image, found, options)
    case 'sequential':
      return toSequence(image, found, options)
    /* c8 ignore next 2 */
    default:
      return assertNever(found)
  }
}

async function toFile(
  image: Qcow2Image,
  found: FoundOutput & { kind: 'file' },
  options: Qcow2ConvertOptions,
): Promise<number> {
  const file = await AtomicFile.create(found.path, { force: options.force === true, mode: found.mode })
  try {
    const sink = new SparseWriteStream({
      handle: file.handle,
      path: found.path,
      guestStart: options.start ?? 0,
      length: lengthOf(image, options),
      isSparse: options.sparse !== false,
      isBlocking: options.blocking === true,
    })
    await run(image, sink, options)
    await image.close()
    await file.commit(options.fsync === true)
    return sink.bytesWritten
  } finally {
    await file.discard()
  }
}

async function toDevice(
  image: Qcow2Image,
  found: FoundOutput & { kind: 'device' },
  options: Qcow2ConvertOptions,
): Promise<number> {
  const device = await BlockDevice.open(found.path, { identity: found.identity, length: lengthOf(image, options) })
  try {
    const sink = new SparseWriteStream({
      handle: device.handle,
      path: found.path,
      guestStart: options.start ?? 0,
      length: undefined,
      isSparse: options.targetIsZero === true && options.sparse !== false,
      isBlocking: options.blocking === true,
    })
    await run(image, sink, options)
    await image.close()
    await device.finish()
    return sink.bytesWritten
  } finally {
    await device.close()
  }
}

async function toSequence(
  image: Qcow2Image,
  found: FoundOutput & { kind: 'sequential' },
  options: Qcow2ConvertOptions,
): Promise<number> {
  // Loaded only here: it needs sockets and terminals, which a conversion into a file does not.
  const { openSequential } = await import('./sink/sequential-output.js')
  const output = await openSequential(found.place, lengthOf(image, options), {
    signal: options.signal,
    isBlocking: options.blocking === true,
  })
  try {
    const sink = new SequentialWriteStream(output.write, output.mover)
    await run(image, sink, options)
    await image.close()
    await output.close()
    return sink.bytesWritten
  } finally {
    await output.close().catch(() => undefined)
  }
}

async function run(image: Qcow2Image, sink: Writable, options: Qcow2ConvertOptions): Promise<void> {
  const { start, end, signal, onProgress } = options
  const streamOptions: InternalOptions & { objectMode: true } = {
    start,
    end,
    signal,
    objectMode: true,
    // What is decoded is written from where it was decoded: the sinks give their chunks back.
    [GIVES_BACK]: true,
    [IS_ALONE]: true,
  }
  const stream = createReadStream(image, streamOptions)
  const meter = new ProgressMeter(lengthOf(image, options), onProgress ?? (() => undefined))
  const parts: [Readable, Transform, Writable] = [stream, meter, sink]
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

/** The output is none of the files that are read, nor one that the image names and an option replaces. */
async function refuseInput(found: FoundOutput, { files, namedPaths }: OpenedChain): Promise<void> {
  const inputs = files.map(({ identity, label }) => ({ identity, label }))
  for (const path of namedPaths) {
    inputs.push({ identity: await identityOfPath(path), label: path })
  }
  for (const { identity, label } of inputs) {
    if (identity !== undefined && identity === found.identity) {
      const output = found.kind === 'sequential' ? String(found.place) : found.path
      throw new Qcow2UsageError(
        'ERR_QCOW2_OUTPUT_IS_INPUT',
        `output ${quoteText(output, 300)} is the file ${quoteText(label, 300)}, which the image is read from or refers to`,
        { layer: label, field: 'output', actual: output },
      )
    }
  }
}
