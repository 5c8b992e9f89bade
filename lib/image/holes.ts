/**
 * Finds data that lies in a hole of its host file: zeros, which nobody needs to read.
 *
 * Images with preallocated metadata map every cluster, yet hold hardly any data. Invariant: the extents that come back
 * tile what those that went in did.
 */
import { sliceExtent, type DataExtent, type LayerExtent } from '../format/extents.js'
import type { Layer } from './layer.js'

/** The extent, or its parts if some of them lie in holes. */
export function* splitAtHoles(extent: LayerExtent, layers: readonly Layer[]): Generator<LayerExtent, void, undefined> {
  if (extent.kind !== 'data') {
    yield extent
    return
  }
  const { depth } = extent
  for (const { part, isHole } of dataAndHoles(extent, layers)) {
    yield isHole ? { kind: 'zero', depth, guestOffset: part.guestOffset, length: part.length } : part
  }
}

/** The parts of an extent: those that its file holds, and those that lie in holes of it. */
export function* dataAndHoles(
  extent: DataExtent,
  layers: readonly Layer[],
): Generator<{ part: DataExtent; isHole: boolean }, void, undefined> {
  const { dataFile: file, encryption } = layers[extent.depth]!
  // What zeros on the host are decrypted to is no zeros.
  if (encryption !== undefined || file.holes === undefined) {
    yield { part: extent, isHole: false }
    return
  }
  const end = extent.hostOffset + extent.length
  const toGuest = extent.guestOffset - extent.hostOffset
  for (let at: number = extent.hostOffset; at < end;) {
    // Asked anew each time, as the file may have been closed while the consumer had the last part.
    const data = Math.min(file.holes.nextData(at), end)
    if (data > at) {
      yield { part: sliceExtent(extent, at + toGuest, data - at), isHole: true }
    }
    if (data < end) {
      // A file that changes between the questions must not keep us here: what is not clear counts as data.
      const next = file.holes.nextHole(data)
      const hole = next > data ? Math.min(next, end) : end
      yield { part: sliceExtent(extent, data + toGuest, hole - data), isHole: false }
      at = hole
    } else {
      at = end
    }
  }
}
