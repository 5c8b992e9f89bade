/**
 * Finds the zeros in data: which blocks of a buffer need to be written, and which can stay holes.
 *
 * Pure. Invariant: a block that holds a single byte other than zero is never called zeros.
 */

/** File systems allocate in blocks of this many bytes, or more. */
export const BLOCK_BYTES = 4096

const ZERO_BLOCK = new Uint8Array(BLOCK_BYTES)

/** Bytes `start` to `end` of a buffer, half-open. */
export interface BufferRange {
  readonly start: number
  readonly end: number
}

/**
 * The parts of `bytes` that are not zeros, in blocks of 4 KiB of the file (the first and the last may be shorter).
 *
 * @param fileOffset Where the first byte goes, so that blocks are those of the file.
 */
export function dataRanges(bytes: Uint8Array, fileOffset: number): BufferRange[] {
  const ranges: BufferRange[] = []
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let open = -1
  let block = 0
  while (block < buffer.length) {
    const next = Math.min(buffer.length, block + BLOCK_BYTES - ((fileOffset + block) % BLOCK_BYTES))
    if (isZeros(buffer, block, next)) {
      if (open >= 0) {
        ranges.push({ start: open, end: block })
        open = -1
      }
    } else if (open < 0) {
      open = block
    }
    block = next
  }
  if (open >= 0) {
    ranges.push({ start: open, end: buffer.length })
  }
  return ranges
}

/** Most blocks of data differ from zero at one of three places; only the others are compared byte by byte. */
function isZeros(buffer: Buffer, start: number, end: number): boolean {
  return (
    buffer[start] === 0 &&
    buffer[end - 1] === 0 &&
    buffer[start + ((end - start) >> 1)] === 0 &&
    buffer.compare(ZERO_BLOCK, 0, end - start, start, end) === 0
  )
}
