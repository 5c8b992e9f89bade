/**
 * Keeps a long calculation friendly: the event loop has its turn, and whoever wants it to end is heard.
 */
import { setImmediate } from 'node:timers/promises'

// How long a check calculates until the event loop has its turn.
const TURN_MILLISECONDS = 20

export class Turns {
  #turn = performance.now()

  constructor(private readonly signal: AbortSignal | undefined) {}

  /** Called between steps of some milliseconds at most. @throws The signal's reason, once it is aborted */
  async step(): Promise<void> {
    this.signal?.throwIfAborted()
    if (performance.now() - this.#turn > TURN_MILLISECONDS) {
      await setImmediate()
      this.#turn = performance.now()
      this.signal?.throwIfAborted()
    }
  }
}
