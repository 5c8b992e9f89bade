/**
 * Cuts the disk into runs: what is read and handed on at once.
 *
 * Knows extents and sizes, reads nothing but tables. Invariant: runs tile the range in guest order; a run of data is
 * no longer than its size says, unless a single compressed cluster is.
 */
import type { Chain } from '../image/chain.js'
import { splitAtHoles } from '../image/holes.js'
import { sliceExtent, type LayerExtent } from '../format/extents.js'

/** Bytes to read, and how they are stored. */
export interface DataRun {
  readonly kind: 'data'
  readonly guestOffset: number
  length: number
  readonly extents: LayerExtent[]
}

/** Zeros, as far as they go. */
export interface ZeroRun {
  readonly kind: 'zeros'
  readonly guestOffset: number
  length: number
}

export type Run = DataRun | ZeroRun

/** How long a run of data is at most, in bytes. */
export interface RunSizes {
  readonly plain: number
  /** If something in it is to be decoded or decrypted: shorter, where many threads wait for it. */
  readonly decoded: number
}

/** Zeros between data that are shorter than this stay in the run: a chunk of their own costs more than filling them in. */
const MIN_ZERO_RUN_BYTES = 65536

/**
 * The runs of the guest bytes `from` to `to`.
 *
 * @param sizes Runs of data end at multiples of these where they can.
 * @param isWanted Ends the plan early once it says no.
 */
export async function* planRuns(
  chain: Chain,
  from: number,
  to: number,
  sizes: RunSizes,
  isWanted?: () => boolean,
): AsyncGenerator<Run, void, undefined> {
  let open: Run | undefined
  let runBytes = sizes.plain
  for await (const extents of chain.map(from, to, { mergesZeros: true, ...(isWanted && { isWanted }) })) {
    for (const extent of readable(extents, chain)) {
      const isZeros = extent.kind === 'zero' || extent.kind === 'unallocated'
      if (isZeros && (open?.kind !== 'data' || extent.length >= MIN_ZERO_RUN_BYTES)) {
        if (open?.kind === 'zeros') {
          open.length += extent.length
        } else {
          if (open !== undefined) {
            yield open
          }
          open = { kind: 'zeros', guestOffset: extent.guestOffset, length: extent.length }
        }
        continue
      }
      if (open?.kind === 'zeros') {
        yield open
        open = undefined
      }
      const end = extent.guestOffset + extent.length
      for (let at: number = extent.guestOffset; at < end;) {
        if (open === undefined) {
          open = { kind: 'data', guestOffset: at, length: 0, extents: [] }
          runBytes = sizes.plain
        }
        if (isDecoded(extent, chain.layers)) {
          runBytes = sizes.decoded
        }
        const cut: number = cutOf(extent, at, end, open, runBytes)
        if (cut > at) {
          open.extents.push(sliceExtent(extent, at, cut - at))
          open.length += cut - at
          at = cut
        }
        if (at < end || open.guestOffset + open.length >= endOf(open, runBytes)) {
          yield open
          open = undefined
        }
      }
    }
  }
  if (open !== undefined) {
    yield open
  }
}

/** Whether the bytes of an extent are not those that are stored. */
export const isDecoded = ({ kind, depth }: LayerExtent, layers: Chain['layers']): boolean =>
  kind === 'compressed' || (kind === 'data' && layers[depth]!.encryption !== undefined)

function* readable(extents: readonly LayerExtent[], chain: Chain): Generator<LayerExtent, void, undefined> {
  for (const extent of extents) {
    yield* splitAtHoles(extent, chain.layers)
  }
}

/** Where a run that begins at its guest offset ends at the latest. */
const endOf = (run: DataRun, runBytes: number): number => (Math.floor(run.guestOffset / runBytes) + 1) * runBytes

/** Up to where the extent goes into the run; `at` if nothing more fits. */
function cutOf(extent: LayerExtent, at: number, end: number, run: DataRun, runBytes: number): number {
  const limit = Math.min(end, endOf(run, runBytes))
  if (extent.kind !== 'compressed' || limit === end) {
    return limit
  }
  // A compressed cluster that were cut would be decoded twice. Alone in a run, it may be longer than the run.
  const { clusterGuestOffset, clusterSize } = extent
  const whole = clusterGuestOffset + Math.floor((limit - clusterGuestOffset) / clusterSize) * clusterSize
  if (whole > at) {
    return whole
  }
  const clusterEnd = clusterGuestOffset + (Math.floor((at - clusterGuestOffset) / clusterSize) + 1) * clusterSize
  return run.length === 0 ? Math.min(end, clusterEnd) : at
}
