/**
 * Reads that wait for a server: neighbours are asked for together, a few requests at a time.
 *
 * Knows offsets and bytes, not HTTP. Invariant: bytes go straight into the memory of those who asked, so that nothing but the
 * list of them is held here; who was first is served first.
 */
import { setImmediate } from 'node:timers'

// What lies between two reads is read as well if it is no longer: cheaper than a request of its own.
const MAX_GAP_BYTES = 65536
// Long enough for a server not to mind, and short enough for what is read ahead to be several requests.
const MAX_REQUEST_BYTES = 2 ** 20

/** Fetches the bytes from `start` to `end` and hands them on in order, piece by piece. */
export type FetchRange = (
  start: number,
  end: number,
  write: (bytes: Uint8Array, offset: number) => void,
) => Promise<void>

interface Wanted {
  readonly target: Uint8Array
  readonly offset: number
  readonly end: number
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

export class RangeQueue {
  /** In the order in which they came. */
  #waiting: Wanted[] = []
  #underWay = 0
  #isScheduled = false

  /** @param most Requests under way at once. */
  constructor(
    private readonly fetchRange: FetchRange,
    private readonly most: number,
  ) {}

  /** Fills the target from `offset` on; what is too long for one request is several reads. */
  async read(target: Uint8Array, offset: number): Promise<void> {
    const reads: Promise<void>[] = []
    for (let at = 0; at < target.length; at += MAX_REQUEST_BYTES) {
      reads.push(this.#wait(target.subarray(at, at + MAX_REQUEST_BYTES), offset + at))
    }
    for (const result of await Promise.allSettled(reads)) {
      if (result.status === 'rejected') {
        throw result.reason
      }
    }
  }

  #wait(target: Uint8Array, offset: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ target, offset, end: offset + target.length, resolve, reject })
      if (!this.#isScheduled) {
        this.#isScheduled = true
        // By then everybody who reads something now has said so.
        setImmediate(() => {
          this.#isScheduled = false
          this.#startAll()
        })
      }
    })
  }

  #startAll(): void {
    while (this.#underWay < this.most && this.#waiting.length > 0) {
      void this.#start(this.#takeNeighbours())
    }
  }

  async #start(group: readonly Wanted[]): Promise<void> {
    this.#underWay += 1
    try {
      await this.#fetch(group)
      group.forEach(({ resolve }) => {
        resolve()
      })
    } catch (error) {
      group.forEach(({ reject }) => {
        reject(error)
      })
    } finally {
      this.#underWay -= 1
      this.#startAll()
    }
  }

  /** The one that has waited longest, and those beside it, by offset. */
  #takeNeighbours(): Wanted[] {
    const [first] = this.#waiting
    const sorted = [...this.#waiting].sort((a, b) => a.offset - b.offset)
    let from = sorted.indexOf(first!)
    let to = from + 1
    let { offset: start, end } = first!
    const fits = (one: Wanted | undefined): one is Wanted =>
      one !== undefined &&
      one.offset <= end + MAX_GAP_BYTES &&
      one.end >= start - MAX_GAP_BYTES &&
      Math.max(end, one.end) - Math.min(start, one.offset) <= MAX_REQUEST_BYTES
    for (;;) {
      const [next, before] = [sorted[to], sorted[from - 1]]
      const found = fits(next) ? next : before
      if (!fits(found)) {
        break
      }
      start = Math.min(start, found.offset)
      end = Math.max(end, found.end)
      if (found === next) {
        to += 1
      } else {
        from -= 1
      }
    }
    const group = sorted.slice(from, to)
    const taken = new Set(group)
    this.#waiting = this.#waiting.filter((one) => !taken.has(one))
    return group
  }

  #fetch(group: readonly Wanted[]): Promise<void> {
    const start = group[0]!.offset
    const end = group.reduce((most, one) => Math.max(most, one.end), 0)
    return this.fetchRange(start, end, (bytes, offset) => {
      for (const { target, offset: at, end: to } of group) {
        if (at >= offset + bytes.length) {
          break
        }
        const [from, until] = [Math.max(at, offset), Math.min(to, offset + bytes.length)]
        if (from < until) {
          target.set(bytes.subarray(from - offset, until - offset), from - at)
        }
      }
    })
  }
}
