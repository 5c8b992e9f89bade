/** Ceilings for what an image may make a reader do: options with defaults. */
import { badOption } from './options.js'

/** Ceilings, for whoever reads images of strangers; an image beyond one of them is refused when it is opened. */
export interface Qcow2Limits {
  /**
   * Bytes of the disk that is read, 0 to 2^53 - 1; beyond: `ERR_QCOW2_UNSUPPORTED_SIZE`. Default: 2^53 - 1. An image of some
   * kilobytes can be a disk of petabytes; who writes the disk somewhere should say how much of it there is room for.
   */
  readonly virtualSize?: number | undefined
  /**
   * Layers of a backing chain, 1 to 1000, the image itself included; beyond: `ERR_QCOW2_CHAIN_TOO_DEEP`. Default: 200. Each
   * layer is an open file, and is asked for what those above it leave open.
   */
  readonly chainDepth?: number | undefined
  /**
   * Bytes of a snapshot table, 0 to 64 MiB; beyond: `ERR_QCOW2_BAD_SNAPSHOT_TABLE`. Default: 64 MiB, as QEMU has it. It is
   * read whole when an image is opened.
   */
  readonly snapshotTableBytes?: number | undefined
  /**
   * Iterations of PBKDF2 that trying passphrases may take, over all active key slots of all layers, 1 to 2^31 - 1; beyond:
   * `ERR_QCOW2_UNLOCKING_TOO_COSTLY`. Default: 100 million, which keep a thread busy for one to three minutes. A slot that QEMU
   * makes takes two seconds.
   */
  readonly keyIterations?: number | undefined
  /**
   * Bytes of an image that is copied into a temporary file, because it is a stream or its server answers no requests for parts, 0
   * to 2^53 - 1; beyond: `ERR_QCOW2_UNSUPPORTED_SIZE`. Default: 2^53 - 1.
   */
  readonly spoolBytes?: number | undefined
}

const DEFAULTS = {
  virtualSize: Number.MAX_SAFE_INTEGER,
  chainDepth: 200,
  snapshotTableBytes: 64 * 2 ** 20,
  keyIterations: 100_000_000,
  spoolBytes: Number.MAX_SAFE_INTEGER,
}
const RANGES: Readonly<Record<keyof Qcow2Limits, readonly [low: number, high: number, words: string]>> = {
  virtualSize: [0, Number.MAX_SAFE_INTEGER, '0 to 2^53 - 1'],
  chainDepth: [1, 1000, '1 to 1000'],
  snapshotTableBytes: [0, 64 * 2 ** 20, '0 to 64 MiB'],
  // As many as there can be of one slot.
  keyIterations: [1, 2 ** 31 - 1, '1 to 2^31 - 1'],
  spoolBytes: [0, Number.MAX_SAFE_INTEGER, '0 to 2^53 - 1'],
}

/** The limits, with defaults for those left out. @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT` */
export function checkLimits(limits: Qcow2Limits = {}): typeof DEFAULTS {
  if (Object.prototype.toString.call(limits) !== '[object Object]') {
    throw badOption('limits', limits, 'an object')
  }
  const checked = { ...DEFAULTS }
  for (const [name, value] of Object.entries(limits) as [keyof Qcow2Limits, unknown][]) {
    if (!Object.hasOwn(RANGES, name)) {
      throw badOption('limits', name, Object.keys(RANGES).join(', '))
    }
    const [low, high, words] = RANGES[name]
    if (value !== undefined) {
      if (!Number.isSafeInteger(value) || (value as number) < low || (value as number) > high) {
        throw badOption(`limits.${name}`, value, `an integer, ${words}`)
      }
      checked[name] = value as number
    }
  }
  return checked
}
