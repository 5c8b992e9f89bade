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
  const { dataFile: file, encryption } = layers[extent.depth]!
  // What zeros on the host are decrypted to is no zeros.
  if (extent.kind !== 'data' || encryption !== undefined || file.holes === undefined) {
    yield extent
    return
  }
  const end = extent.hostOffset + extent.length
  const toGuest = extent.guestOffset - extent.hostOffset
  for (let at: number = extent.hostOffset; at < end;) {
    // Asked anew each time, as the file may have been closed while the consumer had the last part.
    const data = Math.min(file.holes.nextData(at), end)
    if (data > at) {
      yield { kind: 'zero', depth: extent.depth, guestOffset: guestOffset(at + toGuest), length: data - at }
    }
    if (data < end) {
      // A file that changes between the questions must not keep us here: what is not clear counts as data.
      const next = file.holes.nextHole(data)
      const hole = next > data ? Math.min(next, end) : end
      yield sliceExtent(extent, data + toGuest, hole - data)
      at = hole
    } else {
      at = end
    }
  }
}
