/**
 * `npm run bench`: makes what is missing, measures case after case, reports, and with --check judges.
 *
 * Exit codes: 0 done (and, with --check, everything measured and nothing below its bar), 1 below a bar, left out or wrong bytes,
 * 2 cannot run.
 */
import { mkdirSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { buildCase, CASE_NAMES, type Case } from './cases.js'
import { findNode24, ours, oursUnlocking } from './commands.js'
import { growthImages, measureGrowth, measureReads, READ_IMAGES } from './extras.js'
import { FULL, Images, QUICK, type ImageName } from './images.js'
import { describeMachine } from './machine.js'
import { Stopwatch } from './measure.js'
import { printReport, writeReport } from './report.js'
import { measured, shortfalls, showValue, type CaseResult, type Results } from './results.js'
import { BenchError, requireTools, say } from './tools.js'
import { verify } from './verify.js'
import { measureWays, WAY_IMAGES } from './ways.js'

const EXTRAS = ['growth', 'reads', 'ways'] as const
const PAIRS = 5
// Nobody is raced here; what counts is the peak of the memory.
const MOST_WAY_RUNS = 3
// Of each case, unless the number of pairs is asked for: best against best needs more runs the shorter they are.
const CASE_SECONDS = 60
// What the bars hold for.
const BARS_NODE = '20'
const BARS_CORES = 2
const NAMES: readonly string[] = [...CASE_NAMES, ...EXTRAS]
const USAGE = `Usage: npm run bench -- [--check] [--only NAME[,NAME]] [--pairs N] [--images DIR] [--quick]

  --check        only what has a bar, after outputs were compared with qemu-img's; exit 1 if bytes
                 differ, something fails or cannot be measured, or a figure is below its bar; writes no files
  --only NAME    only these, and with --check a verdict on nothing else: cases (all that have a bar),
                 ${NAMES.join(', ')};
                 all of them is "all", which writes the files, with --check as well
  --pairs N      runs of each command [default: 5, and as many more as a minute holds for each case];
                 with --check at least 5
  --images DIR   where images and outputs go, up to 25 GiB [default: ${join(tmpdir(), 'qcow2-bench')}]
  --quick        a tenth of the data: shows that the benchmark works, the figures say nothing; writes no files
`

interface Request {
  readonly isCheck: boolean
  readonly isQuick: boolean
  readonly isWhole: boolean
  readonly names: ReadonlySet<string>
  readonly pairs: number
  /** How long each case is measured, at least. */
  readonly caseSeconds: number
  readonly folder: string
}

function readRequest(): Request | undefined {
  const options = {
    check: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true },
    pairs: { type: 'string' },
    images: { type: 'string', default: join(tmpdir(), 'qcow2-bench') },
  } as const
  let values
  try {
    values = parseArgs({ options }).values
  } catch (error) {
    throw new BenchError(`${(error as Error).message}\n${USAGE}`)
  }
  const { check, quick, help, only, pairs = String(PAIRS), images } = values
  if (help) {
    return undefined
  }
  const named = only?.flatMap((word) => word.split(',')) ?? (check ? [...CASE_NAMES, 'ways'] : NAMES)
  const names = new Set(named.flatMap((name) => (name === 'cases' ? CASE_NAMES : name === 'all' ? NAMES : [name])))
  const unknown = [...names].filter((name) => !NAMES.includes(name))
  if (unknown.length > 0) {
    throw new BenchError(`there is no ${unknown.join(', ')}; there are all, cases, ${NAMES.join(', ')}`)
  }
  if (!/^[1-9]\d{0,2}$/.test(pairs)) {
    throw new BenchError(`--pairs: found ${pairs}, allowed is a number from 1 to 999`)
  }
  if (check) {
    refuseWeakCheck(quick, Number(pairs))
  }
  const folder = resolve(images)
  return {
    isCheck: check,
    isQuick: quick,
    isWhole: NAMES.every((name) => names.has(name)) && !quick,
    names,
    pairs: Number(pairs),
    caseSeconds: values.pairs === undefined && !quick ? CASE_SECONDS : 0,
    folder,
  }
}

/** @throws {BenchError} if passing would not mean that the bars are reached. */
function refuseWeakCheck(isQuick: boolean, pairs: number): void {
  const [major] = process.versions.node.split('.')
  if (isQuick) {
    throw new BenchError('--check: the figures of --quick say nothing')
  }
  if (pairs < PAIRS) {
    throw new BenchError(`--check: found --pairs ${pairs}, allowed is ${PAIRS} or more`)
  }
  if (major !== BARS_NODE) {
    throw new BenchError(`--check: this is Node ${major!}, the bars hold for Node ${BARS_NODE}`)
  }
  const cores = availableParallelism()
  if (cores !== BARS_CORES) {
    throw new BenchError(`--check: there are ${cores} cores, the bars hold for ${BARS_CORES} (taskset -c 0,1)`)
  }
}

function measureAll(request: Request): { results: Results; wrong: readonly string[] } {
  const { isCheck, isQuick, names, pairs, caseSeconds, folder } = request
  const scale = isQuick ? QUICK : FULL
  const images = new Images(folder, scale)
  const stopwatch = new Stopwatch(folder)
  const cases = CASE_NAMES.filter((name) => names.has(name)).map((name) => buildCase(name, images, folder))
  for (const { title, obstacle } of cases) {
    if (obstacle !== undefined) {
      say(`SKIPPED: ${title}: ${obstacle}`)
    }
  }
  const runnable = cases.filter(({ obstacle }) => obstacle === undefined)
  const growing = names.has('growth') ? growthImages(scale) : []
  const needed = [...new Set([...runnable.flatMap((one) => one.images), ...growing])]
  images.make([...needed, ...(names.has('reads') ? READ_IMAGES : []), ...(names.has('ways') ? WAY_IMAGES : [])])

  const node24 = names.has('zstd-node24') ? findNode24(folder) : { reason: 'not asked for' }
  const node = 'node' in node24 ? node24.node : undefined
  const output = join(folder, 'output.raw')
  const command = (name: ImageName, engine?: string): Parameters<typeof verify>[0][number] => {
    const image = images.pathOf(name)
    if (name === 'luks') {
      const secret = images.secretPath
      return { name, image, ours: oursUnlocking(image, secret, output), secret }
    }
    return { name: engine === undefined ? name : `${name}, Node 24`, image, ours: ours(image, output, engine) }
  }
  const toVerify = [
    ...needed.map((name) => command(name)),
    ...(node === undefined || node === process.execPath ? [] : [command('zstd', node)]),
  ]
  const wrong = isCheck ? verify(toVerify) : []

  const results = {
    date: new Date().toISOString().slice(0, 10),
    machine: describeMachine(node),
    isQuick,
    pairs,
    caseSeconds,
    cases: cases.map((one) => runCase(one, stopwatch, pairs, caseSeconds)),
    ...(names.has('growth') ? { growth: measureGrowth(images, scale, folder, stopwatch, pairs) } : {}),
    ...(names.has('reads') ? { reads: measureReads(images, stopwatch, pairs) } : {}),
    ...(names.has('ways')
      ? { ways: measureWays(images, scale, folder, stopwatch, Math.min(pairs, MOST_WAY_RUNS)) }
      : {}),
  }
  return { results, wrong }
}

/** Measures a case; one that fails does not keep the others from running. */
function runCase(one: Case, stopwatch: Stopwatch, pairs: number, seconds: number): CaseResult {
  const { name, title, obstacle } = one
  if (obstacle !== undefined) {
    return { kind: 'skipped', name, title, reason: obstacle }
  }
  say(title)
  try {
    const result = measured(one, stopwatch.pairs(one.ours, one.rival, pairs, seconds))
    say(`  ${result.figures.map(showValue).join(', ')} (${result.ours.samples.length} pairs)`)
    return result
  } catch (error) {
    if (!(error instanceof BenchError)) {
      throw error
    }
    say(`FAILED: ${title}: ${error.message}`)
    return { kind: 'failed', name, title, reason: 'see the console' }
  }
}

async function main(): Promise<void> {
  const request = readRequest()
  if (request === undefined) {
    say(USAGE)
    return
  }
  requireTools()
  mkdirSync(request.folder, { recursive: true })
  say(`images and outputs are in ${request.folder}`)
  const { results, wrong } = measureAll(request)
  printReport(results)
  if (request.isWhole) {
    await writeReport(results)
  }
  const lines = [...wrong, ...shortfalls(results)]
  say('')
  say(
    lines.length === 0
      ? 'Nothing is below its bar.'
      : `Not good enough:\n${lines.map((line) => `  ${line}`).join('\n')}`,
  )
  if (request.isCheck && lines.length > 0) {
    process.exitCode = 1
  }
}

try {
  await main()
} catch (error) {
  if (!(error instanceof BenchError)) {
    throw error
  }
  process.stderr.write(`bench: ${error.message}\n`)
  process.exitCode = 2
}
