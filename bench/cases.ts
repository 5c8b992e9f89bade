/**
 * What is measured and how good it has to be: each case, its two commands, its figures with their bars and aims.
 *
 * Runs nothing. Invariant: a bar is what must hold, an aim what would be good; both for two cores.
 */
import { join } from 'node:path'
import * as commands from './commands.js'
import type { ImageName, Images } from './images.js'
import type { Command, Series } from './measure.js'
import { missingTools } from './tools.js'

/**
 * A number that says how we compare:
 *
 * - `speed`: the rival's best wall time over ours, at least;
 * - `time`: our best wall time over the rival's, at most;
 * - `user`: our user CPU time over the rival's, at most;
 * - `extra`: seconds of our best wall time beyond the rival's, at most.
 */
export type Figure = 'speed' | 'time' | 'user' | 'extra'

/** How good a figure has to be. */
export interface Goal {
  readonly figure: Figure
  readonly bar: number
  readonly aim?: number
}

/** Two processes to compare. */
export interface Case {
  readonly name: string
  readonly title: string
  readonly images: readonly ImageName[]
  readonly ours: Command
  readonly rival: Command
  /** What the rival is, in the table. */
  readonly rivalTitle: string
  readonly goals: readonly Goal[]
  /** Why it cannot be run here. */
  readonly obstacle?: string
}

/** The peak of our memory, in every case. */
export const MEMORY_GOAL = { bar: 200 * 2 ** 20, aim: 120 * 2 ** 20 }

const QEMU = 'qemu-img convert -W'

/** The names of all cases, in the order of the table. */
export const CASE_NAMES = [
  'zlib',
  'zlib-2m',
  'zlib-4k',
  'zstd',
  'zstd-node24',
  'plain',
  'chain',
  'luks',
  'preallocated',
  'empty',
  'start-up',
  'stdout',
  'for-await',
] as const

/** One of them. */
export type CaseName = (typeof CASE_NAMES)[number]

/**
 * A case, ready to run once its images are made.
 *
 * @param folder Where the images of all scales and Node 24 are.
 */
export function buildCase(name: CaseName, images: Images, folder: string): Case {
  const pathOf = (image: ImageName): string => images.pathOf(image)
  const output = join(folder, 'output.raw')
  const major = process.versions.node.split('.')[0]!
  const against = (image: ImageName, title: string, goals: readonly Goal[], node?: string): Case => ({
    name,
    title,
    images: [image],
    ours: commands.ours(pathOf(image), output, node),
    rival: commands.qemuImg(pathOf(image), output),
    rivalTitle: QEMU,
    goals,
  })
  const beyondStart = (image: ImageName, title: string): Case => ({
    ...against(image, title, [{ figure: 'extra', bar: 0.5, aim: 0.1 }]),
    images: [image, 'one-cluster'],
    rival: commands.ours(pathOf('one-cluster'), output),
    rivalTitle: 'ours, one-cluster image',
  })

  switch (name) {
    case 'zlib':
      return against('zlib', 'zlib, 64 KiB clusters', [
        { figure: 'speed', bar: 1.3, aim: 2 },
        { figure: 'user', bar: 0.75, aim: 0.5 },
      ])
    case 'zlib-2m':
      return against('zlib-2m', 'zlib, 2 MiB clusters', [{ figure: 'speed', bar: 1.2, aim: 1.8 }])
    case 'zlib-4k':
      return against('zlib-4k', 'zlib, 4 KiB clusters', [{ figure: 'speed', bar: 0.9, aim: 1.8 }])
    case 'zstd':
      return against('zstd', `zstd, 64 KiB clusters, Node ${major}`, [{ figure: 'speed', bar: 1.1, aim: 1.6 }])
    case 'zstd-node24': {
      const found = commands.findNode24(folder)
      const node = 'node' in found ? found.node : undefined
      const inNode24 = against('zstd', 'zstd, Node 24', [{ figure: 'speed', bar: 1.1, aim: 1.6 }], node)
      return 'reason' in found ? { ...inNode24, obstacle: found.reason } : inNode24
    }
    case 'plain':
      return against('plain', 'uncompressed', [{ figure: 'speed', bar: 0.9, aim: 1.2 }])
    case 'chain':
      return against('chain', 'backing chain of 3, uncompressed', [{ figure: 'speed', bar: 0.9, aim: 1.2 }])
    case 'luks':
      return {
        ...against('luks', 'uncompressed, LUKS aes-256-xts', [{ figure: 'speed', bar: 1, aim: 1.5 }]),
        ours: commands.oursUnlocking(pathOf('luks'), images.secretPath, output),
        rival: commands.qemuImgUnlocking(pathOf('luks'), images.secretPath, output),
      }
    case 'preallocated':
      return beyondStart('preallocated', '256 GiB, empty, preallocation=metadata')
    case 'empty':
      return beyondStart('empty', '1 TiB, empty')
    case 'start-up':
      return {
        ...against('one-cluster', 'start-up: one-cluster image', [{ figure: 'extra', bar: 0.06, aim: 0.03 }]),
        rival: commands.NOTHING,
        rivalTitle: 'node -e 0',
      }
    case 'stdout':
      return {
        ...against('zlib', 'zlib, through a pipe to cat', [{ figure: 'time', bar: 1.1 }]),
        ours: commands.oursToPipe(pathOf('zlib')),
        rival: commands.ours(pathOf('zlib'), output),
        rivalTitle: 'ours, to a file',
      }
    case 'for-await': {
      const missing = missingTools(['nbdcopy', 'qemu-nbd'])
      return {
        ...against('zlib', 'zlib, for await over the stream', [{ figure: 'speed', bar: 3, aim: 4 }]),
        ours: commands.forAwait('buffers', pathOf('zlib')),
        rival: commands.nbdcopy(pathOf('zlib')),
        rivalTitle: 'qemu-nbd, nbdcopy to a pipe',
        ...(missing === undefined ? {} : { obstacle: missing }),
      }
    }
  }
}

/** The value of a figure. */
export function valueOf(figure: Figure, ours: Series, rival: Series): number {
  switch (figure) {
    case 'speed':
      return rival.best.wallSeconds / ours.best.wallSeconds
    case 'time':
      return ours.best.wallSeconds / rival.best.wallSeconds
    case 'user':
      return ours.userSeconds / rival.userSeconds
    case 'extra':
      return ours.best.wallSeconds - rival.best.wallSeconds
  }
}

/** How good a value is. */
export type Verdict = 'aim' | 'bar' | 'below'

/** Whether a value reaches its bar, and its aim if it has one. */
export function judge(value: number, { figure, bar, aim }: Goal): Verdict {
  const reaches = (goal: number): boolean => (figure === 'speed' ? value >= goal : value <= goal)
  return aim !== undefined && reaches(aim) ? 'aim' : reaches(bar) ? 'bar' : 'below'
}
