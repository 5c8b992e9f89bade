/**
 * Counts what L1 tables use: the active one's and all snapshots', themselves and their L2 tables.
 *
 * Knows L1 entries, not what L2 tables say. Invariant: each byte of the file is read at most twice (as part of the active table,
 * and of the others), however many tables lie on top of each other. Spec: "Cluster mapping", "Snapshots".
 */
import { hex } from '../errors.js'
import { COPIED, L1_RESERVED_HIGH, L1_RESERVED_LOW, offsetOf } from '../format/entries.js'
import type { CheckedImage } from './checked-image.js'
import { tablePieces } from './host-reader.js'
import { L2TableSet } from './l2-table-set.js'
import { countTables } from './tables.js'

/** Counts L1 tables and L2 tables, and tells which L2 tables there are. @param beforeGrowing As {@link L2TableSet} has it. */
export async function countL1Tables(image: CheckedImage, beforeGrowing: (bytes: number) => void): Promise<L2TableSet> {
  const { counts, file, header, turns, snapshots } = image
  const tables = new L2TableSet(beforeGrowing)
  if (header.l1Size > 0) {
    const { l1TableOffset: start, l1Size } = header
    counts.addMetadata(start, l1Size * 8, 1, 'the L1 table')
    for await (const { entries, offset } of tablePieces(file, [{ start, end: start + l1Size * 8, weight: 1 }])) {
      await turns.step()
      countEntries(image, entries, offset, 1, (offset - start) / 8, tables)
    }
  }
  const others = snapshots.map(({ l1TableOffset: offset, l1Size: size }) => ({ offset, size }))
  const segments = countTables(image, others, 'the L1 table of a snapshot')
  for await (const { entries, offset, weight } of tablePieces(file, segments)) {
    await turns.step()
    countEntries(image, entries, offset, weight, undefined, tables)
  }
  return tables
}

/** @param l1Index Of the first entry, if they are the active table's. */
function countEntries(
  { counts, findings, geometry, recorded, file }: CheckedImage,
  entries: DataView,
  tableOffset: number,
  times: number,
  l1Index: number | undefined,
  tables: L2TableSet,
): void {
  const { clusterSize, l2Reach } = geometry
  for (let at = 0; at < entries.byteLength; at += 8) {
    const hi = entries.getUint32(at)
    const lo = entries.getUint32(at + 4)
    if (hi === 0 && lo === 0) {
      continue
    }
    const hasReservedBits = ((hi & L1_RESERVED_HIGH) | (lo & L1_RESERVED_LOW)) !== 0
    if (hasReservedBits) {
      refuse(at, () => 'reserved bits are set')
    }
    const offset = offsetOf(hi, lo)
    if (offset !== 0) {
      countTable(at, offset)
      if (l1Index !== undefined) {
        checkCopied(at, offset, (hi & COPIED) !== 0)
      }
    } else if (!hasReservedBits) {
      refuse(at, () => 'bit 63 is set, but there is no offset')
    }
  }

  function countTable(at: number, offset: number): void {
    const isInFile = counts.add(offset, clusterSize, times)
    if (!isInFile) {
      refuse(at, () => `its L2 table lies past the end of the file (${file.size} bytes)`)
    }
    if (offset % clusterSize !== 0) {
      // What stands there is no table.
      refuse(at, () => `L2 table offset ${hex(offset)} is not a multiple of the cluster size ${clusterSize}`)
    } else if (isInFile) {
      if (l1Index === undefined) {
        tables.add(offset / clusterSize, times)
      } else {
        tables.addActive(offset / clusterSize, l1Index + at / 8)
      }
    }
  }

  function checkCopied(at: number, offset: number, isCopied: boolean): void {
    const isSingle = recorded.isSingle(Math.floor(offset / clusterSize))
    if (isSingle !== undefined && isSingle !== isCopied) {
      refuse(at, () => `bit 63 is ${isSingle ? 'not set, but its refcount is 1' : 'set, but its refcount is not 1'}`)
    }
  }

  function refuse(at: number, what: () => string): void {
    const hostOffset = tableOffset + at
    const index = l1Index === undefined ? undefined : l1Index + at / 8
    findings.corruption(
      times,
      hostOffset,
      () => {
        const name = index === undefined ? 'an L1 entry of a snapshot' : `L1 entry ${index}`
        return `${name} at host offset ${hex(hostOffset)}, ${hex(entries.getBigUint64(at))}: ${what()}`
      },
      index === undefined ? undefined : index * l2Reach,
    )
  }
}
