/** What a conversion is asked for, and what it tells afterwards. */
import type { Qcow2Warning } from '../image/metadata.js'
import type { Qcow2OpenOptions } from '../image/options.js'
import type { Qcow2Progress } from '../stream/progress-meter.js'

/** Options of `convert`. */
export interface Qcow2ConvertOptions extends Qcow2OpenOptions {
  /** First guest byte to convert, an offset from 0 on. Default: 0. Past the end of the disk the output is empty, which is no error. */
  readonly start?: number | undefined
  /** Last guest byte to convert, inclusive. Default: the last byte of the disk, to which it is clipped. */
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
   * Name of a hash function of `node:crypto` with a fixed length (`sha256`, `md5`, ...): the result then has the digest of the
   * raw disk, or of the part that is converted. It is computed meanwhile, in a thread of its own if there are 16 MiB or more; zeros
   * take their time too (SHA-256: 0.6 s for a GiB), but no memory. Default: none.
   */
  readonly digest?: string | undefined
  /**
   * Whether the image is read once more and compared with the output, before a regular output file gets its name. The output is
   * flushed to its disk first; on Linux, with `koffi`, it is also dropped from the system's cache, so that what the disk holds is
   * compared; elsewhere it may be what the system keeps in memory. What is written in order cannot be read back, and is refused.
   * Default: false.
   */
  readonly verify?: boolean | undefined
  /**
   * Whether a regular output file or a block device may be written while the calling thread waits, and whether that may
   * wait some milliseconds for whoever reads a pipe: faster (a file by a tenth to a fifth where little is compressed), for
   * programs that have nothing else to do meanwhile, as the command. On ext4, with `koffi` installed, blocks of what is written
   * are then asked for beforehand, which saves as much again; not if a file is replaced without `fsync`. Default: false.
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
  /** Digest of the output in lower-case hex; undefined if none was asked for. */
  readonly digest: string | undefined
  /** What was odd about the image, yet did not keep it from being read. */
  readonly warnings: readonly Qcow2Warning[]
}
