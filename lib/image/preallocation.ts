/**
 * Tells which data of a chain may lie in holes of the host's files, as qemu-img's map does.
 *
 * A raw disk can have holes anywhere. In an image only preallocated clusters lie in them on purpose: others that do were
 * written as zeros, and the file system has seen it. Invariant: a guess, on which no byte that is read depends.
 * Spec: "Host cluster management".
 */
import { HIGH_HALF, viewOf } from '../format/units.js'
import type { Layer } from './layer.js'

/** Whether a layer's data is to be looked for in holes; what is needed for that has been asked of the file system by then. */
export async function findHoles(layers: readonly Layer[]): Promise<(depth: number) => boolean> {
  const answers = await Promise.all(
    layers.map(async (layer) => {
      const mayHave = layer.metadata === undefined || (await isPreallocated(layer))
      if (mayHave) {
        await layer.dataFile.findHoles()
      }
      return mayHave
    }),
  )
  return (depth) => answers[depth]!
}

/** Whether clearly more clusters are in use than the file has room for on its file system. */
async function isPreallocated({ file, metadata }: Layer): Promise<boolean> {
  const { clusterBits, refcountOrder, refcountTableOffset, refcountTableClusters } = metadata!.header
  const clusterSize = 2 ** clusterBits
  const stored = Math.floor((file.allocatedBytes ?? file.size) / clusterSize)
  // The same measure as QEMU's: a tenth of the clusters in use, and two at least.
  const enough = Math.max(Math.floor((stored * 10) / 9), stored + 2)
  const clusters = Math.ceil(file.size / clusterSize)
  if (clusters < enough) {
    return false
  }
  const table = new Uint8Array(refcountTableClusters * clusterSize)
  await file.read(table, refcountTableOffset)
  const clustersPerBlock = (clusterSize * 8) / 2 ** refcountOrder
  const blocks = Math.min(table.length / 8, Math.ceil(clusters / clustersPerBlock))
  const view = viewOf(table)
  const block = new Uint8Array(clusterSize)
  let used = 0
  for (let index = 0; index < blocks && used < enough; index++) {
    const offset = view.getUint32(index * 8) * HIGH_HALF + view.getUint32(index * 8 + 4)
    if (offset > 0 && offset < file.size) {
      await file.read(block, offset)
      used += countUsed(block, 2 ** refcountOrder)
    }
  }
  return used >= enough
}

/** How many refcounts of a block, each so many bits wide, are not 0. */
function countUsed(block: Uint8Array, bits: number): number {
  let count = 0
  if (bits < 8) {
    const mask = 2 ** bits - 1
    for (const byte of block) {
      for (let rest = byte; rest > 0; rest >>>= bits) {
        count += (rest & mask) === 0 ? 0 : 1
      }
    }
    return count
  }
  for (let at = 0; at < block.length; at += bits / 8) {
    for (let next = at; next < at + bits / 8; next++) {
      if (block[next] !== 0) {
        count++
        break
      }
    }
  }
  return count
}
