/**
 * Counts what refcounts themselves use, and compares what is recorded with what was counted.
 *
 * Knows counts, not who counted. Invariant: only the clusters of the file are compared, whatever a refcount table claims. Spec:
 * "Host cluster management".
 */
import { hex } from '../errors.js'
import type { CheckedImage } from './checked-image.js'
import type { L2TableSet } from './l2-table-set.js'

/** Counts the refcount blocks; what else is counted has to be counted before, as nothing may use them but the refcount table. */
export async function countRefcountBlocks(image: CheckedImage): Promise<void> {
  const { counts, findings, geometry, header, turns, recorded } = image
  const { clusterSize } = geometry
  for (let index = 0; index < recorded.tableSize; index++) {
    if (index % 65536 === 0) {
      await turns.step()
    }
    const offset = recorded.blockOffset(index)
    const refuse = (what: string): void => {
      const entryOffset = header.refcountTableOffset + index * 8
      findings.corruption(1, entryOffset, () => {
        const place = `host offset ${hex(entryOffset)}, block at ${hex(offset)}`
        return `refcount table entry ${index} at ${place}: ${what}`
      })
    }
    if (recorded.hasReservedBits(index)) {
      refuse('reserved bits are set')
    } else if (offset % clusterSize !== 0) {
      refuse(`the offset is not a multiple of the cluster size ${clusterSize}`)
    } else if (offset / clusterSize >= counts.clusters) {
      refuse('it lies past the end of the file')
    } else if (offset !== 0) {
      counts.addMetadata(offset, clusterSize, 1, 'a refcount block')
      const uses = counts.get(offset / clusterSize)
      if (uses !== 1) {
        refuse(`${uses} uses of its cluster, allowed is one`)
      }
    }
  }
}

/** Compares each cluster's refcount with its uses; returns the end of the last cluster that has either, in bytes. */
export async function compareRefcounts(image: CheckedImage, tables: L2TableSet): Promise<number> {
  const { counts, findings, geometry, header, turns, recorded } = image
  const { clusterSize } = geometry
  // With 64 bits so many uses are no number: there may be more.
  const uncountable = header.refcountOrder === 6 ? counts.ceiling : Infinity
  let highest = 0
  for await (const { first, count, refcounts } of recorded.steps(counts.clusters)) {
    await turns.step()
    if (refcounts === undefined) {
      const offset = first * clusterSize
      findings.error(
        count,
        offset,
        () => `the refcounts of ${count} host clusters from ${hex(offset)} on cannot be read`,
      )
      continue
    }
    for (let i = 0; i < count; i++) {
      const refcount = refcounts[i]!
      const uses = counts.get(first + i)
      if (refcount > 0 || uses > 0) {
        highest = first + i
      }
      if (refcount !== uses || uses === uncountable) {
        mismatch(first + i, refcount, uses)
      } else if (uses > 1 && isOverlap(first + i, uses)) {
        overlap(first + i, uses)
      }
    }
  }
  return (highest + 1) * clusterSize

  /** Whether metadata is used by more than those who may: L1 entries of any L1 table an L2 table, one structure all else. */
  function isOverlap(cluster: number, uses: number): boolean {
    const times = tables.get(cluster)?.times
    return times === undefined ? counts.isMetadata(cluster) : uses > times
  }

  function mismatch(cluster: number, refcount: number, uses: number): void {
    const offset = cluster * clusterSize
    const name = (): string => `host cluster at ${hex(offset)}: refcount ${refcount}`
    if (uses === uncountable && refcount >= uses) {
      findings.error(1, offset, () => `${name()}, and more uses than can be counted`)
    } else if (refcount > uses) {
      findings.leak(1, offset, () => `${name()}, but ${usesInWords(uses)}: leaked`)
    } else {
      findings.corruption(1, offset, () => {
        const isMetadata = counts.isMetadata(cluster) || tables.get(cluster) !== undefined
        return `${name()}, but ${usesInWords(uses)}${isMetadata ? ', and it holds metadata' : ''}`
      })
    }
  }

  function overlap(cluster: number, uses: number): void {
    const offset = cluster * clusterSize
    findings.corruption(1, offset, () => `host cluster at ${hex(offset)}: ${uses} uses, though it holds metadata`)
  }
}

const usesInWords = (uses: number): string => (uses === 1 ? '1 use' : `${uses} uses`)
