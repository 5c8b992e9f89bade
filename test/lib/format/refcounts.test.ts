/**
 * Refcount table entries and refcounts of every width, with values and places written out.
 */
import t from 'tap'
import {
  decodeRefcounts,
  hasReservedRefcountTableBits,
  maxRefcount,
  refcountBlockOffset,
  refcountsPerBlock,
} from '../../../lib/format/refcounts.js'
import { viewOf } from '../../../lib/format/units.js'

function decoded(hexBytes: string, refcountOrder: number, count: number): number[] {
  const out = new Float64Array(count)
  decodeRefcounts(viewOf(Buffer.from(hexBytes, 'hex')), refcountOrder, out)
  return [...out]
}

t.test('refcounts narrower than a byte fill it from its least significant bit', async (t) => {
  t.strictSame(decoded('b180', 0, 16), [1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1])
  t.strictSame(decoded('b101', 1, 5), [1, 0, 3, 2, 1])
  t.strictSame(decoded('b1f0', 2, 4), [1, 11, 0, 15])
})

t.test('whole bytes are big-endian', async (t) => {
  t.strictSame(decoded('00ff01', 3, 3), [0, 255, 1])
  t.strictSame(decoded('0001ffff0100', 4, 3), [1, 65535, 256])
  t.strictSame(decoded('00000001ffffffff', 5, 2), [1, 4294967295])
  t.strictSame(decoded('0000000000000001001fffffffffffff', 6, 2), [1, Number.MAX_SAFE_INTEGER])
})

t.test('as many are decoded as there is room for', async (t) => {
  t.strictSame(decoded('ffffffffffffffff', 4, 1), [65535])
  t.strictSame(decoded('', 4, 0), [])
})

t.test('a block has as many refcounts as fit into a cluster', async (t) => {
  t.equal(refcountsPerBlock(65536, 4), 32768)
  t.equal(refcountsPerBlock(512, 6), 64)
  t.equal(refcountsPerBlock(2 ** 21, 0), 2 ** 24)
})

t.test('the largest refcount follows from the width', async (t) => {
  t.strictSame([0, 1, 2, 3, 4, 5].map(maxRefcount), [1, 3, 15, 255, 65535, 4294967295])
  t.ok(maxRefcount(6) > Number.MAX_SAFE_INTEGER)
})

t.test('an entry of the refcount table has an offset from bit 9 on, and reserved bits below', async (t) => {
  t.equal(refcountBlockOffset(0, 0), 0)
  t.equal(refcountBlockOffset(0x1, 0xffff_ffff), 0x1_ffff_fe00)
  t.equal(refcountBlockOffset(0xffff_ffff, 0), 0xffff_ffff * 2 ** 32)
  t.equal(hasReservedRefcountTableBits(0xffff_fe00), false)
  t.equal(hasReservedRefcountTableBits(0x100), true)
  t.equal(hasReservedRefcountTableBits(1), true)
})
