/**
 * Extents as the public surface shows them: batches joined, each run as long as it can be.
 *
 * Knows what callers may see, not how it was found. Invariant: neighbours differ in kind or layer, or do not lie next
 * to each other on the host.
 */
import { assertNever } from '../errors.js'
import type { LayerExtent } from '../format/extents.js'
import type { Layer } from './layer.js'

/**
 * A run of guest bytes stored in one way:
 * - `data`: at `hostOffset` (bytes) of `file`, as they are unless `isEncrypted`;
 * - `compressed`: in compressed clusters;
 * - `zero`: nowhere, the image says that they are zeros;
 * - `unallocated`: nowhere in the chain, hence zeros.
 */
export type Qcow2Extent = {
  /** Guest offset in bytes. */
  readonly offset: number
  /** Bytes, at least 1. */
  readonly length: number
  /** Layer of the chain that the bytes come from: 0 is the image itself, 1 its backing file, and so on. */
  readonly depth: number
} & (
  | { readonly kind: 'data'; readonly hostOffset: number; readonly file: string; readonly isEncrypted: boolean }
  | { readonly kind: 'compressed' | 'zero' | 'unallocated' }
)

/** The extents of all batches, joined where they continue each other. */
export async function* mergeExtents(
  batches: AsyncIterable<LayerExtent[]>,
  layers: readonly Layer[],
): AsyncGenerator<Qcow2Extent, void, undefined> {
  let open: Qcow2Extent | undefined
  for await (const batch of batches) {
    for (const extent of batch) {
      const next = publicExtent(extent, layers)
      if (open !== undefined && continues(open, next)) {
        open = { ...open, length: open.length + next.length }
      } else {
        if (open !== undefined) {
          yield open
        }
        open = next
      }
    }
  }
  if (open !== undefined) {
    yield open
  }
}

function publicExtent(extent: LayerExtent, layers: readonly Layer[]): Qcow2Extent {
  const { depth, length } = extent
  const offset: number = extent.guestOffset
  switch (extent.kind) {
    case 'data': {
      const { dataFile, encryption } = layers[depth]!
      return {
        kind: 'data',
        offset,
        length,
        depth,
        hostOffset: extent.hostOffset,
        file: dataFile.label,
        isEncrypted: encryption !== undefined,
      }
    }
    case 'compressed':
    case 'zero':
    case 'unallocated':
      return { kind: extent.kind, offset, length, depth }
    /* c8 ignore next 2 */
    default:
      return assertNever(extent)
  }
}

const continues = (open: Qcow2Extent, next: Qcow2Extent): boolean =>
  open.kind === next.kind &&
  open.depth === next.depth &&
  (open.kind !== 'data' || next.kind !== 'data' || open.hostOffset + open.length === next.hostOffset)
