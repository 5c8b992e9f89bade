/**
 * The sequences of zstd's blocks that are none: tables that are damaged or missing, and sequences that do not fit their bits,
 * their literals or their block.
 */
import t from 'tap'
import { accepts, DEFAULT_TABLES, history, noise, refuses } from '../../fixtures/zstd-checks.js'
import type { ZstdBlock } from '../../fixtures/zstd-frames.js'
import {
  describeDistribution,
  expandSequences,
  sequencesBlock,
  type Sequence,
  type SequencesOptions,
  type SequenceTable,
} from '../../fixtures/zstd-sequences.js'

const predefined: SequencesOptions = { tables: DEFAULT_TABLES }

const one: Sequence = { literals: 1, match: 3, offsetValue: 4 }
const literal = noise.subarray(0, 1)
const length = 131_072 + 4

t.test('tables that are none', async (t) => {
  const flat = (log: number, symbols: number): Buffer =>
    describeDistribution(log, [...new Array<number>(symbols - 1).fill(1), 2 ** log - symbols + 1])
  const names = ['literal lengths', 'offsets', 'match lengths']
  const limits = [
    [9, 36],
    [8, 32],
    [9, 53],
  ] as const
  for (const [index, [log, symbols]] of limits.entries()) {
    const tableAt = (table: SequenceTable): [SequenceTable, SequenceTable, SequenceTable] => {
      const tables: [SequenceTable, SequenceTable, SequenceTable] = ['predefined', 'predefined', 'predefined']
      tables[index] = table
      return tables
    }
    const rows: [title: string, description: Buffer][] = [
      ['a table of too many cells', flat(log + 1, 20)],
      ['a symbol too many', flat(log, symbols + 1)],
      ['many symbols too many', flat(log, 200)],
      ['zeros beyond the last symbol', describeDistribution(log, [2 ** log - 1, ...new Array<number>(80).fill(0), 1])],
      ['a single symbol that takes all', describeDistribution(5, [32])],
      ['a description that is cut off', flat(log, symbols).subarray(0, 4)],
      ['a description of zeros', Buffer.alloc(4)],
      ['no description', Buffer.alloc(0)],
    ]
    for (const [title, descriptions] of rows) {
      const options = { tables: tableAt({ log, cells: [2 ** log] }), meaning: DEFAULT_TABLES, descriptions }
      refuses(t, `${names[index]}: ${title}`, length, history, sequencesBlock(literal, [one], options))
    }
    for (const symbol of [symbols, 100, 255]) {
      // It has no bits of its own, as if it stood for the least length.
      const options = { tables: tableAt({ symbol }) }
      refuses(t, `${names[index]}: symbol ${symbol} alone`, length, history, sequencesBlock(literal, [one], options))
    }
    const again = { tables: tableAt('repeat'), meaning: DEFAULT_TABLES }
    refuses(t, `${names[index]}: of no block before`, length, history, sequencesBlock(literal, [one], again))
  }
  for (const bits of [1, 2, 3]) {
    const options = { ...predefined, extraModeBits: bits }
    refuses(t, `reserved bits ${bits}`, length, history, sequencesBlock(literal, [one], options))
  }
})

t.test('sequences that do not fit', async (t) => {
  const rows: [title: string, options: SequencesOptions, sequence?: Sequence][] = [
    ['bits that are left', { changeBits: (bits) => `${bits}0` }],
    ['many bits that are left', { changeBits: (bits) => bits + '0'.repeat(64) }],
    ['a bit too few', { changeBits: (bits) => bits.slice(0, -1) }],
    ['no bits at all', { changeBits: () => '' }],
    ['a last byte of 0', { trailing: Buffer.of(0) }],
    ['one sequence more than there is', { count: 2 }],
    ['one sequence less than there is', { count: 0 }],
    ['thousands of sequences more', { count: 60_000, countBytes: 3 }],
    ['more literals than there are', {}, { literals: 2, match: 3, offsetValue: 4 }],
    ['far more literals than there are', {}, { literals: 100_000, match: 3, offsetValue: 4 }],
    ['more than a block may yield', {}, { literals: 1, match: 131_072, offsetValue: 4 }],
  ]
  for (const [title, options, sequence = one] of rows) {
    for (const tables of [undefined, DEFAULT_TABLES]) {
      const yielded = 131_072 + sequence.literals + sequence.match
      const all = tables === undefined ? options : { ...options, tables }
      refuses(
        t,
        `${title}${tables === undefined ? '' : ', default tables'}`,
        yielded,
        history,
        sequencesBlock(literal, [sequence], all),
      )
    }
  }
  const rest = noise.subarray(0, 100)
  for (const [match, isTooMuch] of [
    [131_072 - 100, false],
    [131_072 - 99, true],
  ] as const) {
    const sequence = { literals: 1, match, offsetValue: 1000 }
    const block = sequencesBlock(rest, [sequence])
    const title = `a copy of ${match} bytes and 100 literals`
    if (isTooMuch) refuses(t, title, 131_072 + 100 + match, history, block)
    else accepts(t, title, expandSequences(noise, rest, [sequence]), history, block)
  }
  for (const count of [0, 1, 128, 0x7f00]) {
    const whole = sequencesBlock(literal, [], { count, countBytes: count === 0x7f00 ? 3 : count === 128 ? 2 : 1 })
    if (whole.kind !== 'verbatim') continue
    for (let size = 1; size < whole.content.length; size++) {
      const cut: ZstdBlock = { ...whole, size, content: whole.content.subarray(0, size) }
      if (count === 0 && size === 5) continue
      refuses(t, `a block of ${count} sequences cut off after ${size} bytes`, 131_073, history, cut)
    }
  }
})
