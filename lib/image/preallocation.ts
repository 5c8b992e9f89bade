/**
 * Tells which data of a chain may lie in holes of the host's files, as qemu-img's map does.
 *
 * A raw disk can have holes anywhere. In an image only preallocated clusters lie in them on purpose: others that do were
 * written as zeros, and the file system has seen it. Invariant: a guess, on which no byte that is read depends.
 * Spec: "Host cluster management".
 */
import { RecordedRefcounts } from '../check/recorded-refcounts.js'
import { Turns } from '../check/turns.js'
import type { Layer } from './layer.js'

const answers = new WeakMap<Layer, Promise<boolean>>()

/** Whether a layer's data is to be looked for in holes; what is needed for that has been asked of the file system by then. */
export async function findHoles(layers: readonly Layer[]): Promise<(depth: number) => boolean> {
  const mayHave: boolean[] = []
  for (const layer of layers) {
    let answer = answers.get(layer)
    if (answer === undefined) {
      answer = isPreallocated(layer)
      answers.set(layer, answer)
    }
    mayHave.push(await answer)
    if (mayHave[mayHave.length - 1] === true) {
      await layer.dataFile.findHoles()
    }
  }
  return (depth) => mayHave[depth]!
}

/** Whether clearly more clusters are in use than the file has room for on its file system; of a raw disk nobody knows. */
async function isPreallocated({ file, metadata }: Layer): Promise<boolean> {
  if (metadata === undefined) {
    return true
  }
  const clusterSize = 2 ** metadata.header.clusterBits
  const stored = Math.floor((file.allocatedBytes ?? file.size) / clusterSize)
  // The same measure as QEMU's: a tenth of the clusters in use, and two at least.
  const enough = Math.max(Math.floor((stored * 10) / 9), stored + 2)
  const clusters = Math.ceil(file.size / clusterSize)
  if (clusters < enough) {
    return false
  }
  const recorded = await RecordedRefcounts.read(file, metadata.header)
  const turns = new Turns(undefined)
  let used = 0
  for await (const { refcounts } of recorded.steps(clusters)) {
    await turns.step()
    used += refcounts?.reduce((sum, count) => sum + (count > 0 ? 1 : 0), 0) ?? 0
    if (used >= enough) {
      return true
    }
  }
  return false
}
