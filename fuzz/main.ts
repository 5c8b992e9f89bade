/**
 * `npm run fuzz`: changes valid images and looks whether they give data equal to qemu-img's, or an error of ours.
 *
 * Each mutant is read in a process of several, so that one that hangs or crashes is found out. Exit codes: 0 no findings,
 * 1 findings (the mutants are kept), 2 cannot run.
 */
import { fork, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { makeMutant } from './mutate.js'
import type { Report, WorkerOptions } from './worker.js'

const USAGE = `Usage: npm run fuzz -- [--seed N] [--count M] [--first K] [--no-qemu] [--command-every E]

  --seed N           which mutants [default: 1]
  --count M          how many [default: 1000]
  --first K          number of the first one, to see one again [default: 0]
  --no-qemu          do not compare with qemu-img, which takes most of the time
  --command-every E  run the built command on every E-th mutant as well [default: 20]
`

const MUTANT_MILLISECONDS = 60_000
const say = (line: string): void => void process.stdout.write(`${line}\n`)

interface Request extends Omit<WorkerOptions, 'folder'> {
  readonly first: number
  readonly count: number
}

function readRequest(): Request {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string', default: '1' },
      count: { type: 'string', default: '1000' },
      first: { type: 'string', default: '0' },
      'command-every': { type: 'string', default: '20' },
      'no-qemu': { type: 'boolean', default: false },
    },
  })
  const numberOf = (name: 'seed' | 'count' | 'first' | 'command-every'): number => {
    if (!/^\d{1,9}$/.test(values[name])) {
      throw new Error(`--${name}: found ${values[name]}, allowed is a number`)
    }
    return Number(values[name])
  }
  const withQemu = !values['no-qemu']
  if (withQemu && spawnSync('qemu-img', ['--version']).status !== 0) {
    throw new Error('qemu-img is not found; on Debian: apt-get install qemu-utils. --no-qemu does without')
  }
  const commandEvery = Math.max(1, numberOf('command-every'))
  return { seed: numberOf('seed'), count: numberOf('count'), first: numberOf('first'), commandEvery, withQemu }
}

/** Counts what was found, and keeps what should not have been. */
class Tally {
  readonly #counts = new Map<string, number>()
  readonly #kept = mkdtempSync(join(tmpdir(), 'qcow2-findings-'))
  findings = 0
  peakBytes = 0

  constructor(private readonly seed: number) {}

  add({ mutant, verdict, rssBytes }: Report): void {
    const { outcome, detail, finding } = verdict
    const key = detail === '' ? outcome : `${outcome}: ${detail}`
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1)
    this.peakBytes = Math.max(this.peakBytes, rssBytes)
    if (finding !== undefined) {
      this.findings++
      const path = join(this.#kept, `${this.seed}-${mutant}.qcow2`)
      const { subject, bytes, changes } = makeMutant(this.seed, mutant)
      writeFileSync(path, bytes)
      say(`FINDING in mutant ${mutant} of "${subject.title}" (${changes.join('; ')}): ${finding}\n  kept as ${path}`)
    }
  }

  print(): void {
    for (const [key, count] of [...this.#counts].sort(([, a], [, b]) => b - a)) {
      say(`${String(count).padStart(8)}  ${key}`)
    }
    if (this.findings === 0) {
      rmSync(this.#kept, { recursive: true })
    }
  }
}

/** Hands the numbers out to processes, and replaces those that do not answer. */
async function runAll({ first, count, ...options }: Request, folder: string, tally: Tally): Promise<void> {
  let next = first
  const end = first + count
  const runOne = async (lane: number): Promise<void> => {
    let child = start(lane)
    while (next < end) {
      const mutant = next++
      const report = await ask(child, mutant)
      if (typeof report === 'string') {
        child.kill('SIGKILL')
        child = start(lane)
        const verdict = { outcome: 'not compared', detail: report, finding: report } as const
        tally.add({ mutant, verdict, rssBytes: 0 })
      } else {
        tally.add(report)
      }
    }
    child.disconnect()
  }
  const start = (lane: number): ChildProcess => {
    const own = join(folder, String(lane))
    mkdirSync(own, { recursive: true })
    return fork(join(import.meta.dirname, 'worker.js'), [JSON.stringify({ ...options, folder: own })])
  }
  await Promise.all(Array.from({ length: availableParallelism() }, (_, lane) => runOne(lane)))
}

/** The report on a mutant, or why there is none. */
function ask(child: ChildProcess, mutant: number): Promise<Report | string> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      settle('hangs')
    }, MUTANT_MILLISECONDS)
    const settle = (result: Report | string): void => {
      clearTimeout(timer)
      child.removeAllListeners()
      resolve(result)
    }
    child.once('message', (report) => {
      settle(report as Report)
    })
    child.once('exit', (code, signal) => {
      settle(`the process ended (${code ?? signal})`)
    })
    child.send(mutant)
  })
}

async function main(): Promise<void> {
  let request: Request
  try {
    request = readRequest()
  } catch (error) {
    say(`${(error as Error).message}\n${USAGE}`)
    process.exitCode = 2
    return
  }
  const folder = mkdtempSync(join(tmpdir(), 'qcow2-fuzz-'))
  const tally = new Tally(request.seed)
  const started = performance.now()
  try {
    await runAll(request, folder, tally)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  tally.print()
  const seconds = (performance.now() - started) / 1000
  say(
    `${request.count} mutants of seed ${request.seed} in ${seconds.toFixed(0)} s, at most ${Math.round(tally.peakBytes / 2 ** 20)} MiB, ` +
      `${tally.findings} findings`,
  )
  process.exitCode = tally.findings === 0 ? 0 : 1
}

await main()
