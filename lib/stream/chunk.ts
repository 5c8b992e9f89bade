/**
 * What a stream in object mode hands on: bytes that can be given back, or a run of zeros of any length.
 *
 * The stream and the sinks agree on this and on nothing else. Invariant: chunks tile the streamed range in guest order.
 */

/** Bytes of the guest's disk. */
export interface DataChunk {
  readonly kind: 'data'
  /** Bytes. */
  readonly guestOffset: number
  readonly length: number
  /** Valid until `release` is called; its owner may change them until then. */
  readonly bytes: Uint8Array
  /** Gives the memory back to the stream for reuse. Optional: without it the memory is the consumer's for good. */
  release(): void
}

/** A run of zeros, of any length, for which no memory was filled. */
export interface ZeroChunk {
  readonly kind: 'zeros'
  /** Bytes. */
  readonly guestOffset: number
  readonly length: number
}

/** A chunk of a {@link Qcow2ReadStream} in object mode. */
export type GuestChunk = DataChunk | ZeroChunk
