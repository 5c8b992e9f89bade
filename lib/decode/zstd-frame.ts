/**
 * Finds where a zstd frame ends without decoding it.
 *
 * A compressed cluster's length is known only in sectors, and what follows its frame belongs to the next cluster; a
 * frame's own length follows from its header and the headers of its blocks (RFC 8878, sections 3.1.1 and 3.1.2).
 */
import { DecodeError } from './decode-error.js'

/** A frame at the beginning of some bytes. */
export interface Frame {
  /** Bytes the frame takes, checksum included. */
  readonly length: number
  /** Skippable frames hold no data. */
  readonly isSkippable: boolean
}

const MAGIC = 0xfd2fb528
const SKIPPABLE_MAGIC = 0x184d2a50
const MAX_WINDOW_LOG = 27
const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const
const BLOCK_RLE = 1
const BLOCK_RESERVED = 3

/**
 * The frame that begins at byte `at`.
 *
 * @throws {DecodeError} if there is none, it is cut off, or its window is larger than 128 MiB (QEMU's limit too)
 */
export function frameAt(bytes: Uint8Array, at: number): Frame {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, bytes.length - at)
  const has = (length: number): number => {
    if (length > view.byteLength) {
      throw new DecodeError('the zstd frame is cut off')
    }
    return length
  }
  has(4)
  const magic = view.getUint32(0, true)
  if ((magic & 0xffff_fff0) >>> 0 === SKIPPABLE_MAGIC) {
    has(8)
    return { length: has(8 + view.getUint32(4, true)), isSkippable: true }
  }
  if (magic !== MAGIC) {
    throw new DecodeError('there is no zstd frame')
  }
  has(6)
  const descriptor = view.getUint8(4)
  const isSingleSegment = (descriptor & 0x20) !== 0
  const contentSizeFlag = descriptor >> 6
  if (!isSingleSegment && view.getUint8(5) >> 3 > MAX_WINDOW_LOG - 10) {
    throw new DecodeError('the zstd frame needs a window of more than 128 MiB')
  }
  let length =
    5 +
    (isSingleSegment ? 0 : 1) +
    (DICTIONARY_ID_BYTES[descriptor & 3] as number) +
    (isSingleSegment && contentSizeFlag === 0 ? 1 : (CONTENT_SIZE_BYTES[contentSizeFlag] as number))
  for (let isLast = false; !isLast;) {
    has(length + 3)
    const header = view.getUint16(length, true) + view.getUint8(length + 2) * 65536
    const type = (header >> 1) & 3
    if (type === BLOCK_RESERVED) {
      throw new DecodeError('the zstd frame has a block of a reserved type')
    }
    isLast = (header & 1) === 1
    length = has(length + 3 + (type === BLOCK_RLE ? 1 : header >> 3))
  }
  return { length: has(length + ((descriptor & 4) !== 0 ? 4 : 0)), isSkippable: false }
}
