/**
 * Persistent bitmaps: the directory's entries of variable length, and the entries of a bitmap's table.
 *
 * Knows where bitmaps are stored, not what their bits say. Invariant: at most `nbBitmaps` entries are looked at, and no bytes
 * but those that were given. Spec: "Bitmaps".
 */
import { hex } from '../errors.js'
import { decodeName, type BitmapsExtension } from './extensions.js'
import { HIGH_HALF, hostOffset, viewOf, type HostOffset } from './units.js'

/** A persistent bitmap. Spec: "Bitmap directory". */
export interface Qcow2Bitmap {
  /** Text from the image, to be quoted before it is shown. */
  readonly name: string
  /** Bytes of the disk that one bit stands for: a power of two. */
  readonly granularityBytes: number
  /** It was not saved properly: what it says may be out of date. */
  readonly isInUse: boolean
  /** Whoever writes to the disk has to keep it up to date. */
  readonly isAuto: boolean
  /** Host offset of its table in bytes, a multiple of the cluster size. */
  readonly bitmapTableOffset: HostOffset
  /** Entries in that table, 1 to 2^27. */
  readonly bitmapTableSize: number
}

/** What a directory says, as far as it can be understood. */
export interface BitmapDirectory {
  readonly bitmaps: readonly Qcow2Bitmap[]
  /** What is wrong, and at which byte of the directory; undefined if nothing is. */
  readonly problem: { readonly at: number; readonly what: string } | undefined
}

/** The longest directory that is read: 65535 bitmaps of 1 KiB; QEMU has the same ceiling. */
export const MAX_DIRECTORY_BYTES = 65535 * 1024

const FIXED_BYTES = 24
// QEMU has the same ceiling.
const MAX_TABLE_ENTRIES = 2 ** 27
const IN_USE = 1
const AUTO = 2
const RESERVED_FLAGS = 0xffff_fff8
const MAX_GRANULARITY_BITS = 63
const DIRTY_TRACKING = 1

const ENTRY_OFFSET_HIGH = 0x00ff_ffff
const ENTRY_OFFSET_LOW = 0xffff_fe00
const ENTRY_RESERVED_HIGH = 0xff00_0000
const ENTRY_RESERVED_LOW = 0x0000_01fe
const ENTRY_ALL_ONES = 1

/**
 * All bitmaps, up to the first entry that is malformed.
 *
 * @param directory The whole directory, `extension.bitmapDirectorySize` bytes.
 */
export function parseBitmapDirectory(
  directory: Uint8Array,
  extension: BitmapsExtension,
  clusterSize: number,
): BitmapDirectory {
  const view = viewOf(directory)
  const bitmaps: Qcow2Bitmap[] = []
  let at = 0
  for (let index = 0; index < extension.nbBitmaps; index++) {
    const problem = (what: string): BitmapDirectory => ({ bitmaps, problem: { at, what: `entry ${index}: ${what}` } })
    if (at + FIXED_BYTES > directory.length) {
      return problem('it does not fit into the directory')
    }
    const offset = view.getUint32(at) * HIGH_HALF + view.getUint32(at + 4)
    const size = view.getUint32(at + 8)
    const flags = view.getUint32(at + 12)
    const type = view.getUint8(at + 16)
    const granularityBits = view.getUint8(at + 17)
    const nameSize = view.getUint16(at + 18)
    const nameAt = at + FIXED_BYTES + view.getUint32(at + 20)
    const end = nameAt + nameSize
    if (offset === 0 || offset % clusterSize !== 0) {
      return problem(`the table offset is ${hex(offset)}, allowed are multiples of the cluster size ${clusterSize}`)
    }
    if (size === 0 || size > MAX_TABLE_ENTRIES) {
      return problem(`its table has ${size} entries, allowed are 1 to ${MAX_TABLE_ENTRIES}`)
    }
    if ((flags & RESERVED_FLAGS) !== 0) {
      return problem(`reserved flags ${hex((flags & RESERVED_FLAGS) >>> 0)} are set, allowed are none`)
    }
    if (type !== DIRTY_TRACKING) {
      return problem(`its type is ${type}, allowed is ${DIRTY_TRACKING}`)
    }
    if (granularityBits > MAX_GRANULARITY_BITS) {
      return problem(`a bit stands for 2^${granularityBits} bytes, allowed are 2^0 to 2^${MAX_GRANULARITY_BITS}`)
    }
    if (nameSize === 0) {
      return problem('it has no name')
    }
    if (end > directory.length) {
      return problem('it does not fit into the directory')
    }
    bitmaps.push({
      name: decodeName(directory.subarray(nameAt, end)),
      granularityBytes: 2 ** granularityBits,
      isInUse: (flags & IN_USE) !== 0,
      isAuto: (flags & AUTO) !== 0,
      bitmapTableOffset: hostOffset(offset),
      bitmapTableSize: size,
    })
    at = Math.ceil(end / 8) * 8
  }
  const rest = directory.length - at
  return { bitmaps, problem: rest > 0 ? { at, what: `${rest} bytes follow the last entry` } : undefined }
}

/** Host offset of the cluster that an entry of a bitmap's table points to, in bytes; 0 if there is none. */
export const bitmapClusterOffset = (hi: number, lo: number): number =>
  (hi & ENTRY_OFFSET_HIGH) * HIGH_HALF + ((lo & ENTRY_OFFSET_LOW) >>> 0)

/** Whether an entry of a bitmap's table has bits set that it must not have. Spec: "Bitmap table". */
export function hasReservedBitmapBits(hi: number, lo: number): boolean {
  const reserved = (hi & ENTRY_RESERVED_HIGH) | (lo & ENTRY_RESERVED_LOW)
  return reserved !== 0 || (bitmapClusterOffset(hi, lo) !== 0 && (lo & ENTRY_ALL_ONES) !== 0)
}
