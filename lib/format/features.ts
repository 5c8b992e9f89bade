/**
 * The three feature bit masks of a version 3 header: what this package knows, and how unknown bits are named.
 *
 * Knows nothing of files or tables. Invariant: a bit is looked at in one place, by its number in the specification.
 */
import { hex, Qcow2UnsupportedError, quoteText } from '../errors.js'

const DIRTY = 1n << 0n
const CORRUPT = 1n << 1n
const EXTERNAL_DATA_FILE = 1n << 2n
const COMPRESSION_TYPE = 1n << 3n
const EXTENDED_L2 = 1n << 4n
const KNOWN_INCOMPATIBLE = DIRTY | CORRUPT | EXTERNAL_DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2

const LAZY_REFCOUNTS = 1n << 0n

const BITMAPS = 1n << 0n
const RAW_EXTERNAL_DATA = 1n << 1n

/** One row of the image's own table of feature names. Spec: "Feature name table". */
export interface FeatureName {
  /** Which mask the bit belongs to. */
  readonly mask: 'incompatible' | 'compatible' | 'autoclear'
  /** Bit number in that mask, 0 .. 63. */
  readonly bit: number
  /** As stored: text of whoever made the image, to be quoted before it is shown. */
  readonly name: string
}

/** The features of an image, as facts. Spec: "Header", bytes 72 to 95. */
export interface Features {
  /** Refcounts may be out of date; reading is not affected. */
  readonly isDirty: boolean
  /** Whoever wrote the image last found damage in it and marked it read-only. */
  readonly isCorrupt: boolean
  /** Guest clusters live in another file. */
  readonly hasExternalDataFile: boolean
  /** That other file is a plain raw disk as well. */
  readonly isExternalDataFileRaw: boolean
  /** The header's compression type is not the default. */
  readonly hasCompressionType: boolean
  /** L2 entries are 16 bytes long and describe 32 subclusters each. */
  readonly hasExtendedL2: boolean
  /** Writers may postpone refcount updates. */
  readonly hasLazyRefcounts: boolean
  /** The bitmaps extension is consistent with the data. */
  readonly hasConsistentBitmaps: boolean
}

/** The masks as facts; unknown bits are not looked at (see {@link refuseUnknownFeatures}). */
export function decodeFeatures(incompatible: bigint, compatible: bigint, autoclear: bigint): Features {
  return {
    isDirty: (incompatible & DIRTY) !== 0n,
    isCorrupt: (incompatible & CORRUPT) !== 0n,
    hasExternalDataFile: (incompatible & EXTERNAL_DATA_FILE) !== 0n,
    isExternalDataFileRaw: (autoclear & RAW_EXTERNAL_DATA) !== 0n,
    hasCompressionType: (incompatible & COMPRESSION_TYPE) !== 0n,
    hasExtendedL2: (incompatible & EXTENDED_L2) !== 0n,
    hasLazyRefcounts: (compatible & LAZY_REFCOUNTS) !== 0n,
    hasConsistentBitmaps: (autoclear & BITMAPS) !== 0n,
  }
}

/**
 * Refuses an image with an incompatible feature bit that this package does not know, by the name the image itself gives.
 *
 * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNKNOWN_FEATURE`
 */
export function refuseUnknownFeatures(incompatible: bigint, names: readonly FeatureName[], layer: string): void {
  const unknown = incompatible & ~KNOWN_INCOMPATIBLE
  if (unknown === 0n) {
    return
  }
  const described: string[] = []
  for (let bit = 0; bit < 64; bit++) {
    if (((unknown >> BigInt(bit)) & 1n) === 1n) {
      const named = names.find((entry) => entry.mask === 'incompatible' && entry.bit === bit)
      described.push(named === undefined ? `bit ${bit} (unnamed)` : `bit ${bit} ${quoteText(named.name)}`)
    }
  }
  throw new Qcow2UnsupportedError(
    'ERR_QCOW2_UNKNOWN_FEATURE',
    `the image needs incompatible features that are not known here: ${described.join(', ')}`,
    { layer, field: 'incompatibleFeatures', hostOffset: 72, actual: hex(incompatible) },
  )
}
