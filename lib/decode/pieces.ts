/**
 * Pieces of memory that lie idle until somebody wants one of their size again.
 *
 * Knows sizes, not where pieces come from. Invariant: a piece is on the shelf once, and nobody has it then.
 */

const MIN_BYTES = 65536

/** How long a piece is that holds `length` bytes: less than twice as much, or 64 KiB; hence few sizes. */
export const pieceBytes = (length: number): number => Math.max(MIN_BYTES, 2 ** Math.ceil(Math.log2(length)))

export class PieceShelf {
  readonly #idle = new Map<number, Uint8Array[]>()
  /** Bytes that lie here. */
  bytes = 0

  /** The piece for so many bytes that was put here last, if there is one. */
  take(length: number): Uint8Array | undefined {
    const piece = this.#idle.get(pieceBytes(length))?.pop()
    this.bytes -= piece?.length ?? 0
    return piece
  }

  /** Puts a piece here, whose length is one that {@link pieceBytes} names. */
  give(piece: Uint8Array): void {
    const list = this.#idle.get(piece.length)
    if (list === undefined) {
      this.#idle.set(piece.length, [piece])
    } else {
      list.push(piece)
    }
    this.bytes += piece.length
  }
}
