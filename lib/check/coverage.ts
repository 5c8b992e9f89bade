/**
 * Ranges that may overlap, as segments that do not: each with how many of the ranges cover it.
 *
 * A hostile image has 65536 snapshots whose L1 tables, of 32 MiB each, lie on top of each other in a small file. Read one by one
 * they would take hours; read by segments, each byte of the file is read once, and what it says counts as often as it is covered.
 */

/** A half-open range. */
export interface Range {
  readonly start: number
  readonly end: number
}

/** A half-open range that is covered `weight` times, at least once. */
export interface Segment extends Range {
  readonly weight: number
}

/** The segments of the ranges, none of which is empty, in ascending order. */
export function coverage(ranges: readonly Range[]): Segment[] {
  const starts = Float64Array.from(ranges, ({ start }) => start).sort()
  const ends = Float64Array.from(ranges, ({ end }) => end).sort()
  const segments: Segment[] = []
  let weight = 0
  let at = 0
  for (let s = 0, e = 0; e < ends.length;) {
    const next = Math.min(starts[s] ?? Infinity, ends[e]!)
    if (weight > 0 && next > at) {
      segments.push({ start: at, end: next, weight })
    }
    for (; starts[s] === next; s++) {
      weight++
    }
    for (; ends[e] === next; e++) {
      weight--
    }
    at = next
  }
  return segments
}
