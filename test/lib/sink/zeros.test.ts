// Finding zeros in data: what need not be written, in blocks of 4 KiB of the file, and never a byte too much.
import t from 'tap'
import { BLOCK_BYTES, dataRanges, type BufferRange } from '../../../lib/sink/zeros.js'
import { pattern } from '../../fixtures/patterns.js'

const block = (...bytes: readonly [at: number, value: number][]): Buffer => {
  const buffer = Buffer.alloc(4096)
  for (const [at, value] of bytes) buffer[at] = value
  return buffer
}
const zeros = block()
const data = pattern(1, 4096)

/** The same, byte by byte. */
function naive(bytes: Uint8Array, fileOffset: number): BufferRange[] {
  const ranges: { start: number; end: number }[] = []
  for (let start = 0; start < bytes.length;) {
    const end = Math.min(bytes.length, start + 4096 - ((fileOffset + start) % 4096))
    if (bytes.subarray(start, end).some((byte) => byte !== 0)) {
      const last = ranges[ranges.length - 1]
      if (last?.end === start) last.end = end
      else ranges.push({ start, end })
    }
    start = end
  }
  return ranges
}

t.test('works in blocks of 4 KiB', async (t) => {
  t.equal(BLOCK_BYTES, 4096)
})

t.test('finds what is not zeros, joined where it lies side by side', async (t) => {
  const cases: [name: string, bytes: Buffer, expected: [number, number][]][] = [
    ['nothing', Buffer.alloc(0), []],
    ['zeros', zeros, []],
    ['data', data, [[0, 4096]]],
    ['zeros, data', Buffer.concat([zeros, data]), [[4096, 8192]]],
    ['data, zeros', Buffer.concat([data, zeros]), [[0, 4096]]],
    ['data, data', Buffer.concat([data, data]), [[0, 8192]]],
    [
      'data, zeros, data',
      Buffer.concat([data, zeros, data]),
      [
        [0, 4096],
        [8192, 12_288],
      ],
    ],
    ['zeros, data, data, zeros', Buffer.concat([zeros, data, data, zeros]), [[4096, 12_288]]],
    ['a short end that is data', Buffer.concat([zeros, data.subarray(0, 1)]), [[4096, 4097]]],
    ['a short end that is zeros', Buffer.concat([data, zeros.subarray(0, 7)]), [[0, 4096]]],
    ['one byte', Buffer.from([1]), [[0, 1]]],
    ['one zero', Buffer.from([0]), []],
  ]
  for (const [name, bytes, expected] of cases) {
    t.same(
      dataRanges(bytes, 0),
      expected.map(([start, end]) => ({ start, end })),
      name,
    )
  }
})

t.test('looks at blocks of the file, not of the buffer', async (t) => {
  // 1000 bytes belong to the first block of the file, and are data; the next block is zeros.
  const bytes = Buffer.concat([data.subarray(0, 1000), zeros, data.subarray(0, 50)])
  t.same(dataRanges(bytes, 3096), [
    { start: 0, end: 1000 },
    { start: 5096, end: 5146 },
  ])
  t.same(dataRanges(bytes, 2 ** 45 + 3096), [
    { start: 0, end: 1000 },
    { start: 5096, end: 5146 },
  ])
  t.same(dataRanges(bytes, 0), [{ start: 0, end: 5146 }], 'elsewhere both blocks hold data')
})

t.test('sees a single byte anywhere in a block', async (t) => {
  const places = [0, 1, 2, 7, 8, 63, 64, 1023, 1024, 2047, 2048, 2049, 3000, 4087, 4088, 4094, 4095]
  for (const at of places) {
    for (const value of [1, 0x80, 0xff]) {
      const bytes = Buffer.concat([zeros, block([at, value]), zeros])
      t.same(dataRanges(bytes, 0), [{ start: 4096, end: 8192 }], `byte ${at} is ${value}`)
    }
  }
  let missed = 0
  for (let at = 0; at < 4096; at++) missed += dataRanges(block([at, 1]), 0).length === 1 ? 0 : 1
  t.equal(missed, 0, 'none of 4096 places is missed')
})

t.test('keeps to the bytes of a view', async (t) => {
  const around = Buffer.concat([data, zeros, zeros, data])
  t.same(dataRanges(around.subarray(4096, 12_288), 0), [])
  const view = new Uint8Array(around.buffer, around.byteOffset + 4000, 5000)
  t.same(dataRanges(view, 4000), [{ start: 0, end: 96 }])
})

t.test('takes memory that threads share', async (t) => {
  const shared = new Uint8Array(new SharedArrayBuffer(12_288))
  shared[5000] = 1
  t.same(dataRanges(shared, 0), [{ start: 4096, end: 8192 }])
})

t.test('finds the same as a loop over bytes, at any offset', async (t) => {
  const choices = pattern(2, 400)
  for (let round = 0; round < 100; round++) {
    const parts = [...choices.subarray(round, round + 4)].map((choice) =>
      choice % 3 === 0
        ? data.subarray(0, choice * 16)
        : choice % 3 === 1
          ? Buffer.alloc(choice * 40)
          : block([choice * 16, 1]),
    )
    const bytes = Buffer.concat(parts)
    const fileOffset = (choices[round] ?? 0) * 77
    t.same(dataRanges(bytes, fileOffset), naive(bytes, fileOffset))
  }
})
