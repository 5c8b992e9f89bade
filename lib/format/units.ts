/**
 * Offsets, and how 64-bit fields become numbers.
 *
 * JavaScript's bit operators cut to 32 bits, so offsets are only added, multiplied and divided here; a field is read as
 * two 32-bit halves. Invariant: an offset that leaves this file is an integer in 0 .. 2^53 - 1.
 */

declare const hostBrand: unique symbol
declare const guestBrand: unique symbol

/** Byte offset in an image file (or in its external data file). */
export type HostOffset = number & { readonly [hostBrand]: true }

/** Byte offset on the virtual disk that the guest sees. */
export type GuestOffset = number & { readonly [guestBrand]: true }

/** Calls a number a host offset. */
export const hostOffset = (bytes: number): HostOffset => bytes as HostOffset

/** Calls a number a guest offset. */
export const guestOffset = (bytes: number): GuestOffset => bytes as GuestOffset

/** A half-open range of the virtual disk, in bytes. */
export interface GuestRange {
  readonly guestOffset: GuestOffset
  readonly length: number
}

/** 2^32, what the high half of a 64-bit field counts in. */
export const HIGH_HALF = 0x1_0000_0000

/** A view for big-endian reads over exactly the bytes given; nothing is copied. */
export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
