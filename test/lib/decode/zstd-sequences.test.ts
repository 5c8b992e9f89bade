/**
 * The sequences of zstd's blocks: every code for lengths and offsets, recent offsets, any number of them. Compressors
 * write what the bytes ask for; here all of it is written on purpose.
 */
import t from 'tap'
import { accepts, acceptsOne, DEFAULT_TABLES, history, noise, refuses } from '../../fixtures/zstd-checks.js'
import {
  expandSequences,
  literalLengthCodes,
  matchLengthCodes,
  sequencesBlock,
  type SequencesOptions,
} from '../../fixtures/zstd-sequences.js'

/** The least and the greatest value of a code. */
const ends = ({ base, bits }: { base: number; bits: number }): number[] => [...new Set([base, base + 2 ** bits - 1])]

const predefined: SequencesOptions = { tables: DEFAULT_TABLES }

t.test('every length of literals and of copies', async (t) => {
  // What a block yields is 128 KiB at most.
  for (const literals of literalLengthCodes.flatMap(ends).filter((value) => value <= 131_000)) {
    const sequence = { literals, match: 3, offsetValue: 1000 }
    acceptsOne(t, `${literals} literals`, sequence)
    acceptsOne(t, `${literals} literals by the default tables`, sequence, predefined)
  }
  for (const match of matchLengthCodes.flatMap(ends).filter((value) => value <= 131_071)) {
    const sequence = { literals: 1, match, offsetValue: 1000 }
    acceptsOne(t, `${match} bytes copied`, sequence)
    acceptsOne(t, `${match} bytes copied by the default tables`, sequence, predefined)
  }
})

t.test('every offset, up to the beginning of what there is', async (t) => {
  for (let code = 2; code <= 17; code++) {
    for (const offsetValue of [2 ** code, 2 ** code + 1, Math.min(2 ** (code + 1) - 1, 131_073 + 3)]) {
      for (const match of [3, 31, 32, 33, 1000]) {
        acceptsOne(t, `offset ${offsetValue - 3}, ${match} bytes`, { literals: 1, match, offsetValue })
        acceptsOne(
          t,
          `offset ${offsetValue - 3}, ${match} bytes, default tables`,
          { literals: 1, match, offsetValue },
          predefined,
        )
      }
    }
  }
  refuses(
    t,
    'one byte before the beginning',
    131_076,
    history,
    sequencesBlock(noise.subarray(0, 1), [{ literals: 1, match: 3, offsetValue: 131_074 + 3 }]),
  )
  for (const code of [18, 20, 25, 31]) {
    const sequence = { literals: 1, match: 3, offsetValue: 2 ** code }
    refuses(t, `offset code ${code}`, 131_076, history, sequencesBlock(noise.subarray(0, 1), [sequence]))
  }
})

t.test('recent offsets, with and without literals before the copy', async (t) => {
  const literals = noise.subarray(500, 600)
  for (const literalCount of [0, 1, 5]) {
    for (const match of [3, 4, 20]) {
      for (const offsetValue of [1, 2, 3]) {
        const sequence = { literals: literalCount, match, offsetValue }
        // As they are in a new frame, or 0 for the one that would be an offset of nothing.
        if (!(literalCount === 0 && offsetValue === 3)) {
          acceptsOne(t, `recent offset ${offsetValue} of a frame, ${literalCount} literals, ${match} bytes`, sequence)
        }
        // Tables of one symbol: 1 is offset code 0, 2 and 3 are code 1, and 4 to 7 are code 2.
        const list = Array.from({ length: 12 }, () => sequence)
        const before = { literals: 7, match: 40, offsetValue: 83 }
        const first = expandSequences(noise, literals.subarray(0, 10), [before])
        const recent = [80, 1, 4]
        const expected = expandSequences(first, literals, list, recent)
        const blocks = [sequencesBlock(literals.subarray(0, 10), [before]), sequencesBlock(literals, list)]
        accepts(
          t,
          `12 times recent offset ${offsetValue}, ${literalCount} literals, ${match} bytes`,
          expected,
          history,
          ...blocks,
        )
      }
    }
  }
  const mixed = [2, 3, 3, 2, 3, 2, 2, 3].map((offsetValue) => ({ literals: 1, match: 5, offsetValue }))
  accepts(
    t,
    'the second and the third in turn',
    expandSequences(noise, literals, mixed),
    history,
    sequencesBlock(literals, mixed),
  )
  const near = [{ literals: 0, match: 3, offsetValue: 3 }]
  refuses(t, 'one less than an offset of 1', 131_075, history, sequencesBlock(Buffer.alloc(0), near))
})

t.test('as many sequences as fit, with a number of every width', async (t) => {
  for (const [count, widths] of [
    [1, [1, 2]],
    [127, [1, 2]],
    [128, [2]],
    [300, [2]],
    [0x7eff, [2]],
    [0x7f00, [3]],
    [40_000, [3]],
  ] as const) {
    const list = Array.from({ length: count }, () => ({ literals: 0, match: 3, offsetValue: 1003 }))
    const expected = expandSequences(noise, Buffer.alloc(0), list)
    for (const countBytes of widths) {
      accepts(
        t,
        `${count} in ${countBytes} bytes`,
        expected,
        history,
        sequencesBlock(Buffer.alloc(0), list, { countBytes }),
      )
    }
  }
})
