/**
 * Runs whole processes and measures them: wall clock, CPU time and peak memory, in pairs.
 *
 * Knows nothing of images. Invariant: an output exists neither before a run nor after it, and no figure comes from a
 * run that failed.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { UsedMemory } from './memory.js'
import { BenchError, TIME } from './tools.js'

/** A process to measure. */
export interface Command {
  readonly words: readonly string[]
  /** The file that it writes; removed before and after each run. */
  readonly output?: string
}

/** What one run took. User and system time include the children that the process waited for. */
export interface Sample {
  readonly wallSeconds: number
  readonly userSeconds: number
  readonly systemSeconds: number
  /** Of the largest process, if there were several. */
  readonly peakBytes: number
  /** Pages that the system had to supply, or to map, when they were first touched. */
  readonly pageFaults: number
}

/** What all runs of a command took. */
export interface Series {
  /** The run with the shortest wall time. */
  readonly best: Sample
  readonly medianSeconds: number
  /** The least of all runs: the best one by the wall need not be the best one by the CPU. */
  readonly userSeconds: number
  /** The most of all runs. */
  readonly peakBytes: number
  readonly samples: readonly Sample[]
}

const LIMIT = '15m'

/** Runs whole processes, one at a time; keeps its notes in a folder. */
export class Stopwatch {
  readonly #notes: string
  readonly #memory: UsedMemory
  readonly #environment: NodeJS.ProcessEnv

  constructor(folder: string) {
    this.#notes = join(folder, 'time.txt')
    this.#memory = new UsedMemory(folder)
    this.#environment = { ...process.env, LC_ALL: 'C' }
    // What makes a Node process start faster or slower than the user's own.
    for (const name of ['NODE_OPTIONS', 'NODE_COMPILE_CACHE', 'NODE_V8_COVERAGE', 'NODE_EXTRA_CA_CERTS']) {
      Reflect.deleteProperty(this.#environment, name)
    }
  }

  /** Runs a command once; its output file stays. @throws {BenchError} if it fails. */
  run({ words, output }: Command): { sample: Sample; printed: string } {
    remove(output)
    this.#memory.fill()
    const started = performance.now()
    const { status, error, stdout, stderr } = spawnSync(
      TIME,
      ['--quiet', '--format=%U %S %M %R', `--output=${this.#notes}`, 'timeout', '--foreground', LIMIT, ...words],
      { env: this.#environment, stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' },
    )
    // GNU time rounds the wall clock to 10 ms, which is too coarse for the start of a process.
    const wallSeconds = Math.round((performance.now() - started) * 100) / 1e5
    if (error !== undefined || status !== 0) {
      remove(output)
      const reason = status === 124 ? `took longer than ${LIMIT}` : (error?.message ?? stderr.trim())
      throw new BenchError(`${words.join(' ')} failed (${status ?? 'killed'}): ${reason}`)
    }
    const [userSeconds, systemSeconds, peakKiB, pageFaults] = readFileSync(this.#notes, 'utf8')
      .trim()
      .split(' ')
      .map(Number)
    const sample = {
      wallSeconds,
      userSeconds: userSeconds!,
      systemSeconds: systemSeconds!,
      peakBytes: peakKiB! * 1024,
      pageFaults: pageFaults!,
    }
    return { sample, printed: stdout }
  }

  /**
   * Runs two commands in turn, after one warm-up of each: `count` times, and more often until `seconds` have passed. How
   * often is thus settled by the clock, and by no figure.
   *
   * @throws {BenchError} if one fails.
   */
  pairs(ours: Command, rival: Command, count: number, seconds = 0): { ours: Series; rival: Series } {
    const samples: [Sample[], Sample[]] = [[], []]
    const end = performance.now() + seconds * 1000
    for (let turn = 0; turn <= count || performance.now() < end; turn++) {
      for (const [index, command] of [ours, rival].entries()) {
        const { sample } = this.run(command)
        remove(command.output)
        if (turn > 0) {
          samples[index]!.push(sample)
        }
      }
    }
    return { ours: seriesOf(samples[0]), rival: seriesOf(samples[1]) }
  }
}

/** Best, median and extremes of runs, of which there is at least one. */
export function seriesOf(samples: readonly Sample[]): Series {
  return {
    best: samples.reduce((best, sample) => (sample.wallSeconds < best.wallSeconds ? sample : best)),
    medianSeconds: median(samples.map(({ wallSeconds }) => wallSeconds)),
    userSeconds: Math.min(...samples.map(({ userSeconds }) => userSeconds)),
    peakBytes: Math.max(...samples.map(({ peakBytes }) => peakBytes)),
    samples,
  }
}

/** The middle one; between the two middle ones of an even number. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const half = (sorted.length - 1) / 2
  return (sorted[Math.floor(half)]! + sorted[Math.ceil(half)]!) / 2
}

function remove(output: string | undefined): void {
  if (output !== undefined) {
    rmSync(output, { force: true })
  }
}
