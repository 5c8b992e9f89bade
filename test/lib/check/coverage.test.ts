/**
 * Segments of ranges, compared with counting point by point.
 */
import fc from 'fast-check'
import t from 'tap'
import { coverage } from '../../../lib/check/coverage.js'

t.test('nothing has no segments', async (t) => {
  t.strictSame(coverage([]), [])
})

t.test('ranges that overlap, touch, lie in each other or apart', async (t) => {
  t.strictSame(
    coverage([
      { start: 10, end: 20 },
      { start: 0, end: 4 },
      { start: 12, end: 14 },
      { start: 4, end: 6 },
      { start: 10, end: 20 },
    ]),
    [
      { start: 0, end: 4, weight: 1 },
      { start: 4, end: 6, weight: 1 },
      { start: 10, end: 12, weight: 2 },
      { start: 12, end: 14, weight: 3 },
      { start: 14, end: 20, weight: 2 },
    ],
  )
})

t.test('every point is covered as often as ranges have it', async () => {
  const range = fc.tuple(fc.nat(30), fc.integer({ min: 1, max: 12 }))
  fc.assert(
    fc.property(fc.array(range, { maxLength: 12 }), (pairs) => {
      const ranges = pairs.map(([start, length]) => ({ start, end: start + length }))
      const segments = coverage(ranges)
      const counted = (list: readonly { start: number; end: number; weight?: number }[], point: number): number =>
        list.reduce((sum, { start, end, weight = 1 }) => sum + (point >= start && point < end ? weight : 0), 0)
      const isInOrder = segments.every(({ start, end }, i) => start < end && (i === 0 || segments[i - 1]!.end <= start))
      return isInOrder && Array.from({ length: 45 }).every((_, at) => counted(segments, at) === counted(ranges, at))
    }),
  )
})
