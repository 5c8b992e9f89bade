/**
 * Works on several jobs at once and hands over their results in order.
 *
 * Knows neither what a job is nor where it runs. Invariant: the jobs under way or done but not taken weigh no more than
 * the window and one job, and after `close` has resolved none is under way.
 */

/** A job, its weight, and how to do it. */
export interface Job<T> {
  /** Bytes that count against the window. */
  readonly weight: number
  start(): Promise<T>
}

interface Started<T> {
  readonly weight: number
  readonly result: Promise<T>
}

export class ReadAhead<T> {
  readonly #queue: Started<T>[] = []
  #weight = 0
  #filling: Promise<void> | undefined
  #state: 'open' | 'exhausted' | 'closed' = 'open'

  /**
   * @param jobs In the order of their results; asked for the next one only when there is room for it.
   * @param windowBytes Bytes.
   */
  constructor(
    private readonly jobs: AsyncIterator<Job<T>, void, undefined>,
    private readonly windowBytes: number,
  ) {}

  /** The next result; undefined after the last. Called one at a time. */
  async next(): Promise<T | undefined> {
    this.#fill()
    while (this.#queue.length === 0 && this.#filling !== undefined) {
      await this.#filling
      this.#fill()
    }
    const first = this.#queue.shift()
    if (first === undefined) {
      return undefined
    }
    try {
      return await first.result
    } finally {
      this.#weight -= first.weight
      this.#fill()
    }
  }

  /** Starts no further job and waits for those under way; resolves to the results that nobody will take. */
  async close(): Promise<T[]> {
    this.#state = 'closed'
    await this.#filling
    const left = await Promise.allSettled(this.#queue.splice(0).map(({ result }) => result))
    await this.jobs.return?.()
    return left.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
  }

  #fill(): void {
    if (this.#filling === undefined && this.#state === 'open' && this.#hasRoom()) {
      this.#filling = this.#startOne().finally(() => {
        this.#filling = undefined
        this.#fill()
      })
    }
  }

  #hasRoom(): boolean {
    return this.#queue.length === 0 || this.#weight < this.windowBytes
  }

  /** Finding the next job can fail as doing it can: either way the error waits for its turn in the queue. */
  async #startOne(): Promise<void> {
    let started: Started<T>
    try {
      const { done, value: job } = await this.jobs.next()
      if (this.#state === 'closed') {
        return
      }
      if (done === true) {
        this.#state = 'exhausted'
        return
      }
      started = { weight: job.weight, result: job.start() }
    } catch (error) {
      this.#state = this.#state === 'open' ? 'exhausted' : this.#state
      started = { weight: 0, result: Promise.reject(error) }
    }
    // Whoever takes it sees the rejection; until then nobody listens.
    started.result.catch(() => undefined)
    this.#weight += started.weight
    this.#queue.push(started)
  }
}
