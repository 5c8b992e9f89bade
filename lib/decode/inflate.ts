/**
 * zlib's clusters: a raw deflate stream without header or checksum, with a window of up to 32 KiB.
 *
 * As QEMU does, output beyond the cluster and bytes after the stream are ignored; too little output is an error.
 */
import { constants, inflateRawSync } from 'node:zlib'
import { DecodeError } from './decode-error.js'
import type { Decoder } from './decoder.js'

/** A decoder for compression type 0. */
export function createInflateDecoder(): Decoder {
  return { decode }
}

function decode(source: Uint8Array, target: Uint8Array): void {
  const bytes = inflateAtLeast(source, target.length)
  if (bytes.length < target.length) {
    throw new DecodeError(`the deflate stream yields ${bytes.length} bytes instead of ${target.length}`)
  }
  target.set(bytes.length === target.length ? bytes : bytes.subarray(0, target.length))
}

function inflateAtLeast(source: Uint8Array, length: number): Buffer {
  // Node refuses a stream that yields more than it may; such a stream is rare, and its surplus is not wanted, so the
  // ceiling is raised only then.
  for (let ceiling = length; ; ceiling *= 2) {
    try {
      return inflateRawSync(source, {
        maxOutputLength: ceiling,
        chunkSize: ceiling,
        finishFlush: constants.Z_SYNC_FLUSH,
      })
    } catch (error) {
      if (!(error instanceof RangeError)) {
        throw new DecodeError(`the deflate stream is damaged (${(error as Error).message})`)
      }
    }
  }
}
