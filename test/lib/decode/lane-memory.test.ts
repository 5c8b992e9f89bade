/**
 * The memory of a lane: pieces on pages of their own above the decoders' tables, however far it grows.
 */
import t from 'tap'
import { LaneMemory, TABLES_BYTES } from '../../../lib/decode/lane-memory.js'

const KIB = 1024
const MIB = 2 ** 20

t.test('gives out pieces that begin at pages above the tables and do not overlap', async (t) => {
  const memory = new LaneMemory()
  let end = TABLES_BYTES
  for (const [length, bytes] of [
    [1, 64 * KIB],
    [100 * KIB, 128 * KIB],
    [5 * MIB, 8 * MIB],
    [64 * KIB, 64 * KIB],
    [3 * MIB, 4 * MIB],
  ] as const) {
    const piece = memory.take(length)
    t.strictSame([piece.byteOffset, piece.length], [end, bytes], `${length} bytes`)
    t.equal(piece.byteOffset % 4096, 0)
    end += bytes
  }
})

t.test(
  'pieces keep what is in them when the memory grows, and are seen through every one of its buffers',
  async (t) => {
    const memory = new LaneMemory()
    const first = memory.take(1000)
    first.fill(7)
    const before = memory.wasm.buffer
    const large = memory.take(64 * MIB)
    t.not(memory.wasm.buffer, before, 'it has grown')
    large.fill(8)
    t.ok(first.every((byte) => byte === 7))
    first[0] = 9
    t.equal(new Uint8Array(memory.wasm.buffer)[first.byteOffset], 9)
  },
)

t.test('knows its own pieces and parts of them, old and new, and nobody else’s', async (t) => {
  const [memory, other] = [new LaneMemory(), new LaneMemory()]
  const old = memory.take(1)
  const fresh = memory.take(32 * MIB)
  t.ok(memory.owns(old) && memory.owns(fresh) && memory.owns(fresh.subarray(5, 10)))
  t.notOk(memory.owns(other.take(1)))
  t.notOk(memory.owns(new Uint8Array(8)))
  t.notOk(memory.owns(new Uint8Array(new SharedArrayBuffer(8))))
})

t.test('what is given back is given out again, so that it grows no further', async (t) => {
  const memory = new LaneMemory()
  const pieces = [memory.take(MIB), memory.take(MIB), memory.take(100 * KIB)]
  const length = memory.wasm.buffer.byteLength
  for (let turn = 0; turn < 100; turn++) {
    for (const piece of pieces) memory.give(piece)
    const again = [memory.take(MIB), memory.take(MIB - 1), memory.take(65 * KIB)]
    if (!again.every((piece) => pieces.includes(piece))) t.fail(`turn ${turn}: a piece is new`)
  }
  t.equal(memory.wasm.buffer.byteLength, length)
})
