/**
 * Counts what persistent bitmaps use: their directory, their tables and the clusters of these.
 *
 * Knows places, not what bits say. Invariant: each byte of the tables is read once, however many bitmaps share it. Spec: "Bitmaps".
 */
import { hex } from '../errors.js'
import { MAX_DIRECTORY_BYTES, bitmapClusterOffset, hasReservedBitmapBits, type Qcow2Bitmap } from '../format/bitmaps.js'
import { readBitmapDirectory } from './bitmap-directory.js'
import type { CheckedImage } from './checked-image.js'
import { tablePieces } from './host-reader.js'
import { countTables } from './tables.js'

/** Counts them all; bitmaps that the image does not vouch for use nothing. */
export async function countBitmaps(image: CheckedImage): Promise<void> {
  const { file, counts, findings, geometry, turns } = image
  const { clusterSize } = geometry
  const bitmaps = await readDirectory(image)
  const tables = bitmaps.map(({ bitmapTableOffset, bitmapTableSize }) => ({
    offset: bitmapTableOffset,
    size: bitmapTableSize,
  }))
  const segments = countTables(image, tables, 'the table of a bitmap')
  for await (const { entries, offset: tableOffset, weight } of tablePieces(file, segments)) {
    await turns.step()
    for (let at = 0; at < entries.byteLength; at += 8) {
      const hi = entries.getUint32(at)
      const lo = entries.getUint32(at + 4)
      const offset = bitmapClusterOffset(hi, lo)
      if (hasReservedBitmapBits(hi, lo) || offset % clusterSize !== 0) {
        const hostOffset = tableOffset + at
        findings.corruption(weight, hostOffset, () => {
          const value = hex(entries.getBigUint64(at))
          return `bitmap table entry at host offset ${hex(hostOffset)}, ${value}: reserved bits are set, or it is not aligned`
        })
      } else if (offset !== 0) {
        counts.addMetadata(offset, clusterSize, weight, 'a cluster of a bitmap')
      }
    }
  }
}

async function readDirectory({
  file,
  extensions: { bitmaps },
  counts,
  findings,
  geometry,
}: CheckedImage): Promise<readonly Qcow2Bitmap[]> {
  if (bitmaps === undefined) {
    return []
  }
  const { bitmapDirectoryOffset: offset, bitmapDirectorySize: size } = bitmaps
  const { bitmaps: found, problem } = await readBitmapDirectory(file, bitmaps, geometry.clusterSize)
  if (size <= MAX_DIRECTORY_BYTES) {
    counts.addMetadata(offset, size, 1, 'the bitmap directory')
  }
  if (problem !== undefined) {
    const { at, what } = problem
    findings.corruption(1, offset + at, () => `the bitmap directory at host offset ${hex(offset)}, ${what}`)
  }
  return found
}
