/**
 * The memory of a lane: pieces on pages of their own above the decoders' tables, however far it grows.
 */
import t from 'tap'
import { LaneMemory, TABLES_BYTES } from '../../../lib/decode/lane-memory.js'
import { randomNumbers } from '../../fixtures/random-writes.js'

const KIB = 1024
const MIB = 2 ** 20

t.test('gives out pieces that begin at pages above the tables', async (t) => {
  const memory = new LaneMemory()
  let end = TABLES_BYTES
  for (const [length, bytes] of [
    [0, 64 * KIB],
    [1, 64 * KIB],
    [100 * KIB, 128 * KIB],
    [5 * MIB, 5 * MIB],
    [64 * KIB, 64 * KIB],
    [3 * MIB + 1, 3 * MIB + 64 * KIB],
  ] as const) {
    const piece = memory.take(length)
    t.strictSame([piece.byteOffset, piece.length], [end, bytes], `${length} bytes`)
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

t.test('joins what is given back, so that any order and any sizes leave one gap', async (t) => {
  for (const order of [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
  ]) {
    const memory = new LaneMemory()
    const pieces = [MIB, 2 * MIB, 3 * MIB].map((length) => memory.take(length))
    const { byteLength } = memory.wasm.buffer
    for (const index of order) memory.give(pieces[index]!)
    const whole = memory.take(byteLength - TABLES_BYTES)
    t.strictSame([whole.byteOffset, whole.length], [TABLES_BYTES, byteLength - TABLES_BYTES], order.join(', '))
    t.equal(memory.wasm.buffer.byteLength, byteLength)
  }
})

t.test('never gives out what somebody has, and grows to little more than what was out at once', async (t) => {
  const memory = new LaneMemory()
  const random = randomNumbers(1)
  const held: Uint8Array[] = []
  let heldBytes = 0
  for (let turn = 0; turn < 5000; turn++) {
    const length = Math.ceil(random() ** 4 * 2 * MIB)
    if (heldBytes + length > 24 * MIB || (held.length > 0 && random() < 0.45)) {
      const [piece] = held.splice(Math.floor(random() * held.length), 1)
      heldBytes -= piece!.length
      if (piece![0] !== piece![piece!.length - 1]) t.fail(`turn ${turn}: a piece was written to`)
      memory.give(piece!)
      continue
    }
    const piece = memory.take(length)
    // Both ends are marked; whoever overlaps would change one of them.
    piece[0] = piece[piece.length - 1] = turn % 251
    held.push(piece)
    heldBytes += piece.length
  }
  const ranges = held.map(({ byteOffset, length }) => [byteOffset, byteOffset + length]).sort((a, b) => a[0]! - b[0]!)
  t.ok(
    ranges.every(([from], index) => index === 0 || from! >= ranges[index - 1]![1]!),
    'no two pieces overlap',
  )
  t.ok(memory.wasm.buffer.byteLength < 48 * MIB, `${memory.wasm.buffer.byteLength} bytes`)
})
