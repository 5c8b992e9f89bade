/**
 * Counts what L2 tables use: clusters of data, and each cluster that a compressed one touches.
 *
 * Knows L2 entries, not who points to their table. Invariant: each table is read once; what it says counts as often as there are
 * L1 entries that point to it. Spec: "Cluster mapping", "Extended L2 Entries".
 */
import { hex } from '../errors.js'
import {
  COMPRESSED,
  compressedLength,
  compressedOffset,
  COPIED,
  L2_RESERVED_HIGH,
  L2_RESERVED_LOW,
  offsetOf,
  ZERO_FLAG,
} from '../format/entries.js'
import type { CheckedImage } from './checked-image.js'
import { clusterViews } from './host-reader.js'
import type { L2TableSet, L2TableUse } from './l2-table-set.js'

/** Guest clusters of the active disk. */
export interface ClusterTotals {
  /** Those that are stored somewhere. */
  allocated: number
  /** Those of them that do not follow the one before them on the host; compressed ones never do. */
  fragmented: number
  compressed: number
}

/** Counts what all tables use. */
export async function countL2Tables(image: CheckedImage, tables: L2TableSet): Promise<ClusterTotals> {
  const totals: ClusterTotals = { allocated: 0, fragmented: 0, compressed: 0 }
  const { clusterSize } = image.geometry
  for await (const { cluster, entries } of clusterViews(image.file, tables.clusters(), clusterSize)) {
    await image.turns.step()
    countEntries(image, entries, cluster * clusterSize, tables.get(cluster)!, totals)
  }
  return totals
}

function countEntries(
  { counts, file, findings, geometry, recorded }: CheckedImage,
  entries: DataView,
  tableOffset: number,
  { times, activeTimes, l1Index }: L2TableUse,
  totals: ClusterTotals,
): void {
  const { clusterBits, clusterSize, hasExtendedL2, l2EntryBytes, l2Reach, hasExternalDataFile } = geometry
  // Where nobody knows the refcount of the table, nothing is said of bit 63 in it.
  const checksCopied = activeTimes > 0 && recorded.isSingle(tableOffset / clusterSize) !== undefined
  // Where the next cluster is expected, once there was one.
  let expected = 0
  for (let at = 0; at < entries.byteLength; at += l2EntryBytes) {
    const hi = entries.getUint32(at)
    const lo = entries.getUint32(at + 4)
    const zeros = hasExtendedL2 ? entries.getUint32(at + 8) : 0
    const stored = hasExtendedL2 ? entries.getUint32(at + 12) : 0
    if (hi === 0 && lo === 0 && stored === 0) {
      continue
    }
    if ((hi & COMPRESSED) !== 0) {
      countCompressed(at, hi, lo, (zeros | stored) !== 0)
    } else {
      countStandard(at, hi, lo, zeros, stored)
    }
  }

  function countCompressed(at: number, hi: number, lo: number, hasBitmap: boolean): void {
    if ((hi & COPIED) !== 0) {
      refuse(at, times, () => 'bit 63 is set for a compressed cluster')
    }
    if (hasExternalDataFile) {
      refuse(at, times, () => 'a compressed cluster in an image with an external data file')
    } else if (hasBitmap) {
      refuse(at, times, () => 'a compressed cluster with a subcluster bitmap')
    } else {
      countUse(at, compressedOffset(hi, lo, clusterBits), compressedLength(hi, lo, clusterBits))
      totals.allocated += activeTimes
      totals.fragmented += activeTimes
      totals.compressed += activeTimes
    }
  }

  function countStandard(at: number, hi: number, lo: number, zeros: number, stored: number): void {
    if (((hi & L2_RESERVED_HIGH) | (lo & L2_RESERVED_LOW)) !== 0) {
      refuse(at, times, () => 'reserved bits are set')
    }
    const offset = offsetOf(hi, lo)
    const isCopied = (hi & COPIED) !== 0
    // An external data file may hold a cluster at offset 0: there bit 63 tells "allocated".
    const isAllocated = offset !== 0 || (hasExternalDataFile && isCopied && (hasExtendedL2 || (lo & ZERO_FLAG) === 0))
    if (!isAllocated) {
      if (stored !== 0) {
        refuse(at, times, () => `subclusters ${hex(stored)} are allocated in a cluster that is not`)
      }
      return
    }
    countAllocated(at, offset, zeros, stored)
    if (checksCopied) {
      const isSingle = hasExternalDataFile || recorded.isSingle(Math.floor(offset / clusterSize))
      if (isSingle !== undefined && isSingle !== isCopied) {
        const what = isSingle ? 'not set, but the refcount is 1' : 'set, but the refcount is not 1'
        refuse(at, activeTimes, () => `bit 63 is ${what}`)
      }
    }
  }

  function countAllocated(at: number, offset: number, zeros: number, stored: number): void {
    if ((zeros & stored) !== 0) {
      refuse(at, times, () => `subclusters ${hex((zeros & stored) >>> 0)} are both allocated and zero`)
    }
    if (offset % clusterSize !== 0) {
      refuse(at, times, () => `host cluster offset ${hex(offset)} is not a multiple of the cluster size ${clusterSize}`)
    }
    totals.allocated += activeTimes
    if (expected !== 0 && offset !== expected) {
      totals.fragmented += activeTimes
    }
    expected = offset + clusterSize
    if (!hasExternalDataFile) {
      countUse(at, offset, clusterSize)
    }
  }

  function countUse(at: number, offset: number, length: number): void {
    if (!counts.add(offset, length, times)) {
      refuse(at, times, () => `its cluster, up to ${length} bytes, lies past the end of the file (${file.size} bytes)`)
    }
  }

  function refuse(at: number, weight: number, what: () => string): void {
    const hostOffset = tableOffset + at
    findings.corruption(
      weight,
      hostOffset,
      () => {
        const name = activeTimes === 0 ? 'an L2 entry of a snapshot' : `L2 entry ${at / l2EntryBytes}`
        return `${name} at host offset ${hex(hostOffset)}, ${hex(entries.getBigUint64(at))}: ${what()}`
      },
      guestOffsetOf(at),
    )
  }

  function guestOffsetOf(at: number): number | undefined {
    return activeTimes === 0 ? undefined : l1Index * l2Reach + (at / l2EntryBytes) * clusterSize
  }
}
