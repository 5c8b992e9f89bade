/** How the disk is read as a stream: for everybody, and, under keys that only this package has, for itself. */
import type { Qcow2OpenOptions } from '../image/options.js'

/** Options of {@link createReadStream}, named as those of `fs.createReadStream`. */
export interface Qcow2ReadStreamOptions extends Qcow2OpenOptions {
  /** First guest byte, an offset from 0 on. Default: 0. Past the end of the disk the stream is empty. */
  readonly start?: number | undefined
  /** Last guest byte, inclusive. Default: the last byte of the disk, to which it is clipped. */
  readonly end?: number | undefined
  /**
   * Bytes that are kept ready for the consumer, and of a chunk, which never has more than 1 MiB. Default: 1 MiB. About
   * 4 MiB are read ahead either way. In object mode it has no effect, and 16 MiB are read ahead; 8 MiB of what comes from a server,
   * a `Blob` or a source of the caller's. For many decoding threads, and long clusters, it is more: 1 MiB or two clusters for each,
   * but at most 64 MiB.
   */
  readonly highWaterMark?: number | undefined
  /**
   * Default: false, the stream emits Buffers that are the consumer's own. If true it emits {@link GuestChunk}s: a run
   * of zeros is one chunk however long it is, and the memory of data chunks can be given back.
   */
  readonly objectMode?: boolean | undefined
  /** Destroys the stream with the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

/**
 * Key of the option for consumers in object mode that give every chunk back: they get the memory that clusters are
 * decoded in, which is never freed by anything else.
 */
export const GIVES_BACK = Symbol('gives back')

/**
 * Key of the option for whoever opened an image for one stream alone, and closes it: destroying the stream, or what fails in it,
 * then ends all that is being read, as it does where the stream opened the image.
 */
export const IS_ALONE = Symbol('is alone')

/** Key of the option for consumers who give chunks back and show them to other threads before: all memory is shared. */
export const IS_SHARED = Symbol('is shared')

/** The options with all three. */
export interface InternalOptions extends Qcow2ReadStreamOptions {
  readonly [GIVES_BACK]?: boolean
  readonly [IS_ALONE]?: boolean
  readonly [IS_SHARED]?: boolean
}
