/**
 * A regular file that appears under its name only when it is complete.
 *
 * Knows names, not contents. Invariant: until `commit` the target is untouched, and after `discard` the temporary file
 * beside it is gone; one of the two must be called.
 */
import { link, lstat, open, rename, rm, type FileHandle } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Qcow2SinkError, Qcow2UsageError } from '../errors.js'
import { createError, finishError } from './sink-error.js'

let created = 0

/** How the target is treated. */
export interface AtomicFileOptions {
  /** Whether an existing target is replaced. */
  readonly force: boolean
  /** Permissions of the file that is replaced, to be kept; undefined for a new one. */
  readonly mode?: number | undefined
}

export class AtomicFile {
  private constructor(
    readonly handle: FileHandle,
    readonly path: string,
    private readonly temporaryPath: string,
    private readonly force: boolean,
  ) {}

  /** Creates the temporary file. @throws {Qcow2SinkError} `ERR_QCOW2_CREATE_FAILED` */
  static async create(path: string, options: AtomicFileOptions): Promise<AtomicFile> {
    // Opened exclusively, so that the name need not be secret, only new. (Loading node:crypto would take a while.)
    const unique = [process.pid, Date.now(), ++created].map((number) => number.toString(36)).join('-')
    const temporaryPath = join(dirname(path), `.qcow2-${unique}.part`)
    let handle: FileHandle | undefined
    try {
      // Never more permissions than the file that is replaced, not even for a moment.
      // Open for reading as well, for those who compare what was written.
      handle = await open(temporaryPath, 'wx+', (options.mode ?? 0o666) & 0o777)
      if (options.mode !== undefined) {
        await handle.chmod(options.mode & 0o7777)
      }
      return new AtomicFile(handle, path, temporaryPath, options.force)
    } catch (cause) {
      if (handle !== undefined) {
        await handle.close()
        await rm(temporaryPath, { force: true })
      }
      throw createError(path, cause)
    }
  }

  /**
   * Gives the file its name.
   *
   * @param isSynced Whether the file and its folder are on the disk, not in a cache, before this resolves.
   * @throws {Qcow2SinkError} `ERR_QCOW2_WRITE_FAILED`
   * @throws {Qcow2UsageError} `ERR_QCOW2_OUTPUT_EXISTS` if the target has come into being meanwhile
   */
  async commit(isSynced: boolean): Promise<void> {
    try {
      if (isSynced) {
        await this.handle.sync()
      }
      await this.handle.close()
      await (this.force ? rename(this.temporaryPath, this.path) : this.#renameNew())
      if (isSynced) {
        await syncFolder(dirname(this.path))
      }
    } catch (cause) {
      if (cause instanceof Qcow2UsageError || cause instanceof Qcow2SinkError) {
        throw cause
      }
      throw finishError(this.path, 'finishing the file', cause)
    }
  }

  /** Removes the temporary file; the target stays as it was. Does nothing once `commit` has succeeded. */
  async discard(): Promise<void> {
    // Closing waits for the writes under way; what it reports no longer matters.
    await this.handle.close().catch(() => undefined)
    await rm(this.temporaryPath, { force: true })
  }

  /** A hard link cannot replace anything, unlike a rename; not every file system has them. */
  async #renameNew(): Promise<void> {
    try {
      await link(this.temporaryPath, this.path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST' && !(await exists(this.path))) {
        await rename(this.temporaryPath, this.path)
        return
      }
      throw outputExists(this.path)
    }
    await rm(this.temporaryPath)
  }
}

/** That the output exists already. */
export const outputExists = (path: string): Qcow2UsageError =>
  new Qcow2UsageError('ERR_QCOW2_OUTPUT_EXISTS', 'exists already; the option force replaces it', {
    layer: path,
    field: 'force',
  })

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch {
    return false
  }
}

async function syncFolder(path: string): Promise<void> {
  // Windows cannot open a folder to sync it.
  /* c8 ignore next 3 */
  if (process.platform === 'win32') {
    return
  }
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
