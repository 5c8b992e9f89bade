/**
 * Memory that nobody needs any more goes as soon as there is enough of it.
 */
import t from 'tap'
import { SpentMemory } from '../../../lib/crypto/spent-memory.js'
import { turns } from '../../fixtures/turns.js'

const MEBIBYTE = 2 ** 20

/** How many bytes each of them still has. */
const lengths = (all: readonly Uint8Array[]): number[] => all.map(({ buffer }) => buffer.byteLength)

for (const [title, sizes] of [
  ['at once', [MEBIBYTE]],
  ['more than that at once', [3 * MEBIBYTE + 1]],
  ['in halves', [MEBIBYTE / 2, MEBIBYTE / 2]],
  ['in pieces that do not divide it', [400_000, 400_000, 400_000]],
] as const) {
  t.test(`frees a mebibyte ${title}`, async (t) => {
    const spent = new SpentMemory()
    const all = sizes.map((length) => new Uint8Array(length))
    for (const [index, bytes] of all.entries()) {
      t.strictSame(lengths(all), sizes, `keeps all before number ${index}`)
      spent.add(bytes)
    }
    t.strictSame(
      lengths(all),
      sizes.map(() => 0),
    )
  })
}

t.test('keeps what is less', async (t) => {
  const spent = new SpentMemory()
  const bytes = new Uint8Array(MEBIBYTE - 1).fill(7)
  spent.add(bytes)
  t.equal(bytes.length, MEBIBYTE - 1)
  t.ok(bytes.every((byte) => byte === 7))
})

t.test('begins to count anew each time', async (t) => {
  const spent = new SpentMemory()
  const all = Array.from({ length: 8 }, () => new Uint8Array(MEBIBYTE / 2 - 1))
  for (const bytes of all) spent.add(bytes)
  t.strictSame(
    lengths(all).map((length) => length > 0),
    [false, false, false, false, false, false, true, true],
  )
})

t.test('counts the whole memory of a part of it', async (t) => {
  const spent = new SpentMemory()
  const { buffer } = new Uint8Array(MEBIBYTE)
  spent.add(new Uint8Array(buffer, 100, 1))
  t.equal(buffer.byteLength, 0)
})

t.test('leaves nothing behind, however long it goes on', async (t) => {
  const spent = new SpentMemory()
  const before = process.memoryUsage.rss()
  for (let i = 0; i < 300; i++) {
    const bytes = new Uint8Array(MEBIBYTE).fill(1)
    spent.add(bytes)
    if (i % 50 === 0) await turns()
  }
  const grown = process.memoryUsage.rss() - before
  t.ok(grown < 150 * MEBIBYTE, `${grown} bytes more after 300 MiB`)
})

t.test('overwrites what it still has', async (t) => {
  const spent = new SpentMemory()
  const [freed, kept] = [new Uint8Array(MEBIBYTE).fill(7), new Uint8Array(1000).fill(7)]
  spent.add(freed)
  spent.add(kept)
  spent.wipe()
  t.equal(freed.length, 0)
  t.ok(kept.every((byte) => byte === 0))
})
