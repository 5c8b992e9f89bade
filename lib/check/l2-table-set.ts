/**
 * The L2 tables of all L1 tables: each once, with how many L1 entries point to it.
 *
 * A hash table in typed arrays, since a large image has millions of tables. Invariant: each table is told apart by its cluster,
 * and is walked once, however many snapshots share it.
 */

/** What is known of one table. */
export interface L2TableUse {
  /** L1 entries that point to it, in all L1 tables. */
  readonly times: number
  /** Those of them in the active L1 table. */
  readonly activeTimes: number
  /** Index of the first of these; 0 if there is none. */
  readonly l1Index: number
}

const INITIAL_CAPACITY = 1024
// Per table: 4 + 8 + 4 + 4, and two slots of 4; while it grows, the old ones are there as well.
const TABLE_BYTES = 28

export class L2TableSet {
  #size = 0
  #capacity = INITIAL_CAPACITY
  /** Index of a table, plus 1; 0 if free. Twice as many as there can be tables. */
  #slots = new Uint32Array(2 * INITIAL_CAPACITY)
  #clusters = new Uint32Array(INITIAL_CAPACITY)
  #times = new Float64Array(INITIAL_CAPACITY)
  #activeTimes = new Uint32Array(INITIAL_CAPACITY)
  #l1Indexes = new Uint32Array(INITIAL_CAPACITY)
  // Chosen anew each time, so that no image can choose clusters that all want the same slot.
  readonly #factor = Math.floor(Math.random() * 2 ** 31) * 2 + 1

  /** @param beforeGrowing Hears how many bytes the set is about to take, and may throw. */
  constructor(private readonly beforeGrowing: (bytes: number) => void) {}

  /** Tables. */
  get size(): number {
    return this.#size
  }

  /** Notes `times` more L1 entries that point to the table at a host cluster (its index, below 2^32). */
  add(cluster: number, times: number): void {
    // Looked up first, as the arrays may be replaced by that.
    const index = this.#indexOf(cluster)
    this.#times[index]! += times
  }

  /** Notes the entry `l1Index` of the active L1 table. */
  addActive(cluster: number, l1Index: number): void {
    const index = this.#indexOf(cluster)
    if (this.#activeTimes[index]!++ === 0) {
      this.#l1Indexes[index] = l1Index
    }
    this.#times[index]!++
  }

  /** What is known of the table at a host cluster; undefined if there is none. */
  get(cluster: number): L2TableUse | undefined {
    const index = this.#slots[this.#slotOf(cluster)]! - 1
    if (index < 0) {
      return undefined
    }
    return { times: this.#times[index]!, activeTimes: this.#activeTimes[index]!, l1Index: this.#l1Indexes[index]! }
  }

  /** The host clusters of all tables, in ascending order; a copy. */
  clusters(): Uint32Array {
    return this.#clusters.slice(0, this.#size).sort()
  }

  /** The slot that a cluster has, or would have. */
  #slotOf(cluster: number): number {
    const mask = this.#slots.length - 1
    let slot = Math.imul(cluster, this.#factor) >>> Math.clz32(mask)
    while (this.#slots[slot] !== 0 && this.#clusters[this.#slots[slot]! - 1] !== cluster) {
      slot = (slot + 1) & mask
    }
    return slot
  }

  #indexOf(cluster: number): number {
    const slot = this.#slotOf(cluster)
    if (this.#slots[slot] !== 0) {
      return this.#slots[slot]! - 1
    }
    if (this.#size === this.#capacity) {
      this.#grow()
      return this.#indexOf(cluster)
    }
    this.#clusters[this.#size] = cluster
    this.#slots[slot] = ++this.#size
    return this.#size - 1
  }

  #grow(): void {
    this.beforeGrowing(this.#capacity * 3 * TABLE_BYTES)
    this.#capacity *= 2
    this.#clusters = grown(this.#clusters, new Uint32Array(this.#capacity))
    this.#times = grown(this.#times, new Float64Array(this.#capacity))
    this.#activeTimes = grown(this.#activeTimes, new Uint32Array(this.#capacity))
    this.#l1Indexes = grown(this.#l1Indexes, new Uint32Array(this.#capacity))
    this.#slots = new Uint32Array(2 * this.#capacity)
    for (let index = 0; index < this.#size; index++) {
      this.#slots[this.#slotOf(this.#clusters[index]!)] = index + 1
    }
  }
}

function grown<T extends Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from)
  return to
}
