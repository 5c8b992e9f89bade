/** How an image is checked. */
import { badOption } from './options.js'

/** Options of {@link Qcow2Image.check}. */
export interface Qcow2CheckOptions {
  /** Ends the check, which rejects with the signal's reason once reads under way have ended. Default: none. */
  readonly signal?: AbortSignal | undefined
  /**
   * Bytes of memory for counting, 0 to 4 GiB; an image that takes more: `ERR_QCOW2_UNSUPPORTED_SIZE`. Each cluster of the image file
   * takes 2 bytes and a quarter (1 with refcounts of up to 8 bits, 4 with those of more than 16), so that a file of 2 TiB takes 72
   * MiB at 64 KiB clusters; beside that any image takes 8 MiB, and each L2 table up to 84 bytes. Default: 256 MiB.
   */
  readonly memoryBytes?: number | undefined
}

const DEFAULT_MEMORY_BYTES = 2 ** 28
const MAX_MEMORY_BYTES = 2 ** 32

/** The options, with defaults for those left out. @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT` */
export function checkOptionsOf({ signal, memoryBytes = DEFAULT_MEMORY_BYTES }: Qcow2CheckOptions): {
  readonly signal: AbortSignal | undefined
  readonly memoryBytes: number
} {
  if (!Number.isSafeInteger(memoryBytes) || memoryBytes < 0 || memoryBytes > MAX_MEMORY_BYTES) {
    throw badOption('memoryBytes', memoryBytes, 'an integer, 0 to 4 GiB')
  }
  return { signal, memoryBytes }
}
