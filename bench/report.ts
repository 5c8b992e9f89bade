/**
 * Results for people: rows on the console, and bench/README.md, bench/results.json and bench/growth.svg.
 *
 * Measures nothing. Invariant: replaces in README.md only what stands between the two markers.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { format, resolveConfig } from 'prettier'
import { MEMORY_GOAL, type Verdict } from './cases.js'
import type { GrowthPoint } from './extras.js'
import { machineLine } from './machine.js'
import type { Sample, Series } from './measure.js'
import { plotGrowth } from './plot.js'
import * as show from './results.js'
import type { CaseResult, Results } from './results.js'
import { BenchError, say } from './tools.js'

const FOLDER = join(import.meta.dirname, '../../bench')
const BEGIN = '<!-- results: begin -->'
const END = '<!-- results: end -->'

type Row = readonly string[]

const CPU_AND_PEAK = 'user + sys, peak RSS'
const HEAD: Row = ['case', 'ours', CPU_AND_PEAK, 'rival', 'its time', CPU_AND_PEAK, 'figure', 'bar', 'aim', 'reaches']
const VERDICTS: Readonly<Record<Verdict, string>> = { aim: 'aim', bar: 'bar', below: '**below**' }

const showWall = ({ best, medianSeconds }: Series): string =>
  `${show.showSeconds(best.wallSeconds)} (${show.showSeconds(medianSeconds)})`
const showCpu = ({ userSeconds, systemSeconds }: Sample): string =>
  `${userSeconds.toFixed(2)} + ${systemSeconds.toFixed(2)} s`
const showCost = ({ best, peakBytes }: Series): string => `${showCpu(best)}, ${show.showBytes(peakBytes)}`

/** The rows of a case: the first figure with everything, each further one alone. */
export function caseRows(result: CaseResult): Row[] {
  if (result.kind !== 'measured') {
    return [[result.title, result.kind, ...Array<string>(8).fill('')]]
  }
  const { title, ours, rival, rivalTitle, figures } = result
  return figures.map((judged, index) => {
    const kind = show.FIGURES[judged.figure].title
    const measured = [showWall(ours), showCost(ours), rivalTitle, showWall(rival), showCost(rival)]
    return [
      ...(index === 0 ? [title, ...measured] : [`the same: ${kind}`, ...measured.map(() => '')]),
      `${kind} ${show.showValue(judged)}`,
      show.showGoal(judged, judged.bar),
      judged.aim === undefined ? '' : show.showGoal(judged, judged.aim),
      VERDICTS[judged.verdict],
    ]
  })
}

function memoryRow(results: Results): Row {
  const { title, bytes, verdict } = show.peakMemory(results)
  const goals = [MEMORY_GOAL.bar, MEMORY_GOAL.aim].map((goal) => `≤ ${show.showBytes(goal)}`)
  const rest = ['', '', '', '', '', `memory ${show.showBytes(bytes)}`, ...goals, VERDICTS[verdict]]
  return [`highest peak RSS of ours: ${title}`, ...rest]
}

/** Prints a table with aligned columns. */
function printTable(rows: readonly Row[]): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  for (const row of rows) {
    say(
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
  }
}

/** Prints everything that was found. */
export function printReport(results: Results): void {
  say('')
  say(machineLine(results.machine))
  say(`best of ${show.showPairs(results)} (median)`)
  say('')
  const rows = [HEAD, ...results.cases.flatMap(caseRows), memoryRow(results)]
  printTable(rows.map((row) => row.map((cell) => cell.replaceAll('*', ''))))
  for (const table of [growthRows(results), readRows(results), wayRows(results)].filter((rows) => rows.length > 0)) {
    say('')
    printTable(table)
  }
}

function growthRows({ growth }: Results): Row[] {
  if (growth === undefined) {
    return []
  }
  const row = (what: string, { bytes, ours, rival }: GrowthPoint): Row => [
    `${showSize(bytes)} of ${what}`,
    showWall(ours),
    showCost(ours),
    showWall(rival),
    showCost(rival),
  ]
  return [
    ['growth', 'ours', CPU_AND_PEAK, 'qemu-img convert -W', CPU_AND_PEAK],
    ...growth.data.map((point) => row('files', point)),
    ...growth.disk.map((point) => row('disk', point)),
  ]
}

function readRows({ reads }: Results): Row[] {
  if (reads === undefined) {
    return []
  }
  return [
    ['library', 'best', 'median', 'peak RSS'],
    ...reads.map(({ title, unit, best, median, peakBytes }) => [
      title,
      `${Math.round(best)} ${unit}`,
      `${Math.round(median)} ${unit}`,
      show.showBytes(peakBytes),
    ]),
  ]
}

function wayRows({ ways }: Results): Row[] {
  if (ways === undefined) {
    return []
  }
  return [
    ['ways in and out, zlib', 'ours', CPU_AND_PEAK],
    ...ways.map((way) =>
      'ours' in way ? [way.title, showWall(way.ours), showCost(way.ours)] : [way.title, 'left out', ''],
    ),
  ]
}

/** Bytes in the largest binary unit that leaves at least one, with a decimal if it needs one. */
export function showSize(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']
  const unit = Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10))
  return `${Number((bytes / 1024 ** unit).toFixed(1))} ${units[unit]!}`
}

const markdown = ([head, ...rows]: readonly Row[]): string =>
  [head!, head!.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')

/** Writes results.json, growth.svg and the tables of README.md. @throws {BenchError} if README.md has lost its markers. */
export async function writeReport(results: Results): Promise<void> {
  const readme = join(FOLDER, 'README.md')
  const text = readFileSync(readme, 'utf8')
  const [before, after] = [text.indexOf(BEGIN), text.indexOf(END)]
  if (before < 0 || after < before) {
    throw new BenchError(`bench/README.md has no ${BEGIN} and ${END} around its tables`)
  }
  const parts = [
    `${results.date}; ${machineLine(results.machine)}; best of ${show.showPairs(results)}, in brackets the median.`,
    ...(results.isQuick ? ['**Made with `--quick`, a tenth of the data: these figures say nothing.**'] : []),
    markdown([HEAD, ...results.cases.flatMap(caseRows), memoryRow(results)]),
    ...(results.growth === undefined ? [] : [markdown(growthRows(results)), '![Growth](growth.svg)']),
    ...(results.reads === undefined ? [] : [markdown(readRows(results))]),
    ...(results.ways === undefined ? [] : [markdown(wayRows(results))]),
  ]
  const whole = `${text.slice(0, before)}${BEGIN}\n\n${parts.join('\n\n')}\n\n${text.slice(after)}`
  await writePretty(readme, whole)
  await writePretty(join(FOLDER, 'results.json'), JSON.stringify(results))
  if (results.growth !== undefined) {
    writeFileSync(join(FOLDER, 'growth.svg'), plotGrowth(results.growth))
  }
}

async function writePretty(path: string, text: string): Promise<void> {
  writeFileSync(path, await format(text, { ...(await resolveConfig(path)), filepath: path }))
}
