/**
 * How a decoder in WebAssembly is made. The "decoder" here is a few bytes of code that copy, so that no format gets in
 * the way.
 */
import t from 'tap'
import { LaneMemory } from '../../../lib/decode/lane-memory.js'
import { instantiateDecoder } from '../../../lib/decode/wasm-decoder.js'
import { pattern } from '../../fixtures/patterns.js'
import { COPIER } from '../../fixtures/wasm-modules.js'

t.test('decodes from place to place in the memory that it was given', async (t) => {
  const [memory, other] = [new LaneMemory(), new LaneMemory()]
  const decode = instantiateDecoder(COPIER, memory.wasm)
  const [source, target] = [memory.take(1000), memory.take(1000)]
  other.take(1000)
  const content = pattern(1, 512)
  // The copier's format: how many times 64 bytes came out, then these bytes.
  source[0] = 8
  source.set(content, 1)
  t.equal(decode(source.byteOffset, 513, target.byteOffset, 512), 512)
  t.ok(content.equals(target.subarray(0, 512)))
  t.ok(
    new Uint8Array(other.wasm.buffer).every((byte) => byte === 0),
    'and in no other',
  )
})

t.test('reaches pieces that were cut after it was made', async (t) => {
  const memory = new LaneMemory()
  const decode = instantiateDecoder(COPIER, memory.wasm)
  const piece = memory.take(40 * 2 ** 20)
  const at = piece.length - 65
  piece[at] = 1
  piece.set(pattern(2, 64), at + 1)
  t.equal(decode(piece.byteOffset + at, 65, piece.byteOffset, 64), 64)
  t.ok(pattern(2, 64).equals(piece.subarray(0, 64)))
})

t.test('refuses code that is none', async (t) => {
  const { wasm } = new LaneMemory()
  t.throws(() => instantiateDecoder(Buffer.from('not WebAssembly').toString('base64'), wasm), { name: 'CompileError' })
})
