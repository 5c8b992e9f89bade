/**
 * Turns data that lies in a hole of its host file into zeros, so that nobody reads it.
 *
 * Images with preallocated metadata map every cluster, yet hold hardly any data. Invariant: the extents that come back
 * tile what those that went in did.
 */
import { sliceExtent, type LayerExtent } from '../format/extents.js'
import { guestOffset } from '../format/units.js'
import type { Layer } from './layer.js'

/** The extent, or its parts if some of them lie in holes. */
export function* splitAtHoles(extent: LayerExtent, layers: readonly Layer[]): Generator<LayerExtent, void, undefined> {
  const holes = extent.kind === 'data' ? layers[extent.depth]!.dataFile.holes : undefined
  if (extent.kind !== 'data' || holes === undefined) {
    yield extent
    return
  }
  const end = extent.hostOffset + extent.length
  const toGuest = extent.guestOffset - extent.hostOffset
  for (let at: number = extent.hostOffset; at < end;) {
    const data = Math.min(holes.nextData(at), end)
    if (data > at) {
      yield { kind: 'zero', depth: extent.depth, guestOffset: guestOffset(at + toGuest), length: data - at }
    }
    if (data < end) {
      const hole = Math.min(holes.nextHole(data), end)
      yield sliceExtent(extent, data + toGuest, hole - data)
      at = hole
    } else {
      at = end
    }
  }
}
