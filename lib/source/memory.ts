/** A source over bytes in memory, which must not change while they are read; they are copied out, never handed out. */
import type { Qcow2Source } from './source.js'

/** Reads from a buffer of the caller's. */
export class MemorySource implements Qcow2Source {
  readonly size: number
  readonly #bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.size = bytes.length
  }

  read(target: Uint8Array, offset: number): Promise<number> {
    const part = this.#bytes.subarray(offset, offset + target.length)
    target.set(part)
    return Promise.resolve(part.length)
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
