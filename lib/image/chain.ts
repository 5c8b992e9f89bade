/**
 * A backing chain as one disk: what a layer leaves unallocated is looked up in the one below it.
 *
 * Knows extents, not bytes. Invariant: `map` tiles the asked range in guest order, in batches of bounded size; past the
 * end of a short layer lie zeros, not what an even lower layer holds. Spec: "Cluster mapping".
 */
import { setImmediate } from 'node:timers/promises'
import type { LayerExtent } from '../format/extents.js'
import { guestOffset, type GuestRange } from '../format/units.js'
import type { Layer } from './layer.js'

// A batch is mapped at once: at most this many extents, a few hundred kilobytes.
const BATCH_EXTENTS = 4096

// How long maps are made of cached tables until the event loop has its turn: a hostile image has enough of them for hours.
const TURN_MILLISECONDS = 20

/** What whoever asks for a map wants of it. */
export interface MapOptions {
  /** Whether zeros and nothing are the same: then (part of) a disk that is empty in either way takes no time. */
  readonly mergesZeros?: boolean
  /** Whether extents tell where room is kept for what is not stored. */
  readonly keepsRoom?: boolean
  /** Asked now and then; once it says no, the map ends where it is. */
  readonly isWanted?: () => boolean
}

export class Chain {
  readonly #batchBytes: number

  /** @param layers From the image itself down; at least one. */
  constructor(readonly layers: readonly [Layer, ...Layer[]]) {
    this.#batchBytes = BATCH_EXTENTS * Math.min(...layers.map((layer) => layer.granularity))
  }

  /** Bytes. */
  get virtualSize(): number {
    return this.layers[0].virtualSize
  }

  /**
   * How the guest bytes `from` to `to` are stored, batch by batch; both lie inside the disk. Neighbouring batches may
   * continue each other's last extent.
   *
   * @throws {Qcow2FormatError} as `Mapping.map`
   */
  async *map(
    from: number,
    to: number,
    { mergesZeros = false, keepsRoom = false, isWanted = () => true }: MapOptions = {},
  ): AsyncGenerator<LayerExtent[], void, undefined> {
    // For each layer, up to where it is known to say nothing. Batches are short beside what an empty table covers.
    const silentUpTo = this.layers.map(() => 0)
    let turn = performance.now()
    for (let at = from; at < to && isWanted();) {
      if (performance.now() - turn > TURN_MILLISECONDS) {
        await setImmediate()
        turn = performance.now()
      }
      const allocated = await this.#nextAllocated(at, to, mergesZeros, silentUpTo)
      if (allocated > at) {
        yield [this.#nothing(at, allocated - at)]
        at = allocated
      } else {
        const length = Math.min(this.#batchBytes, to - at)
        yield await this.#mapFrom(0, [{ guestOffset: guestOffset(at), length }], keepsRoom)
        at += length
      }
    }
  }

  /** Where from `from` on a layer may say something; `to` if none does before. Notes what the layers say of that. */
  async #nextAllocated(from: number, to: number, mergesZeros: boolean, silentUpTo: number[]): Promise<number> {
    let next = to
    const lowest = this.layers[this.layers.length - 1]
    for (const [depth, layer] of this.layers.entries()) {
      // Below a layer that ends here nothing shows through.
      if (next === from || layer.virtualSize <= from) {
        break
      }
      if (silentUpTo[depth]! <= from) {
        // Zeros hide what lies below, if anything does.
        const allocated = await layer.nextAllocated(from, next, mergesZeros && layer === lowest)
        silentUpTo[depth] = Math.min(next, allocated)
      }
      next = Math.min(next, silentUpTo[depth]!)
    }
    return next
  }

  async #mapFrom(depth: number, ranges: readonly GuestRange[], keepsRoom: boolean): Promise<LayerExtent[]> {
    const layer = this.layers[depth]!
    const extents = await layer.map(ranges, keepsRoom)
    const below = this.layers[depth + 1]
    if (below === undefined) {
      return extents
    }
    const holes: GuestRange[] = []
    for (const { kind, guestOffset, length } of extents) {
      if (kind === 'unallocated' && guestOffset < below.virtualSize) {
        holes.push({ guestOffset, length: Math.min(length, below.virtualSize - guestOffset) })
      }
    }
    return this.#fillHoles(extents, holes.length === 0 ? [] : await this.#mapFrom(depth + 1, holes, keepsRoom))
  }

  /** Puts what the layer below says in place of the unallocated extents; none of `lower` reaches over two of them. */
  #fillHoles(upper: readonly LayerExtent[], lower: readonly LayerExtent[]): LayerExtent[] {
    const filled: LayerExtent[] = []
    let next = 0
    for (const extent of upper) {
      if (extent.kind !== 'unallocated') {
        filled.push(extent)
        continue
      }
      const end = extent.guestOffset + extent.length
      let at: number = extent.guestOffset
      for (let below = lower[next]; below !== undefined && below.guestOffset < end; below = lower[++next]) {
        filled.push(below)
        at = below.guestOffset + below.length
      }
      if (at < end) {
        filled.push(this.#nothing(at, end - at))
      }
    }
    return filled
  }

  #nothing(from: number, length: number): LayerExtent {
    return { kind: 'unallocated', depth: this.layers.length - 1, guestOffset: guestOffset(from), length }
  }
}
