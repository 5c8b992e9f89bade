// Offsets and the view through which 64-bit fields are read.
import t from 'tap'
import { guestOffset, HIGH_HALF, hostOffset, viewOf } from '../../../lib/format/units.js'

t.test('an offset is the number it was made of', async (t) => {
  t.equal(hostOffset(2 ** 53 - 1), 9007199254740991)
  t.equal(guestOffset(0x10000), 65536)
})

t.test('a high half counts in units of 2^32', async (t) => {
  t.equal(HIGH_HALF, 4294967296)
})

t.test('a view covers exactly the bytes given, wherever they lie in their memory, and copies nothing', async (t) => {
  const memory = Uint8Array.from([9, 9, 9, 0x51, 0x46, 0x49, 0xfb, 9])
  const part = memory.subarray(3, 7)
  const view = viewOf(part)
  t.equal(view.byteLength, 4)
  t.equal(view.getUint32(0), 0x514649fb, 'numbers are big-endian')
  t.throws(() => view.getUint8(4), RangeError)
  part[0] = 1
  t.equal(view.getUint8(0), 1)
})
