/**
 * Files and block devices as sources.
 *
 * Refuses everything else (FIFOs, sockets, directories, character devices) by looking at the open handle, so that
 * nothing can be swapped between the look and the read. Invariant: a handle opened here is closed on every way out.
 */
import { constants, type BigIntStats } from 'node:fs'
import { open, realpath, stat, type FileHandle } from 'node:fs/promises'
import { dirname, isAbsolute, relative, sep } from 'node:path'
import { Qcow2AccessError, Qcow2SourceError, quoteText, reasonOf } from '../errors.js'
import { deviceSize } from './device-size.js'
import { openHoleMap, type HoleMap } from './holes.js'
import { HostFile, type HostFileOrigin, type Qcow2Source } from './source.js'

const STAT_BLOCK_BYTES = 512

// Node 20 ends the process on a read of 2 GiB.
const MAX_READ_BYTES = 2 ** 30

/** Reads from a file handle; closes it only if told that it is its owner. */
class FileSource implements Qcow2Source {
  constructor(
    readonly handle: FileHandle,
    readonly size: number,
    readonly isOwner: boolean,
  ) {}

  async read(target: Uint8Array, offset: number): Promise<number> {
    const { bytesRead } = await this.handle.read(target, 0, Math.min(target.length, MAX_READ_BYTES), offset)
    return bytesRead
  }

  async close(): Promise<void> {
    if (this.isOwner) {
      await this.handle.close()
    }
  }
}

/** What may be opened beside the path itself. */
export interface OpenFileOptions {
  /** If given, the file must lie in this folder or below it after symbolic links are resolved, however it is named. */
  readonly within?: string | undefined
  /** What somebody else named the file as, for the message if it cannot be opened: `the backing file of "a.qcow2"`. */
  readonly role?: string | undefined
}

/**
 * Opens a regular file or a block device for reading.
 *
 * @throws {Qcow2SourceError} `ERR_QCOW2_OPEN_FAILED`, `ERR_QCOW2_NOT_A_FILE`
 * @throws {Qcow2AccessError} `ERR_QCOW2_REFERENCE_REFUSED` if the file is not where `within` allows
 */
export async function openFile(path: string, options: OpenFileOptions = {}): Promise<HostFile> {
  let handle: FileHandle | undefined
  try {
    if (options.within !== undefined) {
      await refuseOutside(path, options.within)
    }
    // Opening a FIFO would otherwise wait for a writer; files and devices do not care. (Absent, hence 0, on Windows.)
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const file = await wrapHandle(handle, path, path, true)
    if (options.within !== undefined) {
      // A link may have been swapped since the look above; what counts is the file that is open now.
      const real = await refuseOutside(path, options.within)
      if (identityOf(await stat(real, { bigint: true })) !== file.identity) {
        throw refusal(path, options.within)
      }
    }
    return file
  } catch (error) {
    await handle?.close()
    if (error instanceof Qcow2SourceError || error instanceof Qcow2AccessError) {
      throw error
    }
    throw openError(path, error, options.role, options.role === undefined && (await lacksScheme(path, error)))
  }
}

/** Whether a path, at which there is nothing, begins like an address without its scheme: `host:8080/`, `example.org/`, `//host/`. */
async function lacksScheme(path: string, cause: unknown): Promise<boolean> {
  const [, host] = /^(\/\/[\w.-]+(?::\d+)?|[\w-]+(?:\.[\w-]+)*:\d+|[\w-]+(?:\.[\w-]+)+)\/[^/]/.exec(path) ?? []
  if (host === undefined || (cause as NodeJS.ErrnoException).code !== 'ENOENT') {
    return false
  }
  try {
    await stat(host)
    return false
  } catch {
    return true
  }
}

function openError(layer: string, cause: unknown, role?: string, isAddress = false): Qcow2SourceError {
  const as = role === undefined ? '' : ` as ${role}`
  const hint = isAddress ? '; addresses begin with http:// or https://' : ''
  const message = `cannot be opened${as}: ${reasonOf(cause)}${hint}`
  return new Qcow2SourceError('ERR_QCOW2_OPEN_FAILED', message, { layer }, cause)
}

/** A handle that stays the caller's: reading does not move its position, closing the image leaves it open. */
export async function fromFileHandle(handle: FileHandle): Promise<HostFile> {
  const label = `file descriptor ${handle.fd}`
  try {
    return await wrapHandle(handle, label, undefined, false)
  } catch (error) {
    throw error instanceof Qcow2SourceError ? error : openError(label, error)
  }
}

/** A temporary file that has no name any more; it is closed with the host file. */
export async function fromOwnHandle(
  handle: FileHandle,
  label: string,
  fetched: HostFileOrigin['fetched'],
): Promise<HostFile> {
  const { size } = await handle.stat()
  return new HostFile(new FileSource(handle, size, true), { label, fetched, leavesMemory: fetched !== undefined })
}

/** The folder that references of an image at `path` may lie in by default: that of the file, not of a link to it. */
export async function realDirectory(path: string): Promise<string> {
  try {
    return dirname(await realpath(path))
  } catch (error) {
    throw openError(path, error)
  }
}

/** One word for each file: its device and inode; for a block device, which may have several inodes, its own number. */
export const identityOf = (stats: Pick<BigIntStats, 'dev' | 'ino' | 'rdev' | 'isBlockDevice'>): string =>
  stats.isBlockDevice() ? `block device ${stats.rdev}` : `${stats.dev}:${stats.ino}`

async function wrapHandle(
  handle: FileHandle,
  label: string,
  path: string | undefined,
  isOwner: boolean,
): Promise<HostFile> {
  const stats = await handle.stat({ bigint: true })
  if (!stats.isFile() && !stats.isBlockDevice()) {
    throw new Qcow2SourceError('ERR_QCOW2_NOT_A_FILE', 'is neither a regular file nor a block device', { layer: label })
  }
  const size = stats.isFile() ? Number(stats.size) : await deviceSize(handle)
  const allocatedBytes = Number(stats.blocks) * STAT_BLOCK_BYTES
  const origin = { label, path, identity: identityOf(stats), allocatedBytes }
  // Asking moves the handle's position, which is the caller's business if the handle is.
  if (!isOwner || !stats.isFile()) {
    return new HostFile(new FileSource(handle, size, isOwner), origin)
  }
  const holes = await openHoleMap(handle.fd, size - allocatedBytes)
  const findHoles = (): Promise<HoleMap | undefined> => openHoleMap(handle.fd, Infinity)
  return new HostFile(new FileSource(handle, size, isOwner), { ...origin, holes, findHoles })
}

/** The real path, if it lies in the folder; whether a file elsewhere exists is nothing that an image may find out. */
async function refuseOutside(path: string, directory: string): Promise<string> {
  let real: string
  try {
    real = await realpath(path)
  } catch (error) {
    const folder = await nearestFolder(path)
    if (folder !== directory && isOutside(folder, directory)) {
      throw refusal(path, directory)
    }
    throw error
  }
  if (isOutside(real, directory)) {
    throw refusal(path, directory)
  }
  return real
}

/** The real path of the nearest folder above a path that exists. */
async function nearestFolder(path: string): Promise<string> {
  const folder = dirname(path)
  try {
    return await realpath(folder)
  } catch (error) {
    if (folder === dirname(folder)) {
      throw error
    }
    return nearestFolder(folder)
  }
}

function isOutside(path: string, directory: string): boolean {
  const inside = relative(directory, path)
  return inside === '' || inside === '..' || inside.startsWith(`..${sep}`) || isAbsolute(inside)
}

function refusal(path: string, directory: string): Qcow2AccessError {
  return new Qcow2AccessError(
    'ERR_QCOW2_REFERENCE_REFUSED',
    `is not opened, as it lies outside the image's folder ${quoteText(directory, 300)}; references: 'any' would allow it`,
    { layer: path, field: 'references', actual: 'same-directory' },
  )
}
