/**
 * The tables of zstd's sequences that are written out, as any distributions, used for one sequence after the other, and used
 * again by the next block.
 */
import t from 'tap'
import { runs } from '../../fixtures/random-images.js'
import { randomNumbers } from '../../fixtures/random-writes.js'
import { accepts, acceptsOne, DEFAULT_TABLES, history, noise, type Tables } from '../../fixtures/zstd-checks.js'
import {
  expandSequences,
  literalLengthCodes,
  matchLengthCodes,
  sequencesBlock,
  type SequenceTable,
} from '../../fixtures/zstd-sequences.js'

/** A table that has a code among others: rare ones, gaps, and one that takes the most. */
function tableWith(code: number, log: number, symbols: number): SequenceTable {
  const cells = new Array<number>(symbols).fill(0)
  cells[0] = -1
  cells[symbols - 1] = 1
  cells[Math.floor(symbols / 2)] = -1
  cells[code] = (cells[code] === 0 ? 0 : 1) + 2
  const used = cells.reduce((sum, own) => sum + Math.abs(own), 0)
  const rest = code === 1 ? 2 : 1
  cells[rest]! += 2 ** log - used
  return { log, cells }
}

t.test('tables that are written as distributions, and used again', async (t) => {
  for (const [literalLog, offsetLog, matchLog] of [
    [5, 5, 5],
    [6, 5, 6],
    [9, 8, 9],
  ] as const) {
    for (const sequence of [
      { literals: 3, match: 10, offsetValue: 9 },
      { literals: 100, match: 1000, offsetValue: 40_000 },
      { literals: 31, match: 4, offsetValue: 1 },
    ]) {
      const literals = noise.subarray(0, sequence.literals)
      const codes = [
        literalLengthCodes.findLastIndex(({ base }) => sequence.literals >= base),
        Math.floor(Math.log2(sequence.offsetValue)),
        matchLengthCodes.findLastIndex(({ base }) => sequence.match >= base),
      ] as const
      const tables = [
        tableWith(codes[0], literalLog, 36),
        tableWith(codes[1], offsetLog, 18),
        tableWith(codes[2], matchLog, 53),
      ] as const
      const title = `logs ${literalLog}, ${offsetLog}, ${matchLog}; ${JSON.stringify(sequence)}`
      acceptsOne(t, title, sequence, { tables })
      const recent = sequence.offsetValue > 3 ? [sequence.offsetValue - 3, 1, 4] : [1, 4, 8]
      accepts(
        t,
        `${title}, twice`,
        expandSequences(expandSequences(noise, literals, [sequence]), literals, [sequence], recent),
        history,
        sequencesBlock(literals, [sequence], { tables }),
        sequencesBlock(literals, [sequence], { tables: ['repeat', 'repeat', 'repeat'], meaning: tables }),
      )
    }
  }
})

t.test('one sequence after the other by tables of every mode, the widest among them', async (t) => {
  // More bits than any other: long literals, a long copy from far, and rare symbols in all tables.
  const wide = { literals: 65_536 + 300, match: 32_771 + 5000, offsetValue: 2 ** 17 + 40_000 }
  const narrow = { literals: 2, match: 5, offsetValue: 99 }
  const longest: Tables = [
    { log: 9, cells: [0, 0, 200, ...new Array<number>(32).fill(9), 24] },
    { log: 8, cells: [0, 0, 0, 0, 0, 0, 100, ...new Array<number>(10).fill(15), 6] },
    { log: 9, cells: [0, 0, 300, ...new Array<number>(48).fill(4), 20] },
  ]
  const literals = noise.subarray(0, 70_000)
  for (const [title, tables] of [
    ['default tables', DEFAULT_TABLES],
    ['distributions of 9, 8 and 9 bits', longest],
  ] as const) {
    for (const list of [
      [narrow, wide, narrow, narrow],
      [wide, narrow],
      [narrow, narrow, wide],
    ]) {
      const blocks = [history, history, sequencesBlock(literals, list, { tables })]
      const before = Buffer.concat([noise, noise])
      const order = list.map((sequence) => (sequence === wide ? 'wide' : 'narrow')).join(', ')
      accepts(t, `${title}: ${order}`, expandSequences(before, literals, list), ...blocks)
    }
  }
})

t.test('many sequences by any distributions', async (t) => {
  const { numRuns, seed } = runs(150)
  for (let run = 0; run < numRuns; run++) {
    const random = randomNumbers(seed + run)
    const upTo = (limit: number): number => Math.floor(random() * limit)
    // Copies come from what is there: 128 KiB, and recent offsets as they follow from that.
    const list = Array.from({ length: 1 + upTo(60) }, () => ({
      literals: upTo(3) === 0 ? 0 : upTo(upTo(10) === 0 ? 600 : 20),
      match: 3 + upTo(upTo(10) === 0 ? 1000 : 30),
      offsetValue: upTo(4) === 0 ? 1 + upTo(2) : 4 + upTo(upTo(2) === 0 ? 60 : 131_000),
    }))
    const literals = noise.subarray(
      0,
      list.reduce((sum, sequence) => sum + sequence.literals, upTo(50)),
    )
    const tables = [
      randomTable(
        6 + upTo(4),
        list.map((one) => literalLengthCodes.findLastIndex(({ base }) => one.literals >= base)),
        upTo,
      ),
      randomTable(
        5 + upTo(4),
        list.map(({ offsetValue }) => Math.floor(Math.log2(offsetValue))),
        upTo,
      ),
      randomTable(
        6 + upTo(4),
        list.map((one) => matchLengthCodes.findLastIndex(({ base }) => one.match >= base)),
        upTo,
      ),
    ] as const
    const blocks = [history, sequencesBlock(literals, list, { tables: run % 4 === 0 ? DEFAULT_TABLES : tables })]
    accepts(t, `seed ${seed + run}, ${list.length} sequences`, expandSequences(noise, literals, list), ...blocks)
  }
})

/** A distribution with cells for at least these symbols. */
function randomTable(log: number, symbols: readonly number[], upTo: (limit: number) => number): SequenceTable {
  const used = [...new Set([...symbols, 0, 1])]
  const cells = new Array<number>(Math.max(...used) + 1).fill(0)
  let left = 2 ** log
  for (const symbol of used) {
    cells[symbol] = upTo(4) === 0 ? -1 : 1
    left--
  }
  while (left > 0) {
    const symbol = used[upTo(used.length)]!
    const more = 1 + upTo(left)
    // Fewer than one is one cell: with more it is as many as it has.
    cells[symbol] = Math.abs(cells[symbol]!) + more
    left -= more
  }
  return { log, cells }
}
