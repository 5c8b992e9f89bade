/**
 * Finds out what an output is before anything is created or opened for writing.
 *
 * Invariant: looks, and changes nothing.
 */
import { fstat, type BigIntStats } from 'node:fs'
import { lstat, readlink, realpath, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { promisify } from 'node:util'
import { fileURLToPath } from 'node:url'
import { Qcow2UsageError, quoteText } from '../errors.js'
import { identityOf } from '../source/file.js'
import { outputExists } from './atomic-file.js'
import { createError } from './sink-error.js'

/** Where converted bytes go: a path, a `file:` URL, or an open file descriptor that is written to in order. */
export type Qcow2Output = string | URL | number

/** What was found. */
export type FoundOutput =
  | {
      readonly kind: 'file'
      /** Of the file itself, links resolved. */
      readonly path: string
      readonly identity: string | undefined
      readonly mode: number | undefined
    }
  /** A block device, which is written where it stands. */
  | { readonly kind: 'device'; readonly path: string; readonly identity: string }
  | { readonly kind: 'sequential'; readonly place: string | number; readonly identity: string }

const DESCRIPTOR_PATH = /^(?:\/dev\/(?:stdout|stderr|fd\/\d+)|\/proc\/self\/fd\/\d+)$/

/**
 * What the output is.
 *
 * @param force Whether an existing file may be replaced, and a block device overwritten.
 * @throws {Qcow2UsageError} `ERR_QCOW2_OUTPUT_EXISTS`, `ERR_QCOW2_UNSUPPORTED_OUTPUT`, `ERR_QCOW2_BAD_ARGUMENT`
 * @throws {Qcow2SinkError} `ERR_QCOW2_CREATE_FAILED`
 */
export async function findOutput(output: Qcow2Output, force: boolean): Promise<FoundOutput> {
  const place = placeOf(output)
  if (typeof place === 'number') {
    const name = `file descriptor ${place}`
    const stats = await promisify(fstat)(place, { bigint: true }).catch((cause: unknown) => {
      throw createError(name, cause)
    })
    if (!stats.isFile() && !stats.isSocket() && !isSequential(stats)) {
      throw unsupported(name, stats)
    }
    return { kind: 'sequential', place, identity: identityOf(stats) }
  }
  let stats: BigIntStats
  try {
    stats = await stat(place, { bigint: true })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw createError(place, error)
    }
    if (/[/\\]$/.test(place)) {
      throw createError(place, new Error('there is no such folder, and the name of a file does not end so'))
    }
    await refuseDanglingLink(place)
    // Found out before an image is fetched, rather than when there is something to write.
    await stat(dirname(place)).catch((cause: unknown) => {
      throw createError(place, cause)
    })
    return { kind: 'file', path: place, identity: undefined, mode: undefined }
  }
  if (stats.isFile()) {
    if (!force) {
      throw outputExists(place)
    }
    return { kind: 'file', path: await realpath(place), identity: identityOf(stats), mode: Number(stats.mode) }
  }
  if (isSequential(stats)) {
    refuseRawDisk(place)
    return { kind: 'sequential', place, identity: identityOf(stats) }
  }
  if (stats.isBlockDevice()) {
    if (!force) {
      throw new Qcow2UsageError('ERR_QCOW2_OUTPUT_EXISTS', 'is a block device; the option force overwrites it', {
        layer: place,
        field: 'force',
      })
    }
    return { kind: 'device', path: place, identity: identityOf(stats) }
  }
  throw unsupported(place, stats)
}

/** The identity of what is at a path; undefined if nothing is. */
export async function identityOfPath(path: string): Promise<string | undefined> {
  const stats = await stat(path, { bigint: true }).catch(() => undefined)
  return stats === undefined ? undefined : identityOf(stats)
}

const isSequential = (stats: BigIntStats): boolean => stats.isFIFO() || stats.isCharacterDevice()

/** To macOS, each disk is a character device as well, which takes whole sectors only and is none to whoever asks what it is. */
function refuseRawDisk(path: string): void {
  const [, name] = /^\/dev\/r(disk\d.*)$/.exec(resolve(path)) ?? []
  if (process.platform === 'darwin' && name !== undefined) {
    throw new Qcow2UsageError('ERR_QCOW2_UNSUPPORTED_OUTPUT', `is a disk without a buffer; write to /dev/${name}`, {
      layer: path,
      field: 'output',
    })
  }
}

function unsupported(layer: string, stats: BigIntStats): Qcow2UsageError {
  const kind = stats.isDirectory() ? 'a folder' : stats.isBlockDevice() ? 'a block device' : 'not a file'
  return new Qcow2UsageError(
    'ERR_QCOW2_UNSUPPORTED_OUTPUT',
    `is ${kind}; an output is a file, a FIFO, a character device or, by its path, a block device`,
    { layer, field: 'output' },
  )
}

function placeOf(output: Qcow2Output): string | number {
  if (typeof output === 'number' && Number.isInteger(output) && output >= 0) {
    return output
  }
  const path = output instanceof URL ? pathOfUrl(output) : output
  if (typeof path === 'string' && path !== '' && !path.includes('\0')) {
    return DESCRIPTOR_PATH.test(path) ? descriptorOf(path) : path
  }
  throw new Qcow2UsageError(
    'ERR_QCOW2_BAD_ARGUMENT',
    `output: found ${quoteText(String(output))}, allowed are a path, a file: URL and a file descriptor`,
    { field: 'output', actual: output },
  )
}

function pathOfUrl(url: URL): string | undefined {
  try {
    return fileURLToPath(url)
  } catch {
    return undefined
  }
}

/** The descriptor itself: opening its path would start at the beginning of a file that has been written to. */
function descriptorOf(path: string): number {
  if (path.endsWith('stdout')) {
    return 1
  }
  return path.endsWith('stderr') ? 2 : Number(path.slice(path.lastIndexOf('/') + 1))
}

async function refuseDanglingLink(path: string): Promise<void> {
  const stats = await lstat(path).catch(() => undefined)
  if (stats?.isSymbolicLink() === true) {
    const target = await readlink(path)
    throw new Qcow2UsageError(
      'ERR_QCOW2_UNSUPPORTED_OUTPUT',
      `is a symbolic link to ${quoteText(target)}, which does not exist`,
      {
        layer: path,
        field: 'output',
      },
    )
  }
}
