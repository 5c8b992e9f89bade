/**
 * For a coverage-guided fuzzer: the bytes are a compressed cluster, of either type. zlib itself says what comes of the first.
 *
 * The fuzzer does not see into WebAssembly; how far a decoder came, and why it stopped, leads it instead.
 */
import { decodeGuarded, type Outcome } from '../../test/fixtures/decode-outcome.js'
import { createMemoryDecoder } from '../../test/fixtures/memory-decoder.js'
import { ZlibComparison } from '../../test/fixtures/zlib-comparison.js'

declare const Fuzzer: { readonly tracer: { tracePcIndir(id: number, state: number): void } } | undefined

const decoders = [createMemoryDecoder('zlib'), createMemoryDecoder('zstd')]
const UNWRITTEN = 0xa5

export async function fuzz(bytes: Buffer): Promise<void> {
  const [bits = 0] = bytes
  const clusterBytes = 2 ** (9 + (bits % 4))
  const source = bytes.subarray(1)
  const comparison = new ZlibComparison()
  await comparison.add('fuzz', source, clusterBytes)
  const problems = [...comparison.differences]
  for (const [type, decoder] of decoders.entries()) {
    const outcome = decodeGuarded(decoder, source, clusterBytes)
    problems.push(...outcome.misdeeds)
    if (typeof Fuzzer !== 'undefined') {
      Fuzzer.tracer.tracePcIndir(type, stateOf(outcome))
    }
  }
  if (problems.length > 0) {
    throw new Error(problems.join('; '))
  }
}

/** How much was written, roughly, and why no more. */
function stateOf({ bytes, refusal = '' }: Outcome): number {
  const written = bytes.findLastIndex((byte) => byte !== UNWRITTEN) + 1
  const steps = Math.ceil(4 * Math.log2(written + 1))
  const reason = Buffer.from(refusal.replace(/\d/g, '')).reduce((sum, byte) => sum + byte, 0) % 64
  return steps * 64 + reason
}
