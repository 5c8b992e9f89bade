/**
 * What decoders in WebAssembly share: memory that grows with the clusters, and a target that is written whole or not at
 * all. The "decoder" here is a few bytes of code that copy, so that no format gets in the way.
 */
import t from 'tap'
import { WasmDecoder } from '../../../lib/decode/wasm-decoder.js'
import { filled, pattern } from '../../fixtures/patterns.js'
import { COPIER } from '../../fixtures/wasm-modules.js'

/** A source for the copier, which says that so many times 64 bytes came out of it. */
const stored = (content: Uint8Array, sixtyFours: number): Buffer =>
  Buffer.concat([Buffer.of(sixtyFours & 0xff), content])

t.test('hands a target over that could be filled', async (t) => {
  const decoder = new WasmDecoder(COPIER)
  const content = pattern(1, 512)
  const target = filled(7, 512)
  t.equal(decoder.decode(stored(content, 8), target), 512)
  t.ok(target.equals(content))
})

t.test('leaves a target alone that could not be filled, and says how far it came', async (t) => {
  const decoder = new WasmDecoder(COPIER)
  for (const [sixtyFours, result] of [
    [7, 448],
    [9, 576],
    [0, 0],
    [-1, -64],
    [-2, -128],
  ] as const) {
    const target = filled(7, 512)
    t.equal(decoder.decode(stored(pattern(1, 512), sixtyFours), target), result)
    t.ok(target.equals(filled(7, 512)), `${result} bytes`)
  }
})

t.test('grows as clusters do, and serves smaller ones after larger ones', async (t) => {
  const decoder = new WasmDecoder(COPIER)
  // Sources are as long as their clusters; the last one takes 2 * 8128 bytes after those of 2 MiB.
  for (const length of [64, 512, 8128, 4096, 65536 - 64, 127 * 64, 64, 8128]) {
    const content = pattern(length, length)
    const target = Buffer.alloc(length)
    const result = decoder.decode(stored(content, Math.min(127, length / 64)), target)
    t.equal(result, Math.min(8128, length))
    t.ok(target.equals(result === length ? content : Buffer.alloc(length)), `${length} bytes`)
  }
  // Nothing of a longer source counts for the next one.
  const long = decoder.decode(stored(pattern(1, 4 * 2 ** 20), 1), Buffer.alloc(64))
  t.equal(long, 64, 'a source that is far longer than its cluster')
  const target = Buffer.alloc(2 ** 21)
  t.equal(decoder.decode(stored(Buffer.alloc(0), 127), target), 8128, 'a cluster that is far longer than its source')
})

t.test('takes sources and targets that are parts of larger ones, shared memory too', async (t) => {
  const decoder = new WasmDecoder(COPIER)
  const content = pattern(3, 128)
  for (const Memory of [ArrayBuffer, SharedArrayBuffer]) {
    const source = new Uint8Array(new Memory(1000), 333, 129)
    source.set(stored(content, 2))
    const room = new Uint8Array(new Memory(1000))
    t.equal(decoder.decode(source, room.subarray(501, 629)), 128)
    t.ok(content.equals(room.subarray(501, 629)), Memory.name)
    t.ok(
      room.every((byte, index) => byte === 0 || (index >= 501 && index < 629)),
      'and nothing around it',
    )
  }
})

t.test('decoders share no memory', async (t) => {
  const [one, other] = [new WasmDecoder(COPIER), new WasmDecoder(COPIER)]
  const target = Buffer.alloc(64)
  t.equal(one.decode(stored(filled(1, 64), 1), target), 64)
  // A source without content: what comes out is what lay in the decoder's memory before, which is nothing.
  t.equal(other.decode(Buffer.of(1), target), 64)
  t.ok(target.equals(Buffer.alloc(64)))
})

t.test('refuses code that is none', async (t) => {
  t.throws(() => new WasmDecoder(Buffer.from('not WebAssembly').toString('base64')), { name: 'CompileError' })
})
