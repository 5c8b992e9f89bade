/**
 * Counts tables of 8-byte entries that may lie on top of each other: the L1 tables of snapshots, the tables of bitmaps.
 *
 * Knows places, not entries. Invariant: each cluster is visited once, however many tables cover it.
 */
import type { CheckedImage } from './checked-image.js'
import { coverage, type Range, type Segment } from './coverage.js'

/** A table's place. */
export interface Table {
  /** Host offset in bytes, a multiple of the cluster size. */
  readonly offset: number
  /** Entries. */
  readonly size: number
}

/**
 * Counts the clusters of the tables, as metadata; returns which bytes have their entries, those past the end of the file included.
 *
 * @param what Each of them, in messages.
 */
export function countTables({ counts, geometry }: CheckedImage, tables: readonly Table[], what: string): Segment[] {
  const { clusterSize } = geometry
  const bytes: Range[] = []
  const clusters: Range[] = []
  for (const { offset: start, size } of tables) {
    if (size === 0) {
      continue
    }
    const end = start + size * 8
    bytes.push({ start, end })
    if (counts.reaches(end)) {
      clusters.push({ start: start / clusterSize, end: Math.ceil(end / clusterSize) })
    } else {
      counts.addMetadata(start, size * 8, 1, what)
    }
  }
  for (const { start, end, weight } of coverage(clusters)) {
    counts.addMetadataClusters(start, end, weight)
  }
  return coverage(bytes)
}
