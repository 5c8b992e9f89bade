/**
 * The list of what could not be read.
 *
 * Invariant: every range is listed, and the conversion waits for whoever reads the list: it can be longer than memory is large.
 */
import type { Qcow2Damage } from '../../lib/index.js'
import { drained } from '../complain.js'
import type { Salvaged } from './report.js'

export class DamageReport {
  /** One thing that is wrong can be met piece by piece: it is told once, for all of them. */
  #pending: Qcow2Damage | undefined
  #bytes = 0
  #ranges = 0

  /**
   * @param say Lists a range on standard error.
   * @param signal Ends the waiting.
   */
  constructor(
    private readonly say: (damage: Qcow2Damage) => void,
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
    this.#pending = undefined
    this.#bytes += pending.length
    this.#ranges++
    this.say(pending)
  }

  /** The sum, if there is any. */
  sum(): Salvaged | undefined {
    return this.#ranges === 0 ? undefined : { bytes: this.#bytes, ranges: this.#ranges }
  }
}
