/** For a coverage-guided fuzzer: the bytes are a geometry and an L2 table, whose extents must tile what was asked for. */
import { Qcow2FormatError } from '../../lib/errors.js'
import { decodeL1Entry, decodeL2Entries } from '../../lib/format/entries.js'
import { ExtentList, sliceExtent } from '../../lib/format/extents.js'
import { l1Reach } from '../../lib/format/header.js'

const SHAPE_BYTES = 4

export function fuzz(bytes: Buffer): void {
  if (bytes.length < SHAPE_BYTES + 16) {
    return
  }
  const [bits, flags, first, last] = bytes as unknown as [number, number, number, number]
  const hasExtendedL2 = (flags & 1) !== 0
  const clusterBits = (hasExtendedL2 ? 14 : 9) + (bits % (hasExtendedL2 ? 8 : 13))
  const clusterSize = 2 ** clusterBits
  const l2EntryBytes = hasExtendedL2 ? 16 : 8
  const geometry = {
    clusterBits,
    clusterSize,
    hasExtendedL2,
    l2EntryBytes,
    l2Reach: l1Reach(clusterSize, hasExtendedL2),
    hasZeroFlag: !hasExtendedL2 && (flags & 2) !== 0,
    hasExternalDataFile: (flags & 4) !== 0,
  }
  const words = bytes.subarray(SHAPE_BYTES)
  const table = new DataView(new ArrayBuffer(clusterSize))
  new Uint8Array(table.buffer).set(words.subarray(0, clusterSize))
  const entries = Math.min(Math.ceil(words.length / l2EntryBytes), clusterSize / l2EntryBytes)
  const from = Math.min(first * 100, entries * clusterSize - 1)
  const to = Math.max(from + 1, entries * clusterSize - last * 50)
  const place = { layer: 'fuzz', tableOffset: clusterSize }
  const out = new ExtentList(0)
  try {
    decodeL1Entry(table.getInt32(0), table.getInt32(4), 0, geometry, place)
    decodeL2Entries(table, 0, from, to, geometry, place, out)
  } catch (error) {
    if (error instanceof Qcow2FormatError) {
      return
    }
    throw error
  }
  let at = from
  for (const extent of out.extents) {
    if (extent.guestOffset !== at || extent.length < 1) {
      throw new Error(`an extent of ${extent.length} bytes at ${extent.guestOffset}, not at ${at}`)
    }
    const half = Math.ceil(extent.length / 2)
    if (sliceExtent(extent, at, half).length !== half) {
      throw new Error('half an extent is something else')
    }
    at += extent.length
  }
  if (at !== to) {
    throw new Error(`the extents end at ${at}, not at ${to}`)
  }
}
