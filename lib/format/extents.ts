/**
 * Extents: runs of guest bytes that are stored in the same way, merged as they are found.
 *
 * Knows nothing of tables or files. Invariant: the extents of a list tile the range they were added for, in guest order,
 * without gaps. Everything that maps guest bytes speaks in these.
 */
import { assertNever } from '../errors.js'
import { guestOffset, hostOffset, type GuestOffset, type HostOffset } from './units.js'

/** Bytes stored as they are, next to each other on the host. */
export interface DataExtent {
  readonly kind: 'data'
  /** Which layer of the chain stores the bytes; 0 is the image itself. */
  readonly depth: number
  guestOffset: GuestOffset
  length: number
  hostOffset: HostOffset
}

/** Neighbouring guest clusters, each compressed on its own. */
export interface CompressedExtent {
  readonly kind: 'compressed'
  readonly depth: number
  guestOffset: GuestOffset
  length: number
  /** Guest offset of the first cluster; at most a cluster before `guestOffset`. */
  clusterGuestOffset: GuestOffset
  readonly clusterSize: number
  /** Where each cluster's compressed bytes begin, and how many sectors' bytes they can take at most. */
  hostOffsets: number[]
  hostLengths: number[]
}

/** Bytes that read as zeros because the image says so. */
export interface ZeroExtent {
  readonly kind: 'zero'
  readonly depth: number
  guestOffset: GuestOffset
  length: number
  /** Room that is kept for them on the host, if that is asked for and there is any. */
  readonly hostOffset?: HostOffset
}

/** Bytes that the image says nothing about: the backing file's, or zeros. */
export interface UnallocatedExtent {
  readonly kind: 'unallocated'
  readonly depth: number
  guestOffset: GuestOffset
  length: number
  /** Room that is kept for them on the host, if that is asked for and there is any. */
  readonly hostOffset?: HostOffset
}

/** How one layer of a chain stores a run of guest bytes. */
export type LayerExtent = DataExtent | CompressedExtent | ZeroExtent | UnallocatedExtent

/** Collects extents in guest order and merges each with the one before where they continue each other. */
export class ExtentList {
  readonly extents: LayerExtent[] = []

  /**
   * @param depth The layer that the extents are of.
   * @param keepsRoom Whether extents tell where room is kept for bytes that are not stored; most who ask need not know, and
   *   get fewer extents.
   */
  constructor(
    private readonly depth: number,
    private readonly keepsRoom = false,
  ) {}

  #last(): LayerExtent | undefined {
    return this.extents[this.extents.length - 1]
  }

  /** Adds an extent as it is. */
  add(extent: LayerExtent): void {
    this.extents.push(extent)
  }

  data(guest: number, length: number, host: number): void {
    const last = this.#last()
    if (last?.kind === 'data' && last.hostOffset + last.length === host && isNext(last, guest)) {
      last.length += length
    } else {
      this.extents.push({
        kind: 'data',
        depth: this.depth,
        guestOffset: guestOffset(guest),
        length,
        hostOffset: hostOffset(host),
      })
    }
  }

  /** @param room Where on the host room is kept for the bytes, if it is. */
  zero(guest: number, length: number, room?: number): void {
    this.#plain('zero', guest, length, room)
  }

  /** @param room Where on the host room is kept for the bytes, if it is. */
  unallocated(guest: number, length: number, room?: number): void {
    this.#plain('unallocated', guest, length, room)
  }

  /** Adds (a part of) one compressed cluster. */
  compressed(
    guest: number,
    length: number,
    cluster: { guest: number; size: number; host: number; bytes: number },
  ): void {
    const last = this.#last()
    if (last?.kind === 'compressed' && isNext(last, guest) && cluster.guest === guest) {
      last.length += length
      last.hostOffsets.push(cluster.host)
      last.hostLengths.push(cluster.bytes)
    } else {
      this.extents.push({
        kind: 'compressed',
        depth: this.depth,
        guestOffset: guestOffset(guest),
        length,
        clusterGuestOffset: guestOffset(cluster.guest),
        clusterSize: cluster.size,
        hostOffsets: [cluster.host],
        hostLengths: [cluster.bytes],
      })
    }
  }

  #plain(kind: 'zero' | 'unallocated', guest: number, length: number, room: number | undefined): void {
    const last = this.#last()
    const kept = this.keepsRoom ? room : undefined
    if (last?.kind === kind && isNext(last, guest) && continuesRoom(last, kept)) {
      last.length += length
    } else {
      const extent = { kind, depth: this.depth, guestOffset: guestOffset(guest), length }
      this.extents.push(kept === undefined ? extent : { ...extent, hostOffset: hostOffset(kept) })
    }
  }
}

const isNext = (last: LayerExtent, guest: number): boolean => last.guestOffset + last.length === guest

const continuesRoom = ({ hostOffset, length }: ZeroExtent | UnallocatedExtent, room: number | undefined): boolean =>
  hostOffset === undefined ? room === undefined : hostOffset + length === room

/** The part of an extent that covers `length` bytes from `from` on; both must lie inside it. */
export function sliceExtent<E extends LayerExtent>(extent: E, from: number, length: number): E
export function sliceExtent(extent: LayerExtent, from: number, length: number): LayerExtent {
  if (from === extent.guestOffset && length === extent.length) {
    return extent
  }
  switch (extent.kind) {
    case 'zero':
    case 'unallocated':
    case 'data': {
      const part = { ...extent, guestOffset: guestOffset(from), length }
      const host = extent.hostOffset
      return host === undefined ? part : { ...part, hostOffset: hostOffset(host + (from - extent.guestOffset)) }
    }
    case 'compressed': {
      const { clusterSize, clusterGuestOffset } = extent
      const first = Math.floor((from - clusterGuestOffset) / clusterSize)
      const end = Math.ceil((from + length - clusterGuestOffset) / clusterSize)
      return {
        ...extent,
        guestOffset: guestOffset(from),
        length,
        clusterGuestOffset: guestOffset(clusterGuestOffset + first * clusterSize),
        hostOffsets: extent.hostOffsets.slice(first, end),
        hostLengths: extent.hostLengths.slice(first, end),
      }
    }
    /* c8 ignore next 2 */
    default:
      return assertNever(extent)
  }
}
