/**
 * Compressed clusters of one layer that are read and decoded together, from wherever they are to wherever they belong.
 *
 * Pure. Invariant: clusters are in guest order; each is read once, and what is read of the host in one go has no gap
 * longer than a cluster or 64 KiB.
 */
import { PLACE_WORDS, type BatchFailure } from '../decode/batch.js'
import { hex, Qcow2FormatError } from '../errors.js'
import type { CompressedExtent } from '../format/extents.js'

// Compressed clusters are read together if what lies between them on the host is no longer than this, nor than a cluster.
const MAX_GAP_BYTES = 65536

/** Bytes of the host that are read at once, and where they go in the memory for all of them. */
export interface HostSpan {
  readonly hostOffset: number
  readonly at: number
  length: number
}

/** What is to be read for a list, and where in it each cluster is. */
export interface HostPlan {
  readonly spans: readonly HostSpan[]
  /** Bytes of all spans. */
  readonly storedLength: number
  /** Three words for each cluster, as `Batch.places` has them. */
  readonly places: Uint32Array
}

export class ClusterList {
  readonly #guestOffsets: number[] = []
  readonly #hostOffsets: number[] = []
  readonly #hostLengths: number[] = []
  readonly #targetOffsets: number[] = []

  /** @param clusterSize Bytes, the same for all. */
  constructor(readonly clusterSize: number) {}

  get length(): number {
    return this.#hostOffsets.length
  }

  /** Adds a cluster of an extent, by index, that goes to `targetOffset` of the target. */
  add(extent: CompressedExtent, index: number, targetOffset: number): void {
    const guestOffset = extent.clusterGuestOffset + index * extent.clusterSize
    this.#push(guestOffset, extent.hostOffsets[index]!, extent.hostLengths[index]!, targetOffset)
  }

  #push(guestOffset: number, hostOffset: number, hostLength: number, targetOffset: number): void {
    this.#guestOffsets.push(guestOffset)
    this.#hostOffsets.push(hostOffset)
    this.#hostLengths.push(hostLength)
    this.#targetOffsets.push(targetOffset)
  }

  /** Each cluster, and a list of it alone. */
  *clusters(): Generator<{ guestOffset: number; targetOffset: number; alone: ClusterList }, void, undefined> {
    for (let index = 0; index < this.length; index++) {
      const alone = new ClusterList(this.clusterSize)
      alone.#push(
        this.#guestOffsets[index]!,
        this.#hostOffsets[index]!,
        this.#hostLengths[index]!,
        this.#targetOffsets[index]!,
      )
      yield { guestOffset: this.#guestOffsets[index]!, targetOffset: this.#targetOffsets[index]!, alone }
    }
  }

  /**
   * What to read. Writers store clusters in the order in which they were compressed, which need not be the guest's.
   *
   * @param fileSize Bytes; the last sector of a cluster may reach beyond: what is there is decoded.
   */
  plan(fileSize: number): HostPlan {
    const hostOffsets = this.#hostOffsets
    const order = Uint32Array.from(hostOffsets, (_, index) => index)
    order.sort((a, b) => hostOffsets[a]! - hostOffsets[b]!)
    const maxGap = Math.min(MAX_GAP_BYTES, this.clusterSize)
    const places = new Uint32Array(PLACE_WORDS * order.length)
    const spans: HostSpan[] = []
    let storedLength = 0
    for (const index of order) {
      const hostOffset = hostOffsets[index]!
      const length = Math.min(this.#hostLengths[index]!, fileSize - hostOffset)
      let span = spans[spans.length - 1]
      if (span === undefined || hostOffset > span.hostOffset + span.length + maxGap) {
        span = { hostOffset, at: storedLength, length: 0 }
        spans.push(span)
      }
      span.length = Math.max(span.length, hostOffset + length - span.hostOffset)
      storedLength = span.at + span.length
      const place = PLACE_WORDS * index
      places[place] = span.at + hostOffset - span.hostOffset
      places[place + 1] = length
      places[place + 2] = this.#targetOffsets[index]!
    }
    return { spans, storedLength, places }
  }

  /** What is wrong with the cluster that could not be decoded. */
  errorOf({ cluster, reason }: BatchFailure, layer: string): Qcow2FormatError {
    const guestOffset = this.#guestOffsets[cluster]!
    const hostOffset = this.#hostOffsets[cluster]!
    return new Qcow2FormatError(
      'ERR_QCOW2_BAD_COMPRESSED_CLUSTER',
      `the compressed cluster of guest offset ${hex(guestOffset)} at host offset ${hex(hostOffset)}, ` +
        `up to ${this.#hostLengths[cluster]} bytes: ${reason}`,
      { layer, hostOffset, guestOffset, field: 'compressed cluster' },
    )
  }
}
