/**
 * A source of the caller's own, as the readers of images use it.
 *
 * Invariant: the caller's `read` is given ordinary memory, since many APIs refuse memory that threads share.
 */
import type { Qcow2Source } from './source.js'

export class CallerSource implements Qcow2Source {
  readonly size: number

  constructor(private readonly source: Qcow2Source) {
    this.size = source.size
  }

  async read(target: Uint8Array, offset: number, signal: AbortSignal): Promise<number> {
    if (target.buffer instanceof ArrayBuffer) {
      return this.source.read(target, offset, signal)
    }
    const bytes = new Uint8Array(target.length)
    const count = await this.source.read(bytes, offset, signal)
    target.set(bytes)
    return count
  }

  close(): Promise<void> {
    return this.source.close()
  }
}
