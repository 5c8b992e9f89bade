/**
 * The directory of persistent bitmaps: entries of variable length, one after another.
 *
 * Knows what bitmaps are called and where their tables are, not their bits. Invariant: at most `nbBitmaps` entries are looked
 * at, and no bytes but those that were given. Spec: "Bitmap directory".
 */
import { hex, Qcow2FormatError } from '../errors.js'
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
  /** Host offset of its table, in bytes. */
  readonly bitmapTableOffset: HostOffset
  /** Entries in that table. */
  readonly bitmapTableSize: number
}

const FIXED_BYTES = 24
const IN_USE = 1
const AUTO = 2
const KNOWN_FLAGS = 7
const DIRTY_TRACKING = 1
const MAX_GRANULARITY_BITS = 63

/**
 * The bitmaps of a directory.
 *
 * @param directory Its bytes, `bitmapDirectorySize` of them.
 * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_BITMAP_DIRECTORY`
 */
export function parseBitmapDirectory(
  directory: Uint8Array,
  { nbBitmaps, bitmapDirectoryOffset }: BitmapsExtension,
  clusterSize: number,
  layer: string,
): Qcow2Bitmap[] {
  const view = viewOf(directory)
  const bitmaps: Qcow2Bitmap[] = []
  let at = 0
  for (let index = 0; index < nbBitmaps; index++) {
    const where = bitmapDirectoryOffset + at
    const refuse = (field: string, actual: string | number, allowed: string): never => {
      throw new Qcow2FormatError(
        'ERR_QCOW2_BAD_BITMAP_DIRECTORY',
        `bitmap directory entry ${index} at host offset ${hex(where)}: ${field} is ${actual}, allowed is ${allowed}`,
        { layer, hostOffset: where, field, actual },
      )
    }
    const left = directory.length - at
    if (left < FIXED_BYTES) {
      refuse('what is left of the directory', `${left} bytes`, `at least ${FIXED_BYTES}`)
    }
    const bitmapTableOffset = view.getUint32(at) * HIGH_HALF + view.getUint32(at + 4)
    if (bitmapTableOffset > Number.MAX_SAFE_INTEGER || bitmapTableOffset % clusterSize !== 0) {
      const allowed = `a multiple of the cluster size ${clusterSize} up to 2^53 - 1`
      refuse('the bitmap table offset', hex(view.getBigUint64(at)), allowed)
    }
    const flags = view.getUint32(at + 12)
    if (flags > KNOWN_FLAGS) {
      refuse('flags', hex(flags), `0 to ${hex(KNOWN_FLAGS)}`)
    }
    const type = directory[at + 16]!
    if (type !== DIRTY_TRACKING) {
      refuse('type', type, `${DIRTY_TRACKING} (dirty tracking)`)
    }
    const granularityBits = directory[at + 17]!
    if (granularityBits > MAX_GRANULARITY_BITS) {
      refuse('granularity_bits', granularityBits, `0 to ${MAX_GRANULARITY_BITS}`)
    }
    const nameSize = view.getUint16(at + 18)
    const nameAt = at + FIXED_BYTES + view.getUint32(at + 20)
    if (nameSize === 0 || nameAt + nameSize > directory.length) {
      const allowed = `at least 1, within the ${directory.length} bytes of the directory`
      refuse('name_size', `${nameSize} at byte ${nameAt}`, allowed)
    }
    bitmaps.push({
      name: decodeName(directory.subarray(nameAt, nameAt + nameSize)),
      granularityBytes: 2 ** granularityBits,
      isInUse: (flags & IN_USE) !== 0,
      isAuto: (flags & AUTO) !== 0,
      bitmapTableOffset: hostOffset(bitmapTableOffset),
      bitmapTableSize: view.getUint32(at + 8),
    })
    at = Math.ceil((nameAt + nameSize) / 8) * 8
  }
  return bitmaps
}
