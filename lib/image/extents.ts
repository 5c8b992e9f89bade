/**
 * Extents as the public surface shows them: batches joined, each run as long as it can be.
 *
 * Knows what callers may see, not how it was found. Invariant: neighbours differ in kind or layer, or do not lie next
 * to each other on the host.
 */
import { assertNever } from '../errors.js'
import type { DataExtent, LayerExtent } from '../format/extents.js'
import { dataAndHoles } from './holes.js'
import type { Layer } from './layer.js'

/**
 * A run of guest bytes stored in one way:
 * - `data`: at `hostOffset` (bytes) of `file`, as they are unless `isEncrypted`;
 * - `compressed`: in compressed clusters;
 * - `zero`: nowhere, the image says that they are zeros;
 * - `unallocated`: nowhere in the chain, hence zeros.
 *
 * In detail, data tell whether they lie in a hole of the file (hence are zeros), and `zero` and `unallocated` where on the
 * host room is kept for them, if it is.
 */
export type Qcow2Extent = {
  /** Guest offset in bytes. */
  readonly offset: number
  /** Bytes, at least 1. */
  readonly length: number
  /** Layer of the chain that the bytes come from: 0 is the image itself, 1 its backing file, and so on. */
  readonly depth: number
} & (
  | {
      readonly kind: 'data'
      readonly hostOffset: number
      readonly file: string
      readonly isEncrypted: boolean
      readonly isHole?: boolean
    }
  | { readonly kind: 'compressed' }
  | { readonly kind: 'zero' | 'unallocated'; readonly hostOffset?: number }
)

/**
 * The extents of all batches, joined where they continue each other.
 *
 * @param hasHoles Tells of a layer whether its data may lie in holes, which then are told from other data; undefined: nobody
 *   wants to know.
 */
export async function* mergeExtents(
  batches: AsyncIterable<LayerExtent[]>,
  layers: readonly Layer[],
  hasHoles?: (depth: number) => boolean,
): AsyncGenerator<Qcow2Extent, void, undefined> {
  let open: Qcow2Extent | undefined
  for await (const batch of batches) {
    for (const extent of batch) {
      for (const next of publicExtents(extent, layers, hasHoles)) {
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
  }
  if (open !== undefined) {
    yield open
  }
}

function* publicExtents(
  extent: LayerExtent,
  layers: readonly Layer[],
  hasHoles: ((depth: number) => boolean) | undefined,
): Generator<Qcow2Extent, void, undefined> {
  const { depth, length } = extent
  const offset: number = extent.guestOffset
  switch (extent.kind) {
    case 'data':
      if (hasHoles === undefined) {
        yield publicData(extent, layers)
      } else if (hasHoles(depth)) {
        for (const { part, isHole } of dataAndHoles(extent, layers)) {
          yield { ...publicData(part, layers), isHole }
        }
      } else {
        yield { ...publicData(extent, layers), isHole: false }
      }
      break
    case 'compressed':
      yield { kind: 'compressed', offset, length, depth }
      break
    case 'zero':
    case 'unallocated': {
      const { kind, hostOffset } = extent
      yield hostOffset === undefined ? { kind, offset, length, depth } : { kind, offset, length, depth, hostOffset }
      break
    }
    /* c8 ignore next 2 */
    default:
      assertNever(extent)
  }
}

function publicData({ depth, guestOffset, length, hostOffset }: DataExtent, layers: readonly Layer[]) {
  const { dataFile, encryption } = layers[depth]!
  const isEncrypted = encryption !== undefined
  return {
    kind: 'data' as const,
    offset: guestOffset as number,
    length,
    depth,
    hostOffset,
    file: dataFile.label,
    isEncrypted,
  }
}

/** Whether a run goes on: in the same way, and at the next place of the host if it has one. */
function continues(open: Qcow2Extent, next: Qcow2Extent): boolean {
  if (open.kind !== next.kind || open.depth !== next.depth) {
    return false
  }
  const isHole = (extent: Qcow2Extent): boolean => extent.kind === 'data' && extent.isHole === true
  const [place, nextPlace] = [open, next].map((extent) => ('hostOffset' in extent ? extent.hostOffset : undefined))
  return (place === undefined ? undefined : place + open.length) === nextPlace && isHole(open) === isHole(next)
}
