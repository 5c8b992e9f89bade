/**
 * The bitmap directory and the entries of bitmap tables, byte by byte.
 */
import t from 'tap'
import { bitmapClusterOffset, hasReservedBitmapBits, parseBitmapDirectory } from '../../../lib/format/bitmaps.js'

interface EntryFields {
  readonly offset?: bigint
  readonly size?: number
  readonly flags?: number
  readonly type?: number
  readonly granularityBits?: number
  readonly nameSize?: number
  readonly extraSize?: number
}

/** An entry with a name of 5 bytes: 32 bytes. */
function entry({
  offset = 0x30000n,
  size = 1,
  flags = 2,
  type = 1,
  granularityBits = 16,
  nameSize = 5,
  extraSize = 0,
}: EntryFields = {}): Buffer {
  const bytes = Buffer.alloc(32)
  bytes.writeBigUInt64BE(offset, 0)
  bytes.writeUInt32BE(size, 8)
  bytes.writeUInt32BE(flags, 12)
  bytes.writeUInt8(type, 16)
  bytes.writeUInt8(granularityBits, 17)
  bytes.writeUInt16BE(nameSize, 18)
  bytes.writeUInt32BE(extraSize, 20)
  bytes.write('abcde', 24)
  return bytes
}

const parse = (directory: Buffer, nbBitmaps: number): ReturnType<typeof parseBitmapDirectory> =>
  parseBitmapDirectory(
    directory,
    { nbBitmaps, bitmapDirectorySize: directory.length, bitmapDirectoryOffset: 0x20000 },
    65536,
  )

t.test('tells what each bitmap is, and where its table is', async (t) => {
  const bitmap = {
    name: 'abcde',
    granularityBytes: 65536,
    isInUse: false,
    isAuto: true,
    bitmapTableOffset: 0x30000,
    bitmapTableSize: 1,
  }
  t.strictSame(parse(entry(), 1), { bitmaps: [bitmap], problem: undefined })
  const two = Buffer.concat([
    entry({ size: 2 ** 27, flags: 5, granularityBits: 63, nameSize: 1 }),
    entry({ offset: 0x1_0001_0000n }),
  ])
  t.strictSame(parse(two, 2), {
    bitmaps: [
      { ...bitmap, name: 'a', granularityBytes: 2 ** 63, isInUse: true, isAuto: false, bitmapTableSize: 2 ** 27 },
      { ...bitmap, bitmapTableOffset: 0x1_0001_0000 },
    ],
    problem: undefined,
  })
})

t.test('extra data belongs to an entry', async (t) => {
  const first = entry({ extraSize: 3, nameSize: 5 })
  t.match(parse(Buffer.concat([first, entry()]), 2).bitmaps, [{ name: 'de' }, { name: 'abcde' }])
})

t.test('ends at the first entry that is malformed', async (t) => {
  const malformed: [EntryFields, RegExp][] = [
    [{ offset: 0n }, /^entry 1: the table offset is 0x0/],
    [{ offset: 0x30200n }, /^entry 1: the table offset is 0x30200, allowed are multiples/],
    [{ size: 0 }, /^entry 1: its table has 0 entries/],
    [{ size: 2 ** 27 + 1 }, /^entry 1: its table has 134217729 entries/],
    [{ flags: 0x8000_0000 }, /^entry 1: reserved flags 0x80000000/],
    [{ type: 0 }, /^entry 1: its type is 0/],
    [{ granularityBits: 64 }, /^entry 1: a bit stands for 2\^64 bytes/],
    [{ nameSize: 0 }, /^entry 1: it has no name/],
    [{ nameSize: 9 }, /^entry 1: it does not fit/],
    [{ extraSize: 0xffff_ffff }, /^entry 1: it does not fit/],
  ]
  for (const [fields, what] of malformed) {
    const { bitmaps, problem } = parse(Buffer.concat([entry(), entry(fields)]), 2)
    t.equal(bitmaps.length, 1)
    t.equal(problem?.at, 32)
    t.match(problem?.what, what)
  }
})

t.test('what the directory has too little or too much of is a problem', async (t) => {
  t.match(parse(entry(), 2).problem, { at: 32, what: /^entry 1: it does not fit/ })
  t.match(parse(Buffer.concat([entry(), entry()]), 1).problem, { at: 32, what: '32 bytes follow the last entry' })
  t.equal(parse(entry().subarray(0, 29), 1).problem, undefined, 'the last padding may be left out')
})

t.test('an entry of a table points to a cluster, or says zeros or ones', async (t) => {
  t.equal(bitmapClusterOffset(0x00ff_ffff, 0xffff_fe00), 0x00ff_ffff * 2 ** 32 + 0xffff_fe00)
  t.equal(bitmapClusterOffset(0, 1), 0)
  t.equal(hasReservedBitmapBits(0x00ff_ffff, 0xffff_fe00), false)
  t.equal(hasReservedBitmapBits(0, 1), false)
  t.equal(hasReservedBitmapBits(0, 0x201), true)
  t.equal(hasReservedBitmapBits(0, 2), true)
  t.equal(hasReservedBitmapBits(0x0100_0000, 0), true)
})
