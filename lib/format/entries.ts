/**
 * L1 and L2 entries: two 32-bit halves in, offsets and extents out.
 *
 * Knows one table at a time, not where tables are read from. Invariant: an entry with a reserved bit set, an unaligned
 * offset or an impossible state is an error, never a guess (but bit 63 counts only in external data files: it is often out of date).
 * Spec: "Cluster mapping", "Extended L2 Entries".
 */
import { hex, Qcow2FormatError } from '../errors.js'
import type { ExtentList } from './extents.js'
import { l1Reach, type Qcow2Header } from './header.js'
import { HIGH_HALF } from './units.js'

/** What the header says about the shape of tables. */
export interface Geometry {
  readonly clusterBits: number
  /** Bytes. */
  readonly clusterSize: number
  readonly hasExtendedL2: boolean
  /** Bytes of an L2 entry: 8, or 16 with extended L2 entries. */
  readonly l2EntryBytes: number
  /** Bytes of the virtual disk that one L2 table covers. */
  readonly l2Reach: number
  readonly hasZeroFlag: boolean
  readonly hasExternalDataFile: boolean
}

/** The shape of an image's tables. */
export function geometryOf(header: Qcow2Header): Geometry {
  const clusterSize = 2 ** header.clusterBits
  const { hasExtendedL2, hasExternalDataFile } = header.features
  return {
    clusterBits: header.clusterBits,
    clusterSize,
    hasExtendedL2,
    l2EntryBytes: hasExtendedL2 ? 16 : 8,
    l2Reach: l1Reach(clusterSize, hasExtendedL2),
    hasZeroFlag: header.version === 3 && !hasExtendedL2,
    hasExternalDataFile,
  }
}

/** Where a table stands, for messages. */
export interface TablePlace {
  readonly layer: string
  /** Host offset of entry 0, in bytes. */
  readonly tableOffset: number
}

/** In the high half of an L1 or L2 entry: the refcount of what it points to is exactly one. */
export const COPIED = 0x8000_0000
/** In the high half of an L2 entry. */
export const COMPRESSED = 0x4000_0000
export const L1_RESERVED_HIGH = 0x7f00_0000
export const L1_RESERVED_LOW = 0x0000_01ff
export const L2_RESERVED_HIGH = 0x3f00_0000
export const L2_RESERVED_LOW = 0x0000_01fe
/** In the low half of an L2 entry, where {@link Geometry.hasZeroFlag}. */
export const ZERO_FLAG = 1
const OFFSET_HIGH = 0x00ff_ffff
const OFFSET_LOW = 0xffff_fe00
const SECTOR = 512
const SUBCLUSTERS = 32

/** Bits 9 to 55 of an L1 entry, or of a standard L2 entry: a host offset in bytes. */
export const offsetOf = (hi: number, lo: number): number => (hi & OFFSET_HIGH) * HIGH_HALF + ((lo & OFFSET_LOW) >>> 0)

// Bits 0 to x - 1 are the offset, x to 61 the number of further sectors; so many bits of the offset are in the high half.
const compressedHighBits = (clusterBits: number): number => 38 - clusterBits

/** Host offset of a compressed cluster in bytes; beyond 2^53 it is not exact. Spec: "Compressed Clusters Descriptor". */
export const compressedOffset = (hi: number, lo: number, clusterBits: number): number =>
  (hi & (2 ** compressedHighBits(clusterBits) - 1)) * HIGH_HALF + lo

/** Bytes that a compressed cluster can take at most: up to the end of its last sector. */
export const compressedLength = (hi: number, lo: number, clusterBits: number): number =>
  (((hi & ~(COMPRESSED | COPIED)) >>> compressedHighBits(clusterBits)) + 1) * SECTOR - (lo % SECTOR)

/**
 * Host offset of the L2 table that an L1 entry points to, in bytes; 0 if the range is unallocated.
 *
 * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_L1_ENTRY`
 */
export function decodeL1Entry(hi: number, lo: number, index: number, geometry: Geometry, place: TablePlace): number {
  const reserved = (hi & L1_RESERVED_HIGH) | (lo & L1_RESERVED_LOW)
  const offset = offsetOf(hi, lo)
  if (reserved !== 0 || offset % geometry.clusterSize !== 0) {
    const hostOffset = place.tableOffset + index * 8
    const value = word(hi, lo)
    throw new Qcow2FormatError(
      'ERR_QCOW2_BAD_L1_ENTRY',
      `L1 entry ${index} at host offset ${hex(hostOffset)}, ${hex(value)}: ` +
        (reserved !== 0
          ? `reserved bits ${hex(word(hi & L1_RESERVED_HIGH, lo & L1_RESERVED_LOW))} are set, allowed are none`
          : `L2 table offset ${hex(offset)} is not a multiple of the cluster size ${geometry.clusterSize}`),
      { layer: place.layer, hostOffset, field: 'L1 entry', actual: value },
    )
  }
  return offset
}

/**
 * Whether an L2 table says of nothing that it is stored: each of its entries is a zero cluster or unallocated, and well-formed.
 *
 * @param table The whole table.
 */
export function describesNoData(table: DataView, geometry: Geometry): boolean {
  const { clusterSize, hasExtendedL2, l2EntryBytes, hasZeroFlag, hasExternalDataFile } = geometry
  const reservedLow = hasZeroFlag ? L2_RESERVED_LOW : L2_RESERVED_LOW | ZERO_FLAG
  for (let at = 0; at < table.byteLength; at += l2EntryBytes) {
    const hi = table.getUint32(at)
    const lo = table.getUint32(at + 4)
    const odd = (hi & (COMPRESSED | L2_RESERVED_HIGH)) | (lo & reservedLow) | (lo & OFFSET_LOW & (clusterSize - 1))
    const hasOffset = (hi & (hasExternalDataFile ? COPIED | OFFSET_HIGH : OFFSET_HIGH)) !== 0 || (lo & OFFSET_LOW) !== 0
    const isStored = hasExtendedL2 ? table.getUint32(at + 12) !== 0 : hasOffset && (lo & ZERO_FLAG) === 0
    // What an offset into an external data file has to be depends on the place of its entry.
    if (odd !== 0 || isStored || (hasExternalDataFile && hasOffset)) {
      return false
    }
  }
  return true
}

/**
 * Adds to `out` what the entries of an L2 table say about the guest range `from` to `to`.
 *
 * @param table The whole table.
 * @param tableGuestOffset Guest offset that entry 0 describes; `from` and `to` lie within the table's reach.
 * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_L2_ENTRY`
 */
export function decodeL2Entries(
  table: DataView,
  tableGuestOffset: number,
  from: number,
  to: number,
  geometry: Geometry,
  place: TablePlace,
  out: ExtentList,
): void {
  const { clusterSize, hasExtendedL2, l2EntryBytes, hasZeroFlag, hasExternalDataFile } = geometry
  const reservedLow = hasZeroFlag ? L2_RESERVED_LOW : L2_RESERVED_LOW | ZERO_FLAG
  const alignment = clusterSize - 1
  // An entry says all that there is to say about its cluster.
  const isPlain = !hasExtendedL2 && !hasExternalDataFile
  const firstIndex = Math.floor((from - tableGuestOffset) / clusterSize)
  const endIndex = Math.ceil((to - tableGuestOffset) / clusterSize)
  for (let index = firstIndex, next; index < endIndex; index = next) {
    const hi = table.getUint32(index * l2EntryBytes)
    const lo = table.getUint32(index * l2EntryBytes + 4)
    next = isPlain && (hi & COMPRESSED) === 0 ? endOfRun(hi, lo, index) : index + 1
    const cluster = tableGuestOffset + index * clusterSize
    const start = Math.max(cluster, from)
    const end = Math.min(tableGuestOffset + next * clusterSize, to)
    if ((hi & COMPRESSED) !== 0) {
      addCompressed(hi, lo, index, cluster, start, end)
      continue
    }
    if (((hi & L2_RESERVED_HIGH) | (lo & reservedLow)) !== 0) {
      const bits = word(hi & L2_RESERVED_HIGH, lo & reservedLow)
      refuse(index, cluster, `reserved bits ${hex(bits)} are set, allowed are none`)
    }
    const offset = offsetOf(hi, lo)
    if ((lo & OFFSET_LOW & alignment) !== 0) {
      refuse(index, cluster, `host cluster offset ${hex(offset)} is not a multiple of the cluster size ${clusterSize}`)
    }
    // An external data file may hold a cluster at offset 0: there bit 63 tells "allocated".
    const isAllocated = offset !== 0 || (hasExternalDataFile && (hi & COPIED) !== 0)
    if (hasExternalDataFile && isAllocated && offset !== cluster) {
      refuse(index, cluster, `offset ${hex(offset)} in the external data file is not the guest offset ${hex(cluster)}`)
    }
    if (hasExtendedL2) {
      addSubclusters(index, cluster, isAllocated, offset, start, end)
    } else if ((lo & ZERO_FLAG) !== 0) {
      out.zero(start, end - start, isAllocated ? offset + (start - cluster) : undefined)
    } else if (isAllocated) {
      out.data(start, end - start, offset + (start - cluster))
    } else {
      out.unallocated(start, end - start)
    }
  }

  /** Which entry is the first that does not continue those before it: with nothing again, or with the next host cluster. */
  function endOfRun(hi: number, lo: number, index: number): number {
    const step = (hi & OFFSET_HIGH) === 0 && (lo & OFFSET_LOW) === 0 ? 0 : clusterSize
    let end = index + 1
    for (let expected = lo + step; end < endIndex; end++, expected += step) {
      if (table.getUint32(end * 8 + 4) !== expected || table.getUint32(end * 8) !== hi) {
        break
      }
    }
    return end
  }

  function addCompressed(hi: number, lo: number, index: number, cluster: number, start: number, end: number): void {
    if (hasExternalDataFile) {
      refuse(index, cluster, 'a compressed cluster, allowed are none in an image with an external data file')
    }
    const { clusterBits } = geometry
    const offsetHigh = hi & (2 ** compressedHighBits(clusterBits) - 1)
    if (offsetHigh > OFFSET_HIGH) {
      const bits = word(offsetHigh & ~OFFSET_HIGH, 0)
      refuse(index, cluster, `bits ${hex(bits)} of a compressed cluster's offset are set, allowed are bits 0 to 55`)
    }
    if (hasExtendedL2 && (bitmapWord(index, 8) | bitmapWord(index, 12)) !== 0) {
      refuse(index, cluster, 'a compressed cluster with a subcluster bitmap, allowed is 0')
    }
    const host = compressedOffset(hi, lo, clusterBits)
    const bytes = compressedLength(hi, lo, clusterBits)
    out.compressed(start, end - start, { guest: cluster, size: clusterSize, host, bytes })
  }

  function addSubclusters(
    index: number,
    cluster: number,
    isAllocated: boolean,
    offset: number,
    start: number,
    end: number,
  ): void {
    const zeros = bitmapWord(index, 8)
    const allocated = bitmapWord(index, 12)
    if ((zeros & allocated) !== 0) {
      refuse(index, cluster, `subclusters ${hex((zeros & allocated) >>> 0)} are both allocated and zero`)
    }
    if (!isAllocated && allocated !== 0) {
      refuse(index, cluster, `subclusters ${hex(allocated)} are allocated in a cluster that is not`)
    }
    const size = clusterSize / SUBCLUSTERS
    for (let bit = Math.floor((start - cluster) / size); cluster + bit * size < end; bit++) {
      const a = Math.max(cluster + bit * size, start)
      const b = Math.min(cluster + (bit + 1) * size, end)
      const mask = 1 << bit
      const host = offset + (a - cluster)
      if ((zeros & mask) !== 0) {
        out.zero(a, b - a, isAllocated ? host : undefined)
      } else if ((allocated & mask) !== 0) {
        out.data(a, b - a, host)
      } else {
        out.unallocated(a, b - a, isAllocated ? host : undefined)
      }
    }
  }

  function bitmapWord(index: number, at: 8 | 12): number {
    return table.getUint32(index * l2EntryBytes + at)
  }

  function refuse(index: number, cluster: number, what: string): never {
    const at = index * l2EntryBytes
    const hostOffset = place.tableOffset + at
    const value = word(table.getUint32(at), table.getUint32(at + 4))
    throw new Qcow2FormatError(
      'ERR_QCOW2_BAD_L2_ENTRY',
      `L2 entry ${index} at host offset ${hex(hostOffset)}, ${hex(value)}: ${what}`,
      { layer: place.layer, hostOffset, guestOffset: cluster, field: 'L2 entry', actual: value },
    )
  }
}

/** Two halves as one 64-bit value, for messages. */
const word = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0)
