/**
 * A block device that is written where it stands: nothing is created, renamed or made longer.
 *
 * Knows devices, not contents. Invariant: what is handed out is the device that was looked at, nobody else is using it
 * (on Linux), and it has room; `close` must be called.
 */
import { constants } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { Qcow2UsageError } from '../errors.js'
import { deviceSize } from '../source/device-size.js'
import { identityOf } from '../source/file.js'
import { finishError, openError } from './sink-error.js'

// On Linux, without O_CREAT: refuses a device that is mounted, has a partition that is, or is part of a RAID or a volume
// group, and keeps others from mounting it meanwhile. Elsewhere that combination means nothing that could be relied on.
/* c8 ignore next */
const EXCLUSIVE = process.platform === 'linux' ? constants.O_EXCL : 0

/** What the device has to be. */
export interface BlockDeviceOptions {
  /** As it was found: another file may have its name by now. */
  readonly identity: string
  /** Bytes that will be written from its beginning on. */
  readonly length: number
}

export class BlockDevice {
  private constructor(
    readonly handle: FileHandle,
    readonly path: string,
  ) {}

  /**
   * Opens the device; nothing is written yet.
   *
   * @throws {Qcow2SinkError} `ERR_QCOW2_CREATE_FAILED`, also if it is in use
   * @throws {Qcow2UsageError} `ERR_QCOW2_OUTPUT_TOO_SMALL`, `ERR_QCOW2_UNSUPPORTED_OUTPUT` if it is no longer what it was
   */
  static async open(path: string, { identity, length }: BlockDeviceOptions): Promise<BlockDevice> {
    let handle: FileHandle | undefined
    try {
      // Its size is found by reading.
      handle = await open(path, constants.O_RDWR | EXCLUSIVE)
      if (identityOf(await handle.stat({ bigint: true })) !== identity) {
        throw new Qcow2UsageError('ERR_QCOW2_UNSUPPORTED_OUTPUT', 'was replaced by another file or device meanwhile', {
          layer: path,
          field: 'output',
        })
      }
      const size = await deviceSize(handle)
      if (size < length) {
        throw new Qcow2UsageError(
          'ERR_QCOW2_OUTPUT_TOO_SMALL',
          `the device has ${size} bytes, and ${length} would be written`,
          { layer: path, field: 'output', actual: size },
        )
      }
      return new BlockDevice(handle, path)
    } catch (cause) {
      // What closing reports as well no longer matters.
      await handle?.close().catch(() => undefined)
      throw cause instanceof Qcow2UsageError ? cause : openError(path, cause)
    }
  }

  /**
   * Resolves when all that was written is on the device, not in a cache, and it is closed. Some failures of writes are
   * heard of only here.
   *
   * @throws {Qcow2SinkError} `ERR_QCOW2_WRITE_FAILED`
   */
  async finish(): Promise<void> {
    try {
      await this.handle.sync()
      await this.handle.close()
    } catch (cause) {
      throw finishError(this.path, 'finishing the device', cause)
    }
  }

  /** Closes the device as it is; does nothing once `finish` has succeeded. */
  async close(): Promise<void> {
    // Closing waits for the writes under way; what it reports no longer matters.
    await this.handle.close().catch(() => undefined)
  }
}
