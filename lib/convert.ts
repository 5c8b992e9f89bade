/**
 * One call from an image to a raw disk: opens both ends, wires stream, progress and sink, and cleans up.
 *
 * Knows the order of things, not how any of them is done. Invariant: whatever happens, everything opened is closed, and
 * a regular output file is either complete or as it was before (a block device may be partly written).
 */
import type { Writable } from 'node:stream'
import type { Qcow2ConvertOptions, Qcow2ConvertResult } from './convert/options.js'
import { runPass } from './convert/pass.js'
import type { DigestStream } from './digest/digest-stream.js'
import { assertNever, Qcow2UsageError, quoteText } from './errors.js'
import { diskOf, Qcow2Image } from './image/image.js'
import type { OpenedChain } from './image/open-chain.js'
import { badOption, checkFunction, checkRange } from './image/options.js'
import { AtomicFile } from './sink/atomic-file.js'
import { BlockDevice } from './sink/block-device.js'
import type { WrittenOutput } from './sink/comparing-stream.js'
import { findOutput, identityOfPath, type FoundOutput, type Qcow2Output } from './sink/find-output.js'
import { SequentialWriteStream } from './sink/sequential-write-stream.js'
import { SparseWriteStream } from './sink/sparse-write-stream.js'
import { holdErrors } from './source/caller-stream.js'
import type { Qcow2Input } from './source/open-source.js'
import { ProgressMeter, ProgressTeller } from './stream/progress-meter.js'

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
 * @throws {Qcow2SinkError} `ERR_QCOW2_CREATE_FAILED`, `ERR_QCOW2_WRITE_FAILED`, `ERR_QCOW2_VERIFY_FAILED`
 * @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT`, `ERR_QCOW2_OUTPUT_EXISTS`, `ERR_QCOW2_OUTPUT_IS_INPUT`, `ERR_QCOW2_OUTPUT_TOO_SMALL`,
 *   `ERR_QCOW2_UNSUPPORTED_OUTPUT`
 */
export async function convert(
  input: Qcow2Input,
  output: Qcow2Output,
  options: Qcow2ConvertOptions = {},
): Promise<Qcow2ConvertResult> {
  const { signal, start, end, salvage } = options
  checkRange(start, end)
  // Here, as what is handed on is a function in any case.
  checkFunction('salvage', salvage)
  signal?.throwIfAborted()
  holdErrors(input, options.backingFile, options.dataFile)
  const digests = options.digest === undefined ? undefined : await import('./digest/digest-stream.js')
  digests?.checkAlgorithm(options.digest)
  const found = await findOutput(output, options.force === true)
  if (options.targetIsZero === true && found.kind !== 'device') {
    throw badOption('targetIsZero', true, 'false, as the output is no block device')
  }
  if (options.verify === true && found.kind === 'sequential') {
    throw badOption(
      'verify',
      true,
      'false, as what is written in order, as into a pipe, cannot be read back: name a file or a block device',
    )
  }
  const job: Job = {
    ...options,
    DigestStream: digests?.DigestStream,
    isVerifying: false,
    salvage: salvage && ((damage) => (job.isVerifying ? undefined : salvage(damage))),
  }
  const image = await Qcow2Image.open(input, job)
  try {
    await refuseInput(found, diskOf(image).readable().opened)
    signal?.throwIfAborted()
    const written = await write(image, found, job)
    return { length: lengthOf(image, options), ...written, warnings: image.warnings }
  } catch (error) {
    // Where all went well it is closed already; here the first error is the one that counts.
    await image.close().catch(() => undefined)
    signal?.throwIfAborted()
    throw error
  }
}

/** A conversion under way. */
interface Job extends Qcow2ConvertOptions {
  /** Loaded only if there is to be a digest. */
  readonly DigestStream: typeof DigestStream | undefined
  /** The second reading has begun: it meets all damage again, of which has been told by now. */
  isVerifying: boolean
}

/** What is known of the result once the output is complete. */
type Written = Pick<Qcow2ConvertResult, 'bytesWritten' | 'digest'>

/** Bytes of the part of the disk that is converted. */
function lengthOf(image: Qcow2Image, { start = 0, end = Infinity }: Qcow2ConvertOptions): number {
  return Math.max(0, Math.min(end + 1, image.virtualSize) - start)
}

/** Where the part begins on the disk, and how long it is. */
const partOf = (image: Qcow2Image, options: Qcow2ConvertOptions): Pick<WrittenOutput, 'guestStart' | 'length'> => ({
  guestStart: options.start ?? 0,
  length: lengthOf(image, options),
})

/** Writes the output, of whatever kind it is. */
function write(image: Qcow2Image, found: FoundOutput, options: Job): Promise<Written> {
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

async function toFile(image: Qcow2Image, found: FoundOutput & { kind: 'file' }, options: Job): Promise<Written> {
  const file = await AtomicFile.create(found.path, { force: options.force === true, mode: found.mode })
  const target = { handle: file.handle, path: found.path, ...partOf(image, options) }
  try {
    const sink = new SparseWriteStream({
      ...target,
      isSparse: options.sparse !== false,
      isBlocking: options.blocking === true,
      // What is synced is safe whatever it replaces.
      takesBlocks: found.mode === undefined || options.fsync === true,
    })
    const digest = await run(image, sink, options)
    await verify(image, target, options)
    await image.close()
    await file.commit(options.fsync === true)
    return { bytesWritten: sink.bytesWritten, digest }
  } finally {
    await file.discard()
  }
}

async function toDevice(image: Qcow2Image, found: FoundOutput & { kind: 'device' }, options: Job): Promise<Written> {
  const device = await BlockDevice.open(found.path, { identity: found.identity, length: lengthOf(image, options) })
  const target = { handle: device.handle, path: found.path, ...partOf(image, options) }
  try {
    const sink = new SparseWriteStream({
      ...target,
      length: undefined,
      isSparse: options.targetIsZero === true && options.sparse !== false,
      isBlocking: options.blocking === true,
    })
    const digest = await run(image, sink, options)
    await verify(image, target, options)
    await image.close()
    await device.finish()
    return { bytesWritten: sink.bytesWritten, digest }
  } finally {
    await device.close()
  }
}

async function toSequence(
  image: Qcow2Image,
  found: FoundOutput & { kind: 'sequential' },
  options: Job,
): Promise<Written> {
  // Loaded only here: it needs sockets and terminals, which a conversion into a file does not.
  const { openSequential } = await import('./sink/sequential-output.js')
  const output = await openSequential(found.place, lengthOf(image, options), {
    signal: options.signal,
    isBlocking: options.blocking === true,
  })
  try {
    const sink = new SequentialWriteStream(output.write, output.mover)
    const digest = await run(image, sink, options)
    await image.close()
    await output.close()
    return { bytesWritten: sink.bytesWritten, digest }
  } finally {
    await output.close().catch(() => undefined)
  }
}

/** Moves the disk into the sink, at once, as nobody hears of its errors before; returns the digest, if one is asked for. */
async function run(image: Qcow2Image, sink: Writable, options: Job): Promise<string | undefined> {
  const { digest, DigestStream, onProgress = () => undefined } = options
  const length = lengthOf(image, options)
  const digesting = DigestStream && new DigestStream(digest!, length, onProgress)
  const between = digesting ?? new ProgressMeter(new ProgressTeller('converting', length, onProgress))
  await runPass(image, between, sink, { ...options, isShared: digesting !== undefined })
  return digesting?.digest
}

/** Reads the disk once more and compares the output with it, if that is asked for. @throws {Qcow2SinkError} `ERR_QCOW2_VERIFY_FAILED` */
async function verify(image: Qcow2Image, output: WrittenOutput, options: Job): Promise<void> {
  if (options.verify !== true) {
    return
  }
  options.isVerifying = true
  const { onProgress = () => undefined } = options
  const { ComparingStream } = await import('./sink/comparing-stream.js')
  const meter = new ProgressMeter(new ProgressTeller('verifying', output.length, onProgress))
  await runPass(image, meter, new ComparingStream(output), options)
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
