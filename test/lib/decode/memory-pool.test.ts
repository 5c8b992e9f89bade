/**
 * Ordinary memory that is used again: who has it, how much of it there is, and how much lies idle.
 */
import t from 'tap'
import { allocate, MemoryPool } from '../../../lib/decode/memory-pool.js'

const KIB = 1024
const MIB = 2 ** 20

t.test('gives out at least what was asked for, and less than twice as much, or 64 KiB', async (t) => {
  const pool = new MemoryPool(0)
  for (const [length, bytes] of [
    [0, 64 * KIB],
    [1, 64 * KIB],
    [64 * KIB, 64 * KIB],
    [64 * KIB + 1, 128 * KIB],
    [MIB - 1, MIB],
    [MIB, MIB],
    [MIB + 1, 2 * MIB],
    [3 * MIB, 4 * MIB],
  ] as const) {
    t.equal(pool.take(length).length, bytes, `${length} bytes`)
    t.equal(MemoryPool.sizeFor(length), bytes, 'as is said before')
  }
})

t.test('each piece is of a buffer that nobody else has', async (t) => {
  const pool = new MemoryPool(MIB)
  const pieces = Array.from({ length: 4 }, () => pool.take(1000))
  t.equal(new Set(pieces.map(({ buffer }) => buffer)).size, 4)
  t.ok(pieces.every(({ buffer }) => buffer instanceof ArrayBuffer))
})

t.test('fresh memory has the length that was asked for, and a buffer of its own', async (t) => {
  const [one, other] = [allocate(1000), allocate(1000)]
  t.equal(one.length, 1000)
  t.not(one.buffer, other.buffer)
})

t.test('what is given back is given out again, once, for the same size only', async (t) => {
  const pool = new MemoryPool(MIB)
  const [small, large] = [pool.take(1), pool.take(100 * KIB)]
  pool.give(small)
  pool.give(large)
  t.equal(pool.take(70 * KIB), large)
  t.equal(pool.take(64 * KIB), small)
  const more = [pool.take(70 * KIB), pool.take(64 * KIB)]
  t.notOk(more.includes(small) || more.includes(large), 'it is out already')
})

t.test('what lies idle stays below the limit, and what is taken again makes room', async (t) => {
  const pool = new MemoryPool(192 * KIB)
  const pieces = Array.from({ length: 5 }, () => pool.take(64 * KIB))
  for (const piece of pieces) pool.give(piece)
  const kept = (): Uint8Array[] =>
    Array.from({ length: 5 }, () => pool.take(64 * KIB)).filter((one) => pieces.includes(one as Buffer))
  const first = kept()
  t.equal(first.length, 3, 'three of 64 KiB fill it')
  t.strictSame(kept(), [], 'and then it is empty')

  for (const piece of first) pool.give(piece)
  t.equal(kept().length, 3, 'and can be filled again')

  const large = pool.take(100 * KIB)
  pool.give(large)
  pool.give(first[0]!)
  pool.give(first[1]!)
  t.equal(pool.take(128 * KIB), large)
  t.strictSame(kept(), [first[0]], 'sizes count together')
})

t.test('nothing lies idle where nothing may', async (t) => {
  const pool = new MemoryPool(0)
  const piece = pool.take(1)
  pool.give(piece)
  t.not(pool.take(1), piece)
})
