/**
 * How fast bytes come, and when the last of them will be there.
 *
 * Knows numbers and a clock, not what is read. Invariant: what it keeps is bounded, however often it is asked.
 */

/** How fast something goes on. */
export interface Qcow2Pace {
  /** Bytes per second in the last five seconds or so, a whole number; 0 as long as nothing is known. */
  readonly bytesPerSecond: number
  /** Seconds to the end at this rate, a whole number, rounded up: 0 at the end only; undefined as long as it is unknown. */
  readonly secondsLeft: number | undefined
}

const WINDOW_SECONDS = 5
const STEP_SECONDS = 0.25
// What was done in no time at all has no rate.
const MIN_SECONDS = 0.001

/** Seconds on a clock that does not jump. */
const uptime = (): number => process.uptime()

export class Pace {
  /** The first is as old as the window, or not much older; the others follow with a step between them. */
  readonly #samples: { readonly seconds: number; readonly bytesDone: number }[]

  /**
   * Time counts from here on.
   *
   * @param bytesTotal Undefined if nobody knows.
   * @param now Seconds on a clock that does not jump.
   */
  constructor(
    private readonly bytesTotal: number | undefined,
    private readonly now: () => number = uptime,
  ) {
    this.#samples = [{ seconds: now(), bytesDone: 0 }]
  }

  /**
   * The pace at this moment.
   *
   * @param bytesDone All so far, not less than at the last call.
   */
  at(bytesDone: number): Qcow2Pace {
    const samples = this.#samples
    const seconds = this.now()
    while (samples.length > 1 && samples[1]!.seconds <= seconds - WINDOW_SECONDS) {
      samples.shift()
    }
    const oldest = samples[0]!
    const rate = (bytesDone - oldest.bytesDone) / Math.max(MIN_SECONDS, seconds - oldest.seconds)
    if (seconds - samples.at(-1)!.seconds >= STEP_SECONDS) {
      samples.push({ seconds, bytesDone })
    }
    const secondsLeft = this.bytesTotal === undefined ? NaN : Math.ceil((this.bytesTotal - bytesDone) / rate)
    return {
      bytesPerSecond: Math.round(rate),
      secondsLeft: bytesDone === this.bytesTotal ? 0 : Number.isFinite(secondsLeft) ? secondsLeft : undefined,
    }
  }
}
