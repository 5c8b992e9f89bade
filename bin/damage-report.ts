/**
 * The list of what could not be read, on standard error.
 *
 * Invariant: every range is listed, and the conversion waits for whoever reads the list: it can be longer than memory is large.
 */
import type { Qcow2Damage } from '../lib/index.js'
import { complain, drained } from './complain.js'

export class DamageReport {
  /** One thing that is wrong can be met piece by piece: it is told once, for all of them. */
  #pending: Qcow2Damage | undefined
  #bytes = 0
  #ranges = 0

  /**
   * @param makeRoom Called before each line.
   * @param signal Ends the waiting.
   */
  constructor(
    private readonly makeRoom: () => void,
    private readonly signal: AbortSignal,
  ) {}

  /** Takes a range; what comes back is to be waited for. */
  readonly add = (damage: Qcow2Damage): Promise<void> | undefined => {
    const pending = this.#pending
    if (pending?.error.message === damage.error.message && pending.offset + pending.length === damage.offset) {
      this.#pending = { ...pending, length: pending.length + damage.length }
      return undefined
    }
    this.flush()
    this.#pending = damage
    return drained(this.signal)
  }

  /** Lists what has been taken. */
  flush(): void {
    const pending = this.#pending
    if (pending === undefined) {
      return
    }
    const { offset, length, error } = pending
    this.#pending = undefined
    this.#bytes += length
    this.#ranges++
    this.makeRoom()
    complain(`zeros instead of guest bytes ${offset} to ${offset + length - 1}: ${error.message}`)
  }

  /** The sum, if there is any. */
  sum(diskBytes: number): string | undefined {
    return this.#ranges === 0
      ? undefined
      : `salvaged: ${this.#bytes} of ${diskBytes} bytes are zeros, ranges: ${this.#ranges}; the rest is as in the image`
  }
}
