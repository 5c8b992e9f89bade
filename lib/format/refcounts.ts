/**
 * Refcounts: entries of the refcount table, and counts of 1 to 64 bits out of a refcount block.
 *
 * Knows bytes, neither files nor what a cluster is used for. Invariant: whoever asks for a count names a place inside the bytes
 * given. Spec: "Host cluster management".
 */
import { HIGH_HALF } from './units.js'

const OFFSET_LOW = 0xffff_fe00
const RESERVED_LOW = 0x0000_01ff

/** Refcounts in one refcount block; a power of two, 64 to 2^24. */
export const refcountsPerBlock = (clusterSize: number, refcountOrder: number): number =>
  (clusterSize * 8) / 2 ** refcountOrder

/** The largest refcount of 2^`refcountOrder` bits; of 64 bits it is not exact. */
export const maxRefcount = (refcountOrder: number): number => 2 ** (2 ** refcountOrder) - 1

/**
 * Host offset of the refcount block that a refcount table entry points to, in bytes; 0 if there is none. Beyond 2^53 it is not
 * exact, but it is past the end of any file.
 */
export const refcountBlockOffset = (hi: number, lo: number): number => hi * HIGH_HALF + ((lo & OFFSET_LOW) >>> 0)

/** Whether reserved bits of a refcount table entry are set. */
export const hasReservedRefcountTableBits = (lo: number): boolean => (lo & RESERVED_LOW) !== 0

/**
 * Fills `out` with neighbouring refcounts; of 64 bits, those beyond 2^53 are not exact.
 *
 * @param bytes Part of a refcount block that begins with a refcount at the start of a byte, and holds `out.length` of them.
 */
export function decodeRefcounts(bytes: DataView, refcountOrder: number, out: Float64Array): void {
  switch (refcountOrder) {
    case 3:
      for (let i = 0; i < out.length; i++) {
        out[i] = bytes.getUint8(i)
      }
      break
    case 4:
      for (let i = 0; i < out.length; i++) {
        out[i] = bytes.getUint16(i * 2)
      }
      break
    case 5:
      for (let i = 0; i < out.length; i++) {
        out[i] = bytes.getUint32(i * 4)
      }
      break
    case 6:
      for (let i = 0; i < out.length; i++) {
        out[i] = bytes.getUint32(i * 8) * HIGH_HALF + bytes.getUint32(i * 8 + 4)
      }
      break
    default: {
      // Counts narrower than a byte fill it from its least significant bit.
      const width = 2 ** refcountOrder
      const perByte = 8 / width
      const mask = 2 ** width - 1
      for (let i = 0; i < out.length; i++) {
        out[i] = (bytes.getUint8(Math.floor(i / perByte)) >>> ((i % perByte) * width)) & mask
      }
    }
  }
}
