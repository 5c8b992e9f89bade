/**
 * The size of a device, found by reading single bytes.
 */
import t from 'tap'
import { deviceSize } from '../../../lib/source/device-size.js'

const SIZES = [
  ...[0, 1, 2, 3, 4, 5, 511, 512, 513, 4095, 4096, 1000003],
  ...[2 ** 31 - 1, 2 ** 31, 2 ** 32 + 512, 2 ** 40 + 4096, 2 ** 52 - 1, 2 ** 52, 2 ** 53 - 1],
]

for (const size of SIZES) {
  t.test(`finds ${size} bytes`, async (t) => {
    const reads: { room: number; offset: number; length: number; position: number }[] = []
    const found = await deviceSize({
      read: async (buffer, offset, length, position) => {
        reads.push({ room: buffer.length, offset, length, position })
        return { bytesRead: position < size ? 1 : 0 }
      },
    })
    t.equal(found, size)
    t.ok(reads.length <= 110, `about a hundred reads at most: ${reads.length}`)
    t.ok(
      reads.every(({ room, offset, length }) => room === 1 && offset === 0 && length === 1),
      'of one byte each',
    )
    t.ok(
      reads.every(({ position }) => Number.isSafeInteger(position) && position >= 0),
      'at offsets that a number can tell',
    )
  })
}

t.test('passes a failing read on', async (t) => {
  const failure = new Error('EIO')
  await t.rejects(deviceSize({ read: () => Promise.reject(failure) }), failure)
})
