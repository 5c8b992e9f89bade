/**
 * What is open: a chain that maps, a reader that reads, and the files to close.
 *
 * Shared by random reads and streams. Invariant: `readable` lets nobody read a disk of which a part was kept closed.
 */
import { Qcow2UsageError } from '../errors.js'
import type { Chain } from './chain.js'
import type { OpenedChain } from './open-chain.js'
import { Reader } from './reader.js'

export class Disk {
  readonly chain: Chain
  readonly reader: Reader
  #closing: Promise<void> | undefined

  constructor(readonly opened: OpenedChain) {
    this.chain = opened.chain
    this.reader = new Reader(opened.chain.layers)
  }

  /** Bytes. */
  get virtualSize(): number {
    return this.chain.virtualSize
  }

  /**
   * The disk itself, if its bytes can be read.
   *
   * @throws {Qcow2AccessError} `ERR_QCOW2_REFERENCE_REFUSED`
   * @throws {Qcow2UsageError} `ERR_QCOW2_CLOSED`
   */
  readable(): this {
    if (this.#closing !== undefined) {
      throw new Qcow2UsageError('ERR_QCOW2_CLOSED', 'the image is closed', { layer: this.chain.layers[0].file.label })
    }
    if (this.opened.unreadable !== undefined) {
      throw this.opened.unreadable
    }
    return this
  }

  /** Closes every file; the first failure is thrown when all have been tried. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      const results = await Promise.allSettled(this.opened.files.map((file) => file.close()))
      for (const result of results) {
        if (result.status === 'rejected') {
          throw result.reason
        }
      }
    })()
    return this.#closing
  }
}
