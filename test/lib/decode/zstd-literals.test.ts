/**
 * The literals of zstd's blocks in every form that there is, and each way in which their Huffman codes can be damaged. How
 * compressors write them depends on the bytes; here they are written on purpose.
 */
import t from 'tap'
import { createMemoryDecoder } from '../../fixtures/memory-decoder.js'
import { decodeGuarded } from '../../fixtures/decode-outcome.js'
import { filled, pattern } from '../../fixtures/patterns.js'
import { accepts, refuses } from '../../fixtures/zstd-checks.js'
import { zstdFrame, type ZstdBlock } from '../../fixtures/zstd-frames.js'
import {
  describeWeights,
  huffmanBlock,
  plainBlock,
  type HuffmanOptions,
  type Weights,
} from '../../fixtures/zstd-literals.js'
import { describeDistribution } from '../../fixtures/zstd-sequences.js'

const decoder = createMemoryDecoder('zstd')

/** Words of 1, 2, 3 and 3 bits. */
const FOUR: Weights = [3, 2, 1, 1]
/** Words of 1 to 11 bits, the longest there may be, for every other symbol. */
const STEEP: Weights = [0, 11, 0, 10, 0, 9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 1]
/** As many symbols as can be written without another code for the code. */
const MANY: Weights = new Array<number>(129).fill(1).fill(2, 0, 127)

const NINE: ZstdBlock = { kind: 'rle', byte: 0, length: 9 }

/** Symbols that have words, many of the first and few of the last. */
function symbolsOf(weights: Weights, length: number): number[] {
  const usable = [...weights.keys()].filter((symbol) => weights[symbol]! > 0)
  return [...pattern(length, length)].map((byte) => usable[Math.floor((byte / 256) ** 2 * usable.length)]!)
}

const FORMATS = [0, 1, 2, 3] as const

t.test('raw and repeated literals, with headers of every length', async (t) => {
  for (const [sizeBits, lengths] of [
    [5, [1, 31]],
    [12, [1, 31, 32, 4095]],
    [20, [1, 4096, 131_068]],
  ] as const) {
    for (const length of lengths) {
      accepts(
        t,
        `raw, ${length} in ${sizeBits} bits`,
        pattern(1, length),
        plainBlock('raw', pattern(1, length), sizeBits),
      )
      accepts(
        t,
        `repeated, ${length} in ${sizeBits} bits`,
        filled(9, length),
        plainBlock('rle', filled(9, length), sizeBits),
      )
    }
  }
  accepts(t, 'repeated, as many as a block may have', filled(9, 131_072), plainBlock('rle', filled(9, 131_072), 20))
  refuses(t, 'more literals than a block may have', 200_000, plainBlock('rle', filled(9, 131_073), 20))
})

for (const format of FORMATS) {
  t.test(`literals in a Huffman code, format ${format}`, async (t) => {
    const lengths = format === 0 ? [1, 2, 3, 7, 100, 1023] : [6, 7, 8, 9, 10, 11, 12, 100, 101, 102, 103, 1000, 1023]
    if (format === 2) lengths.push(1024, 9999, 16_383)
    if (format === 3) lengths.push(16_384, 100_001, 131_072)
    for (const [name, weights] of Object.entries({ FOUR, STEEP, MANY })) {
      for (const length of lengths) {
        const literals = symbolsOf(weights, length)
        accepts(t, `${name}, ${length} literals`, Buffer.from(literals), huffmanBlock(literals, { format, weights }))
      }
    }
  })
}

t.test('a code counts for the blocks behind it', async (t) => {
  const parts = [100, 200, 300, 50].map((length) => symbolsOf(FOUR, length))
  const again = { weights: FOUR, hasTree: false }
  accepts(
    t,
    'one code, four blocks, other blocks between',
    Buffer.concat([Buffer.from(parts.flat()), Buffer.alloc(9)]),
    huffmanBlock(parts[0]!, { format: 0, weights: FOUR }),
    huffmanBlock(parts[1]!, { format: 0, ...again }),
    huffmanBlock(parts[2]!, { format: 1, ...again }),
    huffmanBlock(parts[3]!, { format: 2, ...again }),
    plainBlock('rle', Buffer.alloc(9), 5),
  )
  const swapped = [3, 1, 2, 1]
  accepts(
    t,
    'a new code takes the place of the old one',
    Buffer.from(parts.slice(0, 3).flat()),
    huffmanBlock(parts[0]!, { format: 0, weights: FOUR }),
    huffmanBlock(parts[1]!, { format: 0, weights: swapped }),
    huffmanBlock(parts[2]!, { format: 1, weights: swapped, hasTree: false }),
  )
  refuses(t, 'without a code before it', 100, huffmanBlock(parts[0]!, { format: 0, ...again }))
  const first = zstdFrame([huffmanBlock(parts[0]!, { format: 0, weights: FOUR })], { contentSize: 100 })
  const second = zstdFrame([huffmanBlock(parts[1]!, { format: 0, ...again })], { contentSize: 200 })
  t.type(decodeGuarded(decoder, Buffer.concat([first, second]), 300).refusal, 'string', 'not for the next frame')
})

t.test('codes that are none', async (t) => {
  const literals = symbolsOf(FOUR, 100)
  const rows: [title: string, tree: number[]][] = [
    ['no weights at all', [127 + 1, 0x00]],
    ['weights that are all 0', [127 + 4, 0x00, 0x00]],
    ['a single symbol beside the last', [127 + 3, 0x10, 0x00]],
    ['what is left for the last symbol is no power of two', [127 + 3, 0x31, 0x00]],
    ['a weight of 13', [127 + 3, 0xd1, 0x10]],
    ['a weight of 15', [127 + 3, 0xf1, 0x10]],
    ['fewer bytes than weights', [127 + 128, 0x11, 0x11]],
    ['a compressed description of no bytes', [0]],
    ['a compressed description of one byte', [1, 0x10]],
    ['a compressed description of zeros', [4, 0, 0, 0, 0]],
    ['a compressed description of noise', [8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
    ['a compressed description longer than the block', [127, 0x30, 0x6f]],
  ]
  const codes: [title: string, weights: Weights][] = [
    ['words of 12 bits by a weight of 12', [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1]],
    ['words of 12 bits by many weights', [11, 11, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1]],
    ['only words of one length and a weight of 2', [2, 2]],
    ['longer words, but none of the greatest length', [3, 2, 2]],
  ]
  // A weight of 1 nearly always: hardly a bit for each of thousands of weights.
  const endless = Buffer.concat([describeDistribution(5, [1, 31]), pattern(3, 100)])
  rows.push(['more weights than there are bytes', [endless.length, ...endless]])
  for (const format of [0, 1] as const) {
    for (const [title, weights] of codes) {
      refuses(t, title, 100, huffmanBlock(symbolsOf(weights, 100), { format, weights }))
    }
    for (const [title, tree] of rows) {
      refuses(t, title, 100, huffmanBlock(literals, { format, weights: FOUR, tree: Buffer.from(tree) }))
    }
  }
})

t.test('headers that are cut off by the end of the block', async (t) => {
  for (const type of [0, 1, 2, 3]) {
    for (const format of FORMATS) {
      for (let size = 1; size <= 5; size++) {
        const content = Buffer.from([type | (format << 2), 0, 0, 0, 0]).subarray(0, size)
        // With more than a byte they may be whole: no literals, no sequences.
        if (type < 2 && size > 1) continue
        refuses(
          t,
          `type ${type}, format ${format}, ${size} bytes`,
          9,
          { kind: 'verbatim', type: 2, size, content },
          NINE,
        )
      }
    }
  }
})

t.test('streams that do not fit their literals', async (t) => {
  const literals = symbolsOf(FOUR, 400)
  const last = (stream: Buffer): number => stream.length - 1
  for (const format of FORMATS) {
    const rows: [title: string, options: Partial<HuffmanOptions>, length?: number][] = [
      ['a literal more than there is', { regeneratedBytes: 401 }, 401],
      ['four literals more than there are', { regeneratedBytes: 404 }, 404],
      ['a literal less than there is', { regeneratedBytes: 399 }, 399],
      ['no literals', { regeneratedBytes: 0 }],
      ['streams longer than the block', { compressedBytes: 1000 }],
      ['no streams', { compressedBytes: describeWeights(FOUR).length }],
    ]
    for (let index = 0; index < (format === 0 ? 1 : 4); index++) {
      rows.push(
        [`stream ${index} ends with a byte of 0`, { change: (all) => void all[index]!.fill(0, last(all[index]!)) }],
        [
          `stream ${index} has a mark in another place`,
          { change: (all) => void (all[index]![last(all[index]!)]! ^= 0x80) },
        ],
        [
          `stream ${index} begins with other bytes`,
          { change: (all) => void (all[index] = Buffer.concat([Buffer.of(0), all[index]!])) },
        ],
        [`stream ${index} lacks its first byte`, { change: (all) => void (all[index] = all[index]!.subarray(1)) }],
        [`stream ${index} is empty`, { change: (all) => void (all[index] = Buffer.alloc(0)) }],
        [`stream ${index} is but a mark`, { change: (all) => void (all[index] = Buffer.of(1)) }],
      )
    }
    if (format > 0) {
      rows.push(
        ['lengths of streams beyond the block', { changeJumps: (lengths) => void lengths.fill(0xffff) }],
        [
          'lengths of streams that leave nothing for the last',
          { changeJumps: (lengths) => void (lengths[0]! += 1000) },
        ],
        ['a length of a stream that is one too much', { changeJumps: (lengths) => void (lengths[1]! += 1) }],
      )
    }
    for (const [title, options, length = 400] of rows) {
      const block = huffmanBlock(literals, { format, weights: FOUR, ...options })
      refuses(t, `format ${format}: ${title}`, length, block)
      refuses(t, `format ${format}, behind another: ${title}`, length + 9, NINE, block)
    }
  }
  refuses(
    t,
    'fewer literals in four streams than these can hold',
    5,
    huffmanBlock([0, 1, 2, 3, 0], { format: 1, weights: FOUR }),
  )
  refuses(
    t,
    'more than a block may have',
    140_000,
    huffmanBlock(symbolsOf(FOUR, 131_073), { format: 3, weights: FOUR }),
  )
})
