/**
 * What a run of the benchmark found, and which of it is not good enough.
 */
import { judge, MEMORY_GOAL, valueOf, type Case, type Figure, type Goal, type Verdict } from './cases.js'
import type { GrowthPoint, ReadRate } from './extras.js'
import type { Machine } from './machine.js'
import type { Series } from './measure.js'
import type { Way } from './ways.js'

/** A figure with its goal. */
export interface Judged extends Goal {
  readonly value: number
  readonly verdict: Verdict
}

/** What came of a case. */
export type CaseResult = { readonly name: string; readonly title: string } & (
  | {
      readonly kind: 'measured'
      readonly rivalTitle: string
      readonly ours: Series
      readonly rival: Series
      readonly figures: readonly Judged[]
    }
  | { readonly kind: 'skipped' | 'failed'; readonly reason: string }
)

/** The whole run; what bench/results.json holds. */
export interface Results {
  /** Day, in UTC. */
  readonly date: string
  readonly machine: Machine
  /** Whether it was a run with a tenth of the data, whose figures say nothing. */
  readonly isQuick: boolean
  /** Runs of each command, at least. */
  readonly pairs: number
  /** How long each case was measured, at least. */
  readonly caseSeconds: number
  readonly cases: readonly CaseResult[]
  readonly growth?: { readonly data: readonly GrowthPoint[]; readonly disk: readonly GrowthPoint[] }
  readonly reads?: readonly ReadRate[]
  readonly ways?: readonly Way[]
}

/** The result of a case that ran. */
export function measured(
  { name, title, rivalTitle, goals }: Case,
  { ours, rival }: { ours: Series; rival: Series },
): CaseResult & { kind: 'measured' } {
  const figures = goals.map((goal) => {
    const value = valueOf(goal.figure, ours, rival)
    return { ...goal, value, verdict: judge(value, goal) }
  })
  return { kind: 'measured', name, title, rivalTitle, ours, rival, figures }
}

/** The highest peak of our memory in all that was measured; undefined if nothing was. */
export function peakMemory({ cases, reads = [], ways = [], growth }: Results): {
  title: string
  bytes: number
  verdict: Verdict
} {
  const peaks = [
    ...cases.flatMap((one) => (one.kind === 'measured' ? [{ title: one.title, bytes: one.ours.peakBytes }] : [])),
    ...[...(growth?.data ?? []), ...(growth?.disk ?? [])].map(({ ours }) => ({
      title: 'growth',
      bytes: ours.peakBytes,
    })),
    ...reads.map(({ title, peakBytes }) => ({ title, bytes: peakBytes })),
    ...ways.flatMap((way) => ('ours' in way ? [{ title: way.title, bytes: way.ours.peakBytes }] : [])),
  ]
  const highest = peaks.reduce((a, b) => (b.bytes > a.bytes ? b : a), { title: 'nothing measured', bytes: 0 })
  return { ...highest, verdict: memoryVerdict(highest.bytes) }
}

/** How good a peak of memory is, in bytes. */
export function memoryVerdict(bytes: number): Verdict {
  return bytes <= MEMORY_GOAL.aim ? 'aim' : bytes <= MEMORY_GOAL.bar ? 'bar' : 'below'
}

/** Everything that is below its bar or did not run as it should, one line each. */
export function shortfalls(results: Results): string[] {
  const lines: string[] = []
  for (const one of results.cases) {
    if (one.kind !== 'measured') {
      lines.push(`${one.name}: ${one.kind}: ${one.reason}`)
    } else {
      for (const judged of one.figures.filter(({ verdict }) => verdict === 'below')) {
        lines.push(
          `${one.name}: ${FIGURES[judged.figure].title} ${showValue(judged)}, bar ${showGoal(judged, judged.bar)}`,
        )
      }
      if (memoryVerdict(one.ours.peakBytes) === 'below') {
        lines.push(`${one.name}: peak RSS ${showBytes(one.ours.peakBytes)}, bar ≤ ${showBytes(MEMORY_GOAL.bar)}`)
      }
    }
  }
  for (const way of results.ways ?? []) {
    if ('reason' in way) {
      lines.push(`${way.title}: left out: ${way.reason}`)
    }
  }
  const peak = peakMemory({ ...results, cases: [] })
  if (peak.verdict === 'below') {
    lines.push(`${peak.title}: peak RSS ${showBytes(peak.bytes)}, bar ≤ ${showBytes(MEMORY_GOAL.bar)}`)
  }
  return lines
}

/** What a figure is called, and which way is good. */
export const FIGURES: Readonly<Record<Figure, { title: string; sign: '≥' | '≤' }>> = {
  speed: { title: 'speed', sign: '≥' },
  time: { title: 'time', sign: '≤' },
  user: { title: 'user CPU', sign: '≤' },
  extra: { title: 'extra', sign: '≤' },
}

const showNumber = (figure: Figure, value: number): string =>
  figure === 'extra' ? `${value < 0 ? '−' : '+'}${Math.abs(Math.round(value * 1000))} ms` : `${value.toFixed(2)} ×`

/** A value with its unit. */
export const showValue = ({ figure, value }: Judged): string => showNumber(figure, value)

/** A goal: which way, how far. */
export const showGoal = ({ figure }: Goal, value: number): string =>
  `${FIGURES[figure].sign} ${showNumber(figure, value)}`

/** Seconds with three digits or so. */
export const showSeconds = (seconds: number): string => `${seconds.toFixed(seconds < 1 ? 3 : 2)} s`

/** Memory. */
export const showBytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`

/** How often things were run, as in "best of ...". */
export const showPairs = ({ pairs, caseSeconds }: Results): string =>
  `${pairs} pairs${caseSeconds > 0 ? ` and as many more as ${caseSeconds} s hold` : ''}`
