/** How an image is opened: the options that every way to read it shares. */
import { Qcow2UsageError, quoteText } from '../errors.js'
import type { Qcow2HttpOptions } from '../source/http-options.js'
import type { Qcow2Input } from '../source/open-source.js'
import type { Qcow2SpoolProgress } from '../source/spool.js'
import type { Qcow2Passphrase } from './encryption.js'
import type { Qcow2Limits } from './limits.js'
import type { ReferencePolicy } from './reference-policy.js'
import type { SalvageFunction } from './salvage.js'

/** Options of {@link Qcow2Image.open}; `createReadStream` and `convert` take them as well. */
export interface Qcow2OpenOptions {
  /**
   * Id or name of the internal snapshot to read instead of the active disk; ids are looked at first.
   * Default: the active disk.
   */
  readonly snapshot?: string | undefined
  /**
   * The backing file to use instead of the one the image names, or null for none (what the image leaves unallocated
   * then reads as zeros). It is opened whatever `references` says, and relative paths mean the working directory.
   * Default: the one the image names.
   */
  readonly backingFile?: Qcow2Input | null | undefined
  /**
   * Format of the image's backing file. Default: the one the image records; if it records none, the file is a qcow2
   * image if it begins like one, else raw, with a warning.
   */
  readonly backingFormat?: 'raw' | 'qcow2' | undefined
  /**
   * The external data file to use instead of the one the image names; opened whatever `references` says.
   * Default: the one the image names.
   */
  readonly dataFile?: Qcow2Input | undefined
  /** Which files named by images are opened. Default: `'same-directory'`. `'any'` is dangerous with untrusted images. */
  readonly references?: ReferencePolicy | undefined
  /**
   * Passphrase of encrypted layers, or a function that is asked for that of each when the image is opened. Without one an
   * encrypted image can be inspected, but not read. The passphrase of the old AES encryption cannot be checked: a wrong one gives
   * garbage. Default: none.
   */
  readonly passphrase?: Qcow2Passphrase | undefined
  /** How web servers are asked, if the image (or a file that an option names) is a URL. Default: see {@link Qcow2HttpOptions}. */
  readonly http?: Qcow2HttpOptions | undefined
  /**
   * Where the temporary copy of an image is made that can only be read in order: of a stream, or from a server that answers no
   * requests for parts of a file. It takes as much room as the image, and is gone when the image is closed, or the process ends.
   * Default: the system's folder for temporary files.
   */
  readonly spoolDirectory?: string | undefined
  /** Hears of such a copy: when it begins, and with each piece that has come; what it throws ends the opening. Default: none. */
  readonly onSpool?: ((progress: Qcow2SpoolProgress) => void) | undefined
  /** Ends the opening, which rejects with the signal's reason. Default: none. */
  readonly signal?: AbortSignal | undefined
  /**
   * Bytes of L1 and L2 tables kept in memory, for the whole chain. Default: 16 MiB; a random read of a large disk with
   * fewer than 8 bytes of tables per cluster reads tables again and again.
   */
  readonly tableCacheBytes?: number | undefined
  /** Ceilings for images of strangers. Default: those of {@link Qcow2Limits}. */
  readonly limits?: Qcow2Limits | undefined
  /**
   * Most threads that decode compressed clusters, 0 to 64; 0 decodes in the calling thread. They are started once 8 MiB
   * were decoded there, another one when all have something to do, and cost about 16 MiB each.
   * Default: `os.availableParallelism()`, but 4 at most, and 2 where the image comes from a server, a `Blob` or a source of the
   * caller's, reading from which takes memory as well.
   */
  readonly threads?: number | undefined
  /**
   * If given, guest bytes that cannot be read or decoded become zeros, and this is called with each such range (again, if it
   * is read again) before the zeros are handed out; ranges come in no particular order. The reading waits for the promise that
   * it may return; what it throws, or rejects with, ends the reading. A table that could not be read is not asked for
   * again. An image whose header, names or snapshot table are damaged is refused all the same. Default: the first damage is an
   * error.
   */
  readonly salvage?: SalvageFunction | undefined
}

/** The error for an option or argument outside what is allowed. */
export const badOption = (field: string, actual: unknown, allowed: string): Qcow2UsageError =>
  new Qcow2UsageError('ERR_QCOW2_BAD_ARGUMENT', `${field}: found ${quoteText(String(actual))}, allowed is ${allowed}`, {
    field,
    actual,
  })

/** Refuses what is given and cannot be called. @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT` */
export function checkFunction(field: string, value: unknown): void {
  if (value !== undefined && typeof value !== 'function') {
    throw badOption(field, value, 'a function')
  }
}

/** Refuses what is no byte offset or length. @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT` */
export function checkOffset(field: string, value: unknown): void {
  if (!Number.isSafeInteger(value) || (value as number) < 0) {
    throw badOption(field, value, 'an integer from 0 to 2^53 - 1')
  }
}

/** Refuses what is no range of guest bytes. @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT` */
export function checkRange(start = 0, end = Infinity): void {
  checkOffset('start', start)
  if (end !== Infinity) {
    checkOffset('end', end)
  }
  if (end < start) {
    throw badOption('end', end, `an offset from start (${start}) on`)
  }
}
