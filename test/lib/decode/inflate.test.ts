/**
 * zlib's clusters, block by block: what deflate allows and compressors hardly write. zlib is asked as well, so that an
 * expectation here cannot be wrong by itself. Damage is the subject of inflate-damage.test.ts.
 */
import t from 'tap'
import { createMemoryDecoder } from '../../fixtures/memory-decoder.js'
import { decodeGuarded } from '../../fixtures/decode-outcome.js'
import {
  DeflateWriter,
  distanceExtraBits,
  END_OF_BLOCK,
  lengthExtraBits,
  type Codes,
  type Token,
} from '../../fixtures/deflate-writer.js'
import { filled, pattern, text } from '../../fixtures/patterns.js'
import { inflateByZlib } from '../../fixtures/zlib-oracle.js'

const decoder = createMemoryDecoder('zlib')

/** Tests that a stream fills a cluster as long as `expected` with it. */
function yields(title: string, source: Uint8Array, expected: Buffer): void {
  t.test(`decodes ${title}`, async (t) => {
    const { bytes, refusal, misdeeds } = decodeGuarded(decoder, source, expected.length)
    t.strictSame({ refusal, misdeeds }, { refusal: undefined, misdeeds: [] })
    t.ok(bytes.equals(expected), 'the bytes are right')
    const verdict = await inflateByZlib(source, expected.length)
    t.ok(typeof verdict !== 'string' && verdict.equals(expected), 'zlib agrees')
  })
}

/** Lengths of a code in which each symbol given has a word of so many bits. */
const lengths = (count: number, words: Readonly<Record<number, number>>): number[] =>
  Array.from({ length: count }, (_, symbol) => words[symbol] ?? 0)

const cluster = text(1, 512)
const start = cluster.subarray(0, 200)
const rest = cluster.subarray(200)
const noise = pattern(1, 33_000)

yields('one stored block', new DeflateWriter().stored(cluster, { isLast: true }).finish(), cluster)
yields(
  'stored blocks, empty ones between them, bits of padding set',
  new DeflateWriter()
    .stored(Buffer.alloc(0), { padding: 1 })
    .stored(start, { padding: 1 })
    .stored(Buffer.alloc(0))
    .stored(rest, { isLast: true, padding: 1 })
    .finish(),
  cluster,
)
yields(
  'a block of each type, none of them beginning with a byte',
  new DeflateWriter()
    .fixed([...start, END_OF_BLOCK])
    .stored(rest.subarray(0, 100))
    .dynamic({ literals: new Array<number>(257).fill(9).fill(8, 0, 255), distances: [0] }, [
      ...rest.subarray(100, 200),
      END_OF_BLOCK,
    ])
    .fixed([...rest.subarray(200), END_OF_BLOCK], true)
    .finish(),
  cluster,
)
yields(
  'every byte as a literal of the fixed code',
  new DeflateWriter().fixed([...noise, END_OF_BLOCK], true).finish(),
  noise,
)

/** What a match's symbols and extra bits mean, from the tables of RFC 1951 in another shape: sums instead of rows. */
function meaning(
  symbol: number,
  extra: number,
  first: number,
  base: number,
  extraBits: (symbol: number) => number,
): number {
  let value = base
  for (let earlier = first; earlier < symbol; earlier++) value += 2 ** extraBits(earlier)
  return value + extra
}

const lengthOf = (symbol: number, extra: number): number =>
  symbol === 285 ? 258 : meaning(symbol, extra, 257, 3, lengthExtraBits)
const distanceOf = (symbol: number, extra: number): number => meaning(symbol, extra, 0, 1, distanceExtraBits)

/** The bytes that literals and matches stand for. */
function expand(history: Buffer, tokens: readonly Token[]): Buffer {
  const out = [...history]
  for (const token of tokens) {
    if (typeof token === 'number') {
      if (token < END_OF_BLOCK) out.push(token)
      continue
    }
    const distance = distanceOf(token.distance, token.distanceExtra ?? 0)
    for (let left = lengthOf(token.length, token.lengthExtra ?? 0); left > 0; left--)
      out.push(out[out.length - distance]!)
  }
  return Buffer.from(out)
}

const extremes = (bits: number): number[] => [...new Set([0, 1, 2 ** bits - 1].filter((extra) => extra < 2 ** bits))]

const everyMatch: Token[] = []
for (let length = 257; length <= 285; length++) {
  for (const lengthExtra of extremes(lengthExtraBits(length))) everyMatch.push({ length, lengthExtra, distance: 7 }, 65)
}
for (let distance = 0; distance <= 29; distance++) {
  for (const distanceExtra of extremes(distanceExtraBits(distance))) {
    for (const length of [257, 262, 285]) everyMatch.push({ length, distance, distanceExtra })
  }
}
everyMatch.push(END_OF_BLOCK)

yields(
  'every length and every distance, up to 258 bytes from 32 KiB before',
  new DeflateWriter().stored(noise).fixed(everyMatch, true).finish(),
  expand(noise, everyMatch),
)

const overlapping: Token[] = [...start.subarray(0, 40)]
for (let distance = 0; distance <= 9; distance++) {
  for (let distanceExtra = 0; distanceExtra < 2 ** distanceExtraBits(distance); distanceExtra++) {
    for (let length = 257; length <= 276; length++)
      overlapping.push({ length, distance, distanceExtra }, 200 + distance)
  }
}
overlapping.push(END_OF_BLOCK)
yields(
  'copies that overlap what they make, at distances of 1 to 32',
  new DeflateWriter().fixed(overlapping, true).finish(),
  expand(Buffer.alloc(0), overlapping),
)

// Words of 1 to 15 bits: the longest that are allowed, in both alphabets.
const steep: Codes = {
  literals: lengths(286, {
    ...{ 0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 65: 10, 66: 11, 67: 12, 68: 13, 256: 14 },
    ...{ 283: 15, 284: 15 },
  }),
  distances: lengths(30, {
    ...{ 0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 9: 10, 10: 11, 11: 12, 12: 13, 13: 14 },
    ...{ 28: 15, 29: 15 },
  }),
}
const widest: Token[] = []
for (let round = 0; round < 60; round++) {
  for (let literals = round % 5; literals > 0; literals--) widest.push(65 + ((round + literals) % 4))
  const length = 283 + (round % 2)
  const distance = 28 + (Math.floor(round / 2) % 2)
  widest.push({ length, lengthExtra: (round * 7) % 31, distance, distanceExtra: (round * 911) % 8192 })
}
widest.push(END_OF_BLOCK)
yields(
  'the widest symbols there can be, one after the other',
  new DeflateWriter().stored(noise).dynamic(steep, widest, true).finish(),
  expand(noise, widest),
)

yields(
  'a length of 258 by the symbol for 227 and more',
  new DeflateWriter().fixed([9, { length: 284, lengthExtra: 31, distance: 0 }, END_OF_BLOCK], true).finish(),
  filled(9, 259),
)
yields(
  'a code of distances with a single word, of one bit',
  new DeflateWriter()
    .dynamic(
      { literals: lengths(286, { 7: 1, 256: 2, 285: 2 }), distances: lengths(1, { 0: 1 }) },
      [7, { length: 285, distance: 0 }, { length: 285, distance: 0 }, END_OF_BLOCK],
      true,
    )
    .finish(),
  filled(7, 517),
)
yields(
  'a block without a code for distances, and one whose only symbol is its end',
  new DeflateWriter()
    .dynamic({ literals: lengths(257, { 256: 1 }), distances: [0] }, [END_OF_BLOCK])
    .dynamic({ literals: lengths(257, { 65: 1, 256: 1 }), distances: [0, 0] }, [...filled(65, 300), END_OF_BLOCK], true)
    .finish(),
  filled(65, 300),
)
yields(
  'lengths of code words given as runs, one of them from literals on into distances',
  new DeflateWriter()
    .dynamic(
      { literals: lengths(258, { 65: 2, 66: 2, 256: 2, 257: 2 }), distances: [2, 2, 2, 2] },
      [65, 66, ...Array.from({ length: 100 }, () => ({ length: 257, distance: 1 })), END_OF_BLOCK],
      true,
      {
        lengths: [[18, 54], 2, 2, [18, 127], [18, 40], 2, 2, [16, 0], 2],
      },
    )
    .finish(),
  Buffer.from('AB'.repeat(151)),
)
yields(
  'a code for code lengths of the fewest words that can be written',
  new DeflateWriter()
    .dynamic({ literals: lengths(257, { 0: 1, 256: 1 }), distances: [1] }, [...filled(0, 77), END_OF_BLOCK], true, {
      lengthCode: lengths(19, { 1: 1, 18: 1 }),
      lengthCodeCount: 18,
      lengths: [1, [18, 127], [18, 106], 1, 1],
    })
    .finish(),
  filled(0, 77),
)

// What a cluster's descriptor gives is whole sectors: the stream is followed by other clusters' bytes.
yields(
  'bytes after the stream',
  Buffer.concat([new DeflateWriter().stored(cluster, { isLast: true }).finish(), noise.subarray(0, 1000)]),
  cluster,
)
for (const [title, tokens] of [
  ['literals', [...cluster, ...cluster]],
  ['a copy', [...cluster.subarray(0, 500), { length: 285, distance: 0 }, END_OF_BLOCK]],
] as const) {
  const expected = expand(Buffer.alloc(0), tokens).subarray(0, 512)
  const source = new DeflateWriter().fixed(tokens, true).finish()
  yields(`a stream that goes on with ${title} when the cluster is full`, source, expected)
}
yields(
  'a stored block that is longer than the cluster',
  new DeflateWriter().stored(noise, { isLast: true }).finish(),
  noise.subarray(0, 512),
)
yields(
  'a stream that is cut off just when the cluster is full',
  new DeflateWriter().stored(Buffer.alloc(0)).stored(cluster).finish(),
  cluster,
)
