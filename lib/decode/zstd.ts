/**
 * zstd's clusters: one or more frames that together yield one cluster, decoded by WebAssembly.
 *
 * As QEMU does, several and skippable frames are accepted, and what follows once the cluster is full is ignored; more
 * output than a cluster is an error.
 */
import { ZSTDDecoder } from 'zstddec'
import { DecodeError } from './decode-error.js'
import type { Decoder } from './decoder.js'
import { frameAt } from './zstd-frame.js'

/** A decoder for compression type 1. */
export async function createZstdDecoder(): Promise<Decoder> {
  const zstd = new ZSTDDecoder()
  await zstd.init()
  return {
    decode(source, target) {
      let at = 0
      let done = 0
      while (done < target.length) {
        const frame = frameAt(source, at)
        if (!frame.isSkippable) {
          // The decoder answers damage, and output that does not fit, with no bytes at all.
          const bytes = zstd.decode(source.subarray(at, at + frame.length), target.length - done)
          if (bytes.length === 0) {
            throw new DecodeError(`the zstd frame is damaged, or yields more than ${target.length} bytes`)
          }
          target.set(bytes, done)
          done += bytes.length
        }
        at += frame.length
      }
    },
  }
}
