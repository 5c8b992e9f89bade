/**
 * Reads the tables of an image file for a check: many at once where they lie next to each other, and each byte once.
 *
 * Knows files and places, not what stands there. Invariant: what lies past the end of the file is zeros, as a writer has it, and
 * at most a few MiB are held.
 */
import { viewOf } from '../format/units.js'
import type { HostFile } from '../source/source.js'
import type { Segment } from './coverage.js'

const PIECE_BYTES = 2 ** 18
const RUN_BYTES = 2 ** 20
const RUNS_AT_ONCE = 4

/** Reads bytes as big-endian values; zeros past the end of the file. */
export async function readView(file: HostFile, offset: number, length: number): Promise<DataView> {
  const bytes = new Uint8Array(length)
  await file.read(bytes, offset)
  return viewOf(bytes)
}

/** Part of a table of 8-byte entries. */
export interface TablePiece {
  readonly entries: DataView
  /** Host offset of the first entry, in bytes. */
  readonly offset: number
  /** How many tables have these entries. */
  readonly weight: number
}

/**
 * The entries of tables, in host order; those past the end of the file, which are zeros, are left out.
 *
 * @param segments Bytes of the file, in ascending order, that begin and end at multiples of 8.
 */
export async function* tablePieces(
  file: HostFile,
  segments: readonly Segment[],
): AsyncGenerator<TablePiece, void, undefined> {
  const fileEnd = Math.ceil(file.size / 8) * 8
  let bytes = new Uint8Array(0)
  let bytesOffset = 0
  for (const segment of segments) {
    const end = Math.min(segment.end, fileEnd)
    for (let at = segment.start; at < end;) {
      // Many short tables may lie next to each other.
      if (at < bytesOffset || at >= bytesOffset + bytes.length) {
        bytes = new Uint8Array(Math.min(PIECE_BYTES, fileEnd - at))
        bytesOffset = at
        await file.read(bytes, at)
      }
      const stop = Math.min(end, bytesOffset + bytes.length)
      yield {
        entries: viewOf(bytes.subarray(at - bytesOffset, stop - bytesOffset)),
        offset: at,
        weight: segment.weight,
      }
      at = stop
    }
  }
}

/** A whole cluster of the file. */
export interface ClusterView {
  /** Its index. */
  readonly cluster: number
  readonly entries: DataView
}

/** Clusters, which are in ascending order, a few reads at once. */
export async function* clusterViews(
  file: HostFile,
  clusters: Uint32Array,
  clusterSize: number,
): AsyncGenerator<ClusterView, void, undefined> {
  const mostClusters = Math.max(1, RUN_BYTES / clusterSize)
  for (let next = 0; next < clusters.length;) {
    const runs: { readonly first: number; length: number }[] = []
    while (next < clusters.length && runs.length < RUNS_AT_ONCE) {
      const run = { first: clusters[next]!, length: 1 }
      while (++next < clusters.length && run.length < mostClusters && clusters[next] === run.first + run.length) {
        run.length++
      }
      runs.push(run)
    }
    const views = await Promise.all(
      runs.map(({ first, length }) => readView(file, first * clusterSize, length * clusterSize)),
    )
    for (const [index, { first, length }] of runs.entries()) {
      const { buffer } = views[index]!
      for (let i = 0; i < length; i++) {
        yield { cluster: first + i, entries: new DataView(buffer, i * clusterSize, clusterSize) }
      }
    }
  }
}
