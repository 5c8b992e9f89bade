/**
 * The system's C library, by way of the optional package `koffi`: for the few calls that Node does not have.
 *
 * Knows none of the calls. Invariant: nobody gets it where offsets in files have 32 bits, as those who call declare 64.
 */
import type { LibraryHandle } from 'koffi'

/** The C library, and the package that calls it. */
export interface Libc {
  readonly libc: LibraryHandle
  readonly koffi: typeof import('koffi')
}

// Where a `long` is shorter, so are the offsets that these calls take.
const LONG_BYTES = 8

/**
 * @param longBytes Of this system, unless a test says otherwise.
 * @throws if `koffi` is not installed or cannot be loaded, or a `long` does not have 64 bits (32-bit processors, Windows)
 */
export async function openLibc(longBytes?: number): Promise<Libc> {
  const koffi = await import('koffi')
  if ((longBytes ?? koffi.sizeof('long')) !== LONG_BYTES) {
    throw new Error('the C library takes shorter offsets')
  }
  return { libc: koffi.load(null), koffi }
}
