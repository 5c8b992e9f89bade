/**
 * zlib's clusters that are none: every way in which a deflate stream can be damaged or too short is refused, and the
 * target stays as it was. zlib is asked as well, so that an expectation here cannot be wrong by itself.
 */
import t, { type Test } from 'tap'
import { createMemoryDecoder } from '../../fixtures/memory-decoder.js'
import { decodeGuarded } from '../../fixtures/decode-outcome.js'
import { DeflateWriter, END_OF_BLOCK, type Codes } from '../../fixtures/deflate-writer.js'
import { filled, text } from '../../fixtures/patterns.js'
import { inflateByZlib } from '../../fixtures/zlib-oracle.js'

const CLUSTER = 512
const decoder = createMemoryDecoder('zlib')
const cluster = text(2, CLUSTER)
const literals = [...cluster]

/** Asserts that a stream fills no cluster, and why zlib says so. */
async function refuses(t: Test, title: string, source: Uint8Array, why: 'damaged' | 'too short'): Promise<void> {
  const { refusal, misdeeds } = decodeGuarded(decoder, source, CLUSTER)
  t.type(refusal, 'string', `${title}: is refused`)
  t.strictSame(misdeeds, [], `${title}: nothing else happens`)
  t.equal(await inflateByZlib(source, CLUSTER), why, `${title}: zlib agrees`)
}

const lengths = (count: number, words: Readonly<Record<number, number>>): number[] =>
  Array.from({ length: count }, (_, symbol) => words[symbol] ?? 0)

/** A code that is fine: A, the end, and two lengths, with four distances. */
const FINE: Codes = { literals: lengths(259, { 65: 2, 256: 2, 257: 2, 258: 2 }), distances: [2, 2, 2, 2] }
const AS = [...filled(65, CLUSTER)]

t.test('the codes that the damage below is done to are fine', async (t) => {
  const source = new DeflateWriter().dynamic(FINE, [...AS, END_OF_BLOCK], true).finish()
  t.ok(decodeGuarded(decoder, source, CLUSTER).bytes.equals(filled(65, CLUSTER)))
})

t.test('blocks that are damaged', async (t) => {
  const far = { length: 257, distance: 4, distanceExtra: 1 } // 6 bytes back
  const rows: [title: string, writer: DeflateWriter][] = [
    ['a block of the fourth type', new DeflateWriter().reserved()],
    [
      'the same with all that the third has',
      new DeflateWriter().dynamic(FINE, [...AS, END_OF_BLOCK], true, { blockType: 3 }),
    ],
    ['the same behind a good one', new DeflateWriter().fixed([...literals.slice(1), END_OF_BLOCK]).reserved()],
    ['a stored block whose lengths disagree', new DeflateWriter().stored(cluster, { complement: 0xfdfe })],
    ['length symbol 286', new DeflateWriter().fixed([65, { length: 286, distance: 0 }])],
    ['length symbol 287', new DeflateWriter().fixed([65, { length: 287, distance: 0 }])],
    ['distance symbol 30', new DeflateWriter().fixed([65, { length: 257, distance: 30 }])],
    ['distance symbol 31', new DeflateWriter().fixed([65, { length: 257, distance: 31 }])],
    ['a copy before there is anything', new DeflateWriter().fixed([{ length: 257, distance: 0 }])],
    ['a copy from one byte before the beginning', new DeflateWriter().fixed([1, 2, 3, 4, 5, far])],
    [
      'the same after hundreds of bytes',
      new DeflateWriter().fixed([...literals.slice(0, 256), { length: 257, distance: 16, distanceExtra: 0 }]),
    ],
  ]
  for (const [title, writer] of rows) {
    // What comes behind would fill the cluster, if anybody went on.
    const source = writer.stored(cluster).stored(cluster).finish()
    await refuses(t, title, source, 'damaged')
  }
})

t.test('codes that are none', async (t) => {
  const rows: [title: string, codes: Codes][] = [
    ['287 symbols for literals and lengths', { ...FINE, literals: lengths(287, { 65: 1, 256: 1 }) }],
    ['288 symbols for literals and lengths', { ...FINE, literals: lengths(288, { 65: 1, 256: 1 }) }],
    ['31 distances', { ...FINE, distances: lengths(31, { 0: 1, 1: 1 }) }],
    ['32 distances', { ...FINE, distances: lengths(32, { 0: 1, 1: 1 }) }],
    ['no end of the block', { ...FINE, literals: lengths(257, { 65: 1, 66: 1 }) }],
    ['no literals at all', { ...FINE, literals: lengths(257, {}) }],
    ['three words of one bit', { ...FINE, literals: lengths(257, { 65: 1, 66: 1, 256: 1 }) }],
    ['a word too many of 15 bits', { ...FINE, literals: lengths(257, { 65: 1, 66: 1, 256: 15 }) }],
    ['two words of two bits', { ...FINE, literals: lengths(257, { 65: 2, 256: 2 }) }],
    ['the end as a single word of two bits', { ...FINE, literals: lengths(257, { 256: 2 }) }],
    ['three distances of one bit', { ...FINE, distances: [1, 1, 1] }],
    ['three distances of two bits', { ...FINE, distances: [2, 2, 2] }],
    ['a single distance of two bits', { ...FINE, distances: [0, 2] }],
  ]
  for (const [title, codes] of rows) {
    await refuses(t, title, new DeflateWriter().dynamic(codes, [...AS, END_OF_BLOCK], true).finish(), 'damaged')
  }
})

t.test('codes for code lengths that are none', async (t) => {
  const all = [...FINE.literals, ...FINE.distances]
  const rows: [title: string, lengthCode: number[], options?: { lengthCodeCount?: number }][] = [
    ['no words', lengths(19, {})],
    ['a single word', lengths(19, { 2: 1 })],
    ['words that leave others free', lengths(19, { 0: 2, 2: 2, 1: 2 })],
    ['three words of one bit', lengths(19, { 0: 1, 1: 1, 2: 1 })],
    ['nineteen words of four bits', new Array<number>(19).fill(4)],
    ['words that are not written', lengths(19, { 0: 1, 2: 1 }), { lengthCodeCount: 4 }],
  ]
  for (const [title, lengthCode, options] of rows) {
    const source = new DeflateWriter().dynamic(FINE, [...AS, END_OF_BLOCK], true, {
      lengthCode,
      lengths: all,
      ...options,
    })
    await refuses(t, title, source.finish(), 'damaged')
  }
})

t.test('runs of code lengths that are none', async (t) => {
  const rows: [title: string, lengths: (number | [16 | 17 | 18, number])[]][] = [
    ['a repetition of nothing', [[16, 0], ...new Array<number>(260).fill(2)]],
    ['a repetition past the end', [...FINE.literals, 2, 2, [16, 0]]],
    ['zeros past the end', [...FINE.literals, 2, 2, [17, 0]]],
    ['many zeros past the end', [...FINE.literals, [18, 0]]],
    ['the most zeros past the end', [...FINE.literals.slice(0, 258), [18, 127]]],
  ]
  for (const [title, lengths] of rows) {
    const source = new DeflateWriter().dynamic(FINE, [...AS, END_OF_BLOCK], true, { lengths }).stored(cluster)
    await refuses(t, title, source.finish(), 'damaged')
  }
})

t.test('words that stand for nothing, whatever they stood for in the block before', async (t) => {
  // Here every word has a meaning: 0 and 10 are literals, each bit is a distance.
  const before: Codes = { literals: lengths(258, { 65: 1, 66: 2, 256: 3, 257: 3 }), distances: [1, 1] }
  const lonelyEnd: Codes = { literals: lengths(257, { 256: 1 }), distances: [0] }
  const oneDistance: Codes = { literals: lengths(258, { 65: 2, 256: 2, 257: 1 }), distances: [1] }
  const noDistance: Codes = { ...oneDistance, distances: [0] }
  const writers: [title: string, make: () => DeflateWriter][] = [
    ['at once', () => new DeflateWriter()],
    [
      'behind such a block',
      () => new DeflateWriter().dynamic(before, [65, 66, { length: 257, distance: 1 }, END_OF_BLOCK]),
    ],
    ['behind a fixed block', () => new DeflateWriter().fixed([1, 2, 3, END_OF_BLOCK])],
    ['far behind such a block', () => new DeflateWriter().dynamic(before, [...AS.slice(0, 400), END_OF_BLOCK])],
  ]
  for (const [title, make] of writers) {
    // What follows fills the cluster if the word that is none counts as what it was.
    for (const bits of [0x5555_5555, -1]) {
      const end = make().dynamic(lonelyEnd, []).bits(bits, 8000)
      await refuses(t, `a word beside the only one, ${title}`, end.finish(), 'damaged')
    }
    const distance = make().dynamic(oneDistance, [65, 65, 257]).bits(1, 1).tokens(oneDistance, AS)
    await refuses(t, `a distance beside the only one, ${title}`, distance.finish(), 'damaged')
    for (const bit of [0, 1]) {
      const none = make().dynamic(noDistance, [65, 65, 257]).bits(bit, 1).tokens(noDistance, AS)
      await refuses(t, `distance ${bit} where there are none, ${title}`, none.finish(), 'damaged')
    }
  }
})

t.test('streams that end before the cluster is full', async (t) => {
  const short = literals.slice(0, CLUSTER - 1)
  const rows: [title: string, source: Buffer][] = [
    ['nothing at all', Buffer.alloc(0)],
    ['a byte', Buffer.of(0)],
    ['a last block that is empty', new DeflateWriter().fixed([END_OF_BLOCK], true).finish()],
    ['a byte too few, in literals', new DeflateWriter().fixed([...short, END_OF_BLOCK], true).finish()],
    ['a byte too few, stored', new DeflateWriter().stored(cluster.subarray(1), { isLast: true }).finish()],
    ['a byte too few, and no last block', new DeflateWriter().stored(cluster.subarray(1)).finish()],
    [
      'the same and other bytes',
      Buffer.concat([new DeflateWriter().fixed([...short, END_OF_BLOCK], true).finish(), cluster]),
    ],
  ]
  for (const [title, source] of rows) {
    await refuses(t, title, source, 'too short')
  }
})

t.test('streams that are cut off, wherever that is', async (t) => {
  const fixed = new DeflateWriter().fixed([
    ...AS.slice(0, 50),
    { length: 285, distance: 0 },
    66,
    ...literals.slice(0, 203),
  ])
  const stored = new DeflateWriter().stored(cluster)
  const dynamic = new DeflateWriter().dynamic(FINE, AS)
  for (const [title, writer] of Object.entries({ fixed, stored, dynamic })) {
    const source = writer.finish()
    t.equal(decodeGuarded(decoder, source, CLUSTER).refusal, undefined, `${title}: whole it is fine`)
    for (let length = 0; length < source.length; length++) {
      await refuses(t, `${title}, ${length} of ${source.length} bytes`, source.subarray(0, length), 'too short')
    }
  }
})
