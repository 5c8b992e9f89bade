/**
 * A disk's map as the rows that `qemu-img map --output=json` prints.
 *
 * Invariant: rows tile the disk; what qemu-img prints of each is there with the same value, `compressed` is of later releases.
 */
import type { Qcow2ChainLink, Qcow2Extent } from '../../lib/index.js'

/** One row; its names are qemu-img's. Bytes. */
export interface MapRow {
  readonly start: number
  readonly length: number
  /** Layer of the chain. */
  readonly depth: number
  /** Whether that layer says what the bytes are. */
  readonly present: boolean
  readonly zero: boolean
  readonly data: boolean
  readonly compressed: boolean
  /** Where they are in the layer's file, or where room is kept for them. */
  readonly offset?: number
}

/**
 * The rows of a map.
 *
 * @param extents In detail.
 * @param chain The layers that they lie in.
 */
export async function* mapRows(
  extents: AsyncIterable<Qcow2Extent>,
  chain: readonly Qcow2ChainLink[],
): AsyncGenerator<MapRow, void, undefined> {
  for await (const extent of extents) {
    if (extent.kind === 'unallocated') {
      yield* unallocatedRows(extent, chain)
    } else {
      yield rowOf(extent, chain)
    }
  }
}

function rowOf(extent: Qcow2Extent, chain: readonly Qcow2ChainLink[]): MapRow {
  const { offset: start, length, depth } = extent
  const isZero = extent.kind === 'zero' || (extent.kind === 'data' && extent.isHole === true)
  // A hole of a raw file is nothing, one in an image is a cluster all the same.
  const isData = extent.kind !== 'zero' && !(isZero && chain[depth]!.format === 'raw')
  const row = {
    start,
    length,
    depth,
    present: true,
    zero: isZero,
    data: isData,
    compressed: extent.kind === 'compressed',
  }
  const hasPlace = extent.kind !== 'compressed' && !(extent.kind === 'data' && extent.isEncrypted)
  return hasPlace && extent.hostOffset !== undefined ? { ...row, offset: extent.hostOffset } : row
}

/** Nothing comes from the lowest layer that reaches so far. */
function* unallocatedRows(
  extent: { readonly offset: number; readonly length: number; readonly hostOffset?: number },
  chain: readonly Qcow2ChainLink[],
): Generator<MapRow, void, undefined> {
  const end = extent.offset + extent.length
  for (let start = extent.offset; start < end;) {
    const firstTooShort = chain.findIndex(({ virtualSize }) => virtualSize <= start)
    const reaching = firstTooShort === -1 ? chain : chain.slice(0, firstTooShort)
    const next = Math.min(end, ...reaching.map(({ virtualSize }) => virtualSize))
    const row = {
      start,
      length: next - start,
      depth: reaching.length - 1,
      present: false,
      zero: true,
      data: false,
      compressed: false,
    }
    yield extent.hostOffset === undefined ? row : { ...row, offset: extent.hostOffset + (start - extent.offset) }
    start = next
  }
}
