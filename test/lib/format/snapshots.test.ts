// The table of internal snapshots: entries of both versions, extra data, names, and a table that goes on.
import fc from 'fast-check'
import t from 'tap'
import { Qcow2Error, Qcow2FormatError } from '../../../lib/errors.js'
import { parseSnapshots } from '../../../lib/format/snapshots.js'
import { refuses } from '../../fixtures/expect-refusal.js'
import { headerWith } from '../../fixtures/header-samples.js'

// 64 KiB clusters: an L1 entry reaches over 512 MiB.
const headerFor = (nbSnapshots: number, changes: Readonly<Record<string, unknown>> = {}) =>
  headerWith({ nbSnapshots, snapshotsOffset: 0x40000, size: 3_000_000_000, ...changes })

const hex = (digits: string): Buffer => Buffer.from(digits.replace(/;.*|\s/g, ''), 'hex')

const parse = (table: Uint8Array, header = headerFor(1)) => parseSnapshots(table, header, 'disk.qcow2')

// As qemu writes it today; the id is "1", the name "before upgrade".
const MODERN = hex(`
  0000000000050000 00000006        ; L1 table at 0x50000, six entries
  0001 000e                        ; lengths of id and name
  65f1a2b3 3b9ac9ff                ; seconds, nanoseconds
  00000002540be401                 ; the guest ran for 10 s and 1 ns
  00000007 00000018                ; short VM state size, 24 bytes of extra data
  0000000123456789                 ; VM state size
  0000000080000000                 ; a disk of 2 GiB
  00000000000004d2                 ; 1234 instructions
  31 6265666f72652075706772616465  ; "1", "before upgrade"
  00                               ; padding
`)

const MODERN_SNAPSHOT = {
  id: '1',
  name: 'before upgrade',
  virtualSize: 2147483648,
  date: new Date(0x65f1a2b3 * 1000 + 999),
  dateNanoseconds: 999_999_999,
  vmClockNanoseconds: 10_000_000_001n,
  vmStateSize: 0x1_2345_6789,
  icount: 1234n,
  l1TableOffset: 0x50000,
  l1Size: 6,
  tableEntrySize: 80,
  extraDataSize: 24,
}

/** An entry with this much extra data, cut from 24 bytes that say 7 bytes of state, 1 GiB of disk, icount 9. */
function entryWithExtra(extraLength: number, more = Buffer.alloc(0)): Buffer {
  const fixed = hex('0000000000050000 00000006 0001 0002 00000001 00000000 0000000000000000 00000005')
  const length = Buffer.alloc(4)
  length.writeUInt32BE(extraLength)
  const known = hex('0000000000000007 0000000040000000 0000000000000009')
  const extra = Buffer.alloc(extraLength, 0xee)
  extra.set(known.subarray(0, extraLength))
  const bytes = Buffer.concat([fixed, length, extra, Buffer.from('7ab'), more])
  return Buffer.concat([bytes, Buffer.alloc((8 - (bytes.length % 8)) % 8)])
}

t.test('an image without snapshots has none, whatever the bytes', async (t) => {
  t.strictSame(parse(Buffer.alloc(0), headerFor(0)), [])
  t.strictSame(parse(Buffer.alloc(100, 0xff), headerFor(0)), [])
})

t.test('reads every field of an entry', async (t) => {
  t.equal(MODERN.length, 80)
  t.strictSame(parse(MODERN), [MODERN_SNAPSHOT])
})

t.test('an entry without extra data is as old as version 2: size of the disk, short VM state size', async (t) => {
  t.match(parse(entryWithExtra(0), headerFor(1, { version: 2 })), [
    { id: '7', name: 'ab', virtualSize: 3_000_000_000, vmStateSize: 5, icount: undefined },
  ])
})

t.test(
  'each field of the extra data counts from its last byte on, and unknown bytes after them are skipped',
  async (t) => {
    for (let length = 0; length <= 40; length++) {
      const found = parse(entryWithExtra(length), headerFor(1, { version: length < 16 ? 2 : 3 }))
      const { vmStateSize, virtualSize, icount, name } = found![0]!
      t.strictSame(
        { vmStateSize, virtualSize, icount, name },
        {
          vmStateSize: length < 8 ? 5 : 7,
          virtualSize: length < 16 ? 3_000_000_000 : 2 ** 30,
          icount: length < 24 ? undefined : 9n,
          name: 'ab',
        },
        `${length} bytes`,
      )
    }
  },
)

t.test('an instruction count of all ones is none', async (t) => {
  const table = Buffer.from(MODERN)
  table.fill(0xff, 56, 64)
  t.equal(parse(table)![0]!.icount, undefined)
  table[63] = 0xfe
  t.equal(parse(table)![0]!.icount, 0xffff_ffff_ffff_fffen)
})

t.test('times and counts may use all their bits', async (t) => {
  const table = Buffer.from(MODERN)
  table.fill(0xff, 16, 32)
  const { date, vmClockNanoseconds } = parse(table)![0]!
  t.equal(date.getTime(), 4294967295 * 1000 + 4294)
  t.equal(vmClockNanoseconds, 0xffff_ffff_ffff_ffffn)
})

t.test('entries follow one another on multiples of 8 bytes, whatever lies in the padding', async (t) => {
  for (let nameLength = 0; nameLength < 9; nameLength++) {
    const first = Buffer.concat([MODERN.subarray(0, 64), Buffer.from('1'), Buffer.alloc(nameLength, 'n')])
    first.writeUInt16BE(nameLength, 14)
    const padding = Buffer.alloc((8 - (first.length % 8)) % 8, 0xdd)
    t.strictSame(
      parse(Buffer.concat([first, padding, MODERN]), headerFor(2)),
      [{ ...MODERN_SNAPSHOT, name: 'n'.repeat(nameLength), tableEntrySize: nameLength < 8 ? 72 : 80 }, MODERN_SNAPSHOT],
      `a name of ${nameLength} bytes`,
    )
  }
})

t.test('reads as many entries as the header says and no further', async (t) => {
  const table = Buffer.concat([MODERN, MODERN, Buffer.alloc(80, 0xff)])
  t.equal(parse(table, headerFor(1))!.length, 1)
  t.equal(parse(table, headerFor(2))!.length, 2)
})

t.test('ids and names have up to 65535 bytes each, are UTF-8 and end at a NUL', async (t) => {
  const long = Buffer.concat([MODERN.subarray(0, 64), Buffer.alloc(65535, 'i'), Buffer.alloc(65535, 'n')])
  long.writeUInt32BE(0xffff_ffff, 12)
  const [snapshot] = parse(long)!
  t.equal(snapshot!.id, 'i'.repeat(65535))
  t.equal(snapshot!.name, 'n'.repeat(65535))
  t.match(parse(entryWithExtra(0, Buffer.alloc(8))), [{ id: '7', name: 'ab' }])
  const odd = Buffer.concat([MODERN.subarray(0, 64), hex('ff 61006263')])
  odd.writeUInt32BE(0x0001_0004, 12)
  t.match(parse(odd), [{ id: '\ufffd', name: 'a' }])
})

t.test('an entry may end with its fixed fields, and the table with it', async (t) => {
  const bare = Buffer.concat([MODERN.subarray(0, 12), Buffer.alloc(28)])
  t.match(parse(bare), [{ id: '', name: '', l1Size: 6, virtualSize: 3_000_000_000, vmStateSize: 0 }])
})

t.test('a table that goes on past the bytes at hand is told from a broken one, at every length', async (t) => {
  const table = Buffer.concat([MODERN, MODERN])
  for (let length = 0; length < 159; length++) {
    t.equal(parse(table.subarray(0, length), headerFor(2)), undefined, `${length} bytes`)
  }
  t.equal(parse(table.subarray(0, 159), headerFor(2))!.length, 2, 'the last padding may be missing')
})

type Rule = readonly [title: string, at: number, bytes: string, field: string, actual: string | number]

const broken: readonly Rule[] = [
  ['an L1 table off a cluster boundary', 0, '0000000000050200', 'the L1 table offset', '0x50200'],
  ['an L1 table one byte off', 0, '0000000000050001', 'the L1 table offset', '0x50001'],
  ['an L1 table beyond 2^53', 0, '0020000000000000', 'the L1 table offset', '0x20000000000000'],
  ['an L1 table at 0', 0, '0000000000000000', 'the L1 table offset', 0],
  ['an L1 table too short for the disk', 8, '00000003', 'the number of L1 entries', 3],
  ['no L1 table for a disk', 8, '00000000', 'the number of L1 entries', 0],
  ['an L1 table of more than 32 MiB', 8, '00400001', 'the number of L1 entries', 4194305],
  ['an L1 table of 2^32 - 1 entries', 8, 'ffffffff', 'the number of L1 entries', 4294967295],
  ['extra data of more than 1 KiB', 36, '00000401', 'the size of its extra data', 1025],
  ['extra data of 4 GiB', 36, 'ffffffff', 'the size of its extra data', 4294967295],
  ['a disk one byte too large for its L1 table', 48, '00000000c0000001', 'the number of L1 entries', 6],
  ['a VM state of 2^53 bytes', 40, '0020000000000000', 'the VM state size', '0x20000000000000'],
  ['a disk of 2^53 bytes', 48, '0020000000000000', 'the virtual disk size', '0x20000000000000'],
  ['a disk of 2^64 - 1 bytes', 48, 'ffffffffffffffff', 'the virtual disk size', '0xffffffffffffffff'],
]

for (const [title, at, digits, field, actual] of broken) {
  t.test(`refuses ${title}, in whichever entry`, async (t) => {
    const entry = Buffer.from(MODERN)
    entry.set(hex(digits), at)
    for (const index of [0, 1, 2]) {
      const table = Buffer.concat([...Array<Buffer>(index).fill(MODERN), entry, Buffer.alloc(2048)])
      refuses(t, `entry ${index}`, () => parse(table, headerFor(index + 1)), Qcow2FormatError, {
        code: 'ERR_QCOW2_BAD_SNAPSHOT_TABLE',
        layer: 'disk.qcow2',
        hostOffset: 0x40000 + index * 80,
        field,
        actual,
        message: new RegExp(
          `snapshot table entry ${index} at host offset 0x40[0-9a-f]+: ${field} is ${actual}, allowed`,
        ),
      })
    }
  })
}

const edges: readonly (readonly [title: string, at: number, bytes: string, expected: object])[] = [
  ['the highest L1 table', 0, '001fffffffff0000', { l1TableOffset: 2 ** 53 - 65536 }],
  ['an L1 table just long enough', 8, '00000004', { l1Size: 4 }],
  ['an L1 table of 32 MiB', 8, '00400000', { l1Size: 4194304 }],
  ['a VM state of 2^53 - 1 bytes', 40, '001fffffffffffff', { vmStateSize: 2 ** 53 - 1 }],
  ['an empty disk', 48, '0000000000000000', { virtualSize: 0 }],
  ['a disk that fills its L1 table', 48, '00000000c0000000', { virtualSize: 3 * 2 ** 30 }],
]

for (const [title, at, digits, expected] of edges) {
  t.test(`accepts ${title}`, async (t) => {
    const table = Buffer.from(MODERN)
    table.set(hex(digits), at)
    t.match(parse(table), [expected])
  })
}

t.test('accepts 1 KiB of extra data', async (t) => {
  t.match(parse(entryWithExtra(1024)), [{ id: '7', name: 'ab', icount: 9n }])
})

t.test('a snapshot of an empty disk needs no L1 table', async (t) => {
  const table = Buffer.from(MODERN)
  table.fill(0, 0, 12)
  table.fill(0, 48, 56)
  t.match(parse(table), [{ l1TableOffset: 0, l1Size: 0, virtualSize: 0 }])
})

t.test(
  'without a size of its own a snapshot may have any number of L1 entries, as the disk may have grown',
  async (t) => {
    for (const l1Size of [0, 1, 5]) {
      const table = entryWithExtra(8)
      table.writeUInt32BE(l1Size, 8)
      t.match(parse(table), [{ l1Size, virtualSize: 3_000_000_000 }])
      table.fill(0, 0, 8)
      if (l1Size === 0) continue
      const expected = { code: 'ERR_QCOW2_BAD_SNAPSHOT_TABLE', field: 'the L1 table offset', actual: 0 } as const
      refuses(t, `${l1Size} entries at 0`, () => parse(table), Qcow2FormatError, expected)
    }
  },
)

t.test('with subclusters an L1 entry reaches half as far', async (t) => {
  const features = { ...headerWith().features, hasExtendedL2: true }
  const table = Buffer.from(MODERN)
  table.writeUInt32BE(7, 8)
  const expected = { code: 'ERR_QCOW2_BAD_SNAPSHOT_TABLE', actual: 7 } as const
  refuses(t, 'seven', () => parse(table, headerFor(1, { features })), Qcow2FormatError, expected)
  table.writeUInt32BE(8, 8)
  t.match(parse(table, headerFor(1, { features })), [{ l1Size: 8 }])
})

t.test('whatever the bytes, there are snapshots, a table that goes on, or an error of the family', async (t) => {
  const edits = fc.array(fc.tuple(fc.nat(159), fc.nat(255)), { maxLength: 5 })
  fc.assert(
    fc.property(edits, fc.integer({ min: 100, max: 160 }), (edits, length) => {
      const table = Buffer.concat([MODERN, MODERN])
      for (const [at, byte] of edits) table[at] = byte
      try {
        const found = parse(table.subarray(0, length), headerFor(2))
        return found === undefined || found.length === 2
      } catch (error) {
        return error instanceof Qcow2Error && error.code === 'ERR_QCOW2_BAD_SNAPSHOT_TABLE'
      }
    }),
    { numRuns: 1000 },
  )
  t.pass('for all bytes tried')
})
