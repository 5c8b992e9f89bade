/**
 * Encrypted data of one layer that is read and decrypted together, from wherever it is to wherever it belongs.
 *
 * Pure. Invariant: only whole sectors are decrypted. Where a range begins or ends inside of one, that sector is a fragment:
 * it is read and decrypted elsewhere, and the part that was asked for is copied. Spec: "Data encryption".
 */
import { SECTOR_BYTES } from '../crypto/cipher.js'
import type { DataExtent } from '../format/extents.js'

/** A place in the target for bytes of the host. */
export interface Piece {
  readonly hostOffset: number
  readonly guestOffset: number
  readonly length: number
  /** Where they go in the target. */
  readonly at: number
  /** Number of the (first) sector that the bytes are in, for its initialization vector. */
  readonly sector: number
}

/** A part of a sector. */
export interface Fragment extends Piece {
  /** Bytes of the sector before it. */
  readonly skip: number
}

export class SectorList {
  /** Whole sectors. */
  readonly pieces: Piece[] = []
  readonly fragments: Fragment[] = []

  /** @param method LUKS counts sectors of the host, the old method those of the guest. */
  constructor(private readonly method: 'luks' | 'aes') {}

  /** Adds an extent, which goes to `at` of the target. */
  add({ guestOffset, hostOffset, length }: DataExtent, at: number): void {
    // Clusters are whole sectors on either side: the same number of bytes leads to the next one.
    const skip = guestOffset % SECTOR_BYTES
    const toNext = skip === 0 ? 0 : Math.min(SECTOR_BYTES - skip, length)
    const rest = (length - toNext) % SECTOR_BYTES
    const piece = (from: number, bytes: number): Piece => ({
      hostOffset: hostOffset + from,
      guestOffset: guestOffset + from,
      length: bytes,
      at: at + from,
      sector: Math.floor(((this.method === 'luks' ? hostOffset : guestOffset) + from) / SECTOR_BYTES),
    })
    if (toNext > 0) {
      this.fragments.push({ ...piece(0, toNext), skip })
    }
    if (length > toNext + rest) {
      this.pieces.push(piece(toNext, length - toNext - rest))
    }
    if (rest > 0) {
      this.fragments.push({ ...piece(length - rest, rest), skip: 0 })
    }
  }

  /** The whole sectors, as `SectorBatch.runs` has them. */
  runs(): Float64Array {
    return Float64Array.from(this.pieces.flatMap(({ at, length, sector }) => [at, length, sector]))
  }
}
