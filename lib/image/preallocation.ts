/**
 * Tells which data of a chain may lie in holes of the host's files, as qemu-img's map does.
 *
 * A raw disk can have holes anywhere. In an image only preallocated clusters lie in them on purpose: others that do were
 * written as zeros, and the file system has seen it. Invariant: a guess, on which no byte that is read depends.
 * Spec: "Host cluster management".
 */
import { decodeRefcounts, refcountBlockOffset, refcountsPerBlock } from '../format/refcounts.js'
import { viewOf } from '../format/units.js'
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
  const counts = new Float64Array(refcountsPerBlock(clusterSize, refcountOrder))
  const blocks = Math.min(table.length / 8, Math.ceil(clusters / counts.length))
  const view = viewOf(table)
  const block = new Uint8Array(clusterSize)
  let used = 0
  for (let index = 0; index < blocks && used < enough; index++) {
    const offset = refcountBlockOffset(view.getUint32(index * 8), view.getUint32(index * 8 + 4))
    if (offset > 0 && offset < file.size) {
      await file.read(block, offset)
      decodeRefcounts(viewOf(block), refcountOrder, counts)
      used += counts.reduce((sum, count) => sum + (count > 0 ? 1 : 0), 0)
    }
  }
  return used >= enough
}
