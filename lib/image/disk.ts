/**
 * What is open: a chain that maps, a reader that reads, and the files to close.
 *
 * Shared by random reads and streams. Invariant: `readable` lets nobody read a disk of which a part was kept closed.
 */
import { Qcow2UsageError } from '../errors.js'
import { Decoding } from '../decode/decoding.js'
import type { Chain } from './chain.js'
import type { OpenedChain } from './open-chain.js'
import { Reader } from './reader.js'
import type { SalvageFunction } from './salvage.js'

export class Disk {
  readonly chain: Chain
  readonly reader: Reader
  readonly decoding: Decoding
  readonly #uses = new Set<Promise<unknown>>()
  #closing: Promise<void> | undefined

  /** @param threads How many may decode; 0 for none. */
  constructor(
    readonly opened: OpenedChain,
    threads: number,
    salvage: SalvageFunction | undefined,
  ) {
    this.chain = opened.chain
    this.decoding = new Decoding(threads)
    this.reader = new Reader(opened.chain.layers, this.decoding, salvage)
  }

  /** Bytes. */
  get virtualSize(): number {
    return this.chain.virtualSize
  }

  /**
   * The disk itself, if its bytes can be read.
   *
   * @throws {Qcow2AccessError} `ERR_QCOW2_REFERENCE_REFUSED`, `ERR_QCOW2_PASSPHRASE_REQUIRED`
   * @throws {Qcow2UsageError} `ERR_QCOW2_CLOSED`
   */
  readable(): this {
    const { locked } = this.mappable().opened.encryption
    if (locked !== undefined) {
      throw locked
    }
    return this
  }

  /**
   * The disk itself, if it can be told where its bytes are: all that it consists of is open.
   *
   * @throws {Qcow2AccessError} `ERR_QCOW2_REFERENCE_REFUSED`
   * @throws {Qcow2UsageError} `ERR_QCOW2_CLOSED`
   */
  mappable(): this {
    const { incomplete } = this.open().opened
    if (incomplete !== undefined) {
      throw incomplete
    }
    return this
  }

  /** The disk itself. @throws {Qcow2UsageError} `ERR_QCOW2_CLOSED` */
  open(): this {
    if (this.#closing !== undefined) {
      throw new Qcow2UsageError('ERR_QCOW2_CLOSED', 'the image is closed', { layer: this.chain.layers[0].file.label })
    }
    return this
  }

  /** Does something with the open disk that `close` waits for. @throws {Qcow2UsageError} `ERR_QCOW2_CLOSED` */
  async use<T>(work: (disk: this) => Promise<T>): Promise<T> {
    const using = work(this.open())
    this.#uses.add(using)
    try {
      return await using
    } finally {
      this.#uses.delete(using)
    }
  }

  /** Nobody wants what is being read any more: ends it, where the source can do that. */
  abandon(): void {
    for (const file of this.opened.files) {
      file.abandon()
    }
  }

  /** Waits for what is under way and closes every file; the first failure is thrown when all have been tried. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      await Promise.allSettled(this.#uses)
      const results = await Promise.allSettled(this.opened.files.map((file) => file.close()))
      await this.decoding.close()
      this.opened.encryption.wipe()
      for (const result of results) {
        if (result.status === 'rejected') {
          throw result.reason
        }
      }
    })()
    return this.#closing
  }
}
