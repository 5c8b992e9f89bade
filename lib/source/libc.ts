/**
 * The system's C library, by way of the optional package `koffi`: for the few calls that Node does not have.
 *
 * Knows none of the calls. Invariant: nobody gets it where the calls' names stand for others than ours.
 */
import type { LibraryHandle } from 'koffi'

/** The C library, and the package that calls it. */
export interface Libc {
  readonly libc: LibraryHandle
  readonly koffi: typeof import('koffi')
}

// Where a `long` is shorter, so are the offsets in a file.
const LONG_BYTES = 8

/** @throws if `koffi` is not installed, or a `long` does not have 64 bits (32-bit processors, Windows) */
export async function openLibc(): Promise<Libc> {
  const koffi = await import('koffi')
  /* c8 ignore next 3 (tests run on 64 bits) */
  if (koffi.sizeof('long') !== LONG_BYTES) {
    throw new Error('the C library takes shorter offsets')
  }
  return { libc: koffi.load(null), koffi }
}
