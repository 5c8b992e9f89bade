/**
 * The directory of persistent bitmaps: every field, and every way to be malformed.
 */
import t from 'tap'
import { Qcow2FormatError } from '../../../lib/errors.js'
import { parseBitmapDirectory, type Qcow2Bitmap } from '../../../lib/format/bitmaps.js'
import { refuses } from '../../fixtures/expect-refusal.js'

const HOST_OFFSET = 0x60000
const CLUSTER = 65536

/** Bytes written down in hexadecimal, with comments. */
const hex = (text: string): Buffer => Buffer.from(text.replace(/;.*$/gm, '').replace(/\s/g, ''), 'hex')

const ENTRY = hex(`
  0000000000050000 ; bitmap_table_offset
  00000003         ; bitmap_table_size
  00000002         ; flags: auto
  01               ; type: dirty tracking
  10               ; granularity_bits
  0005             ; name_size
  00000000         ; extra_data_size
  6461696c79       ; daily
  000000           ; padding
`)

const WITH_EXTRA = hex(`
  0000000000070000 00000001 00000005 01 09 0001 00000003 ; in use, extra data is compatible
  aabbcc           ; extra data
  62               ; b
  00000000         ; padding
`)

const parse = (directory: Uint8Array, nbBitmaps = 1): Qcow2Bitmap[] =>
  parseBitmapDirectory(
    directory,
    { nbBitmaps, bitmapDirectorySize: directory.length, bitmapDirectoryOffset: HOST_OFFSET },
    CLUSTER,
    'disk.qcow2',
  )

/** The entry with some of its bytes replaced. */
function changed(at: number, bytes: string): Buffer {
  const entry = Buffer.from(ENTRY)
  entry.set(hex(bytes), at)
  return entry
}

t.test('reads every field of each entry', async (t) => {
  t.strictSame(parse(Buffer.concat([ENTRY, WITH_EXTRA]), 2), [
    {
      name: 'daily',
      granularityBytes: 65536,
      isInUse: false,
      isAuto: true,
      bitmapTableOffset: 0x50000,
      bitmapTableSize: 3,
    },
    {
      name: 'b',
      granularityBytes: 512,
      isInUse: true,
      isAuto: false,
      bitmapTableOffset: 0x70000,
      bitmapTableSize: 1,
    },
  ])
})

t.test('the padding of the last entry may be missing', async (t) => {
  t.match(parse(ENTRY.subarray(0, 29)), [{ name: 'daily' }])
})

t.test('refuses what is malformed, with its place', async (t) => {
  const cases: [title: string, directory: Uint8Array, field: string, actual: string | number][] = [
    ['an entry that is cut', ENTRY.subarray(0, 23), 'what is left of the directory', '23 bytes'],
    ['a table within a cluster', changed(4, '00050200'), 'the bitmap table offset', '0x50200'],
    ['a table past 2^53', changed(0, '0020000000000000'), 'the bitmap table offset', '0x20000000000000'],
    ['a reserved flag', changed(12, '00000008'), 'flags', '0x8'],
    ['another type', changed(16, '02'), 'type', 2],
    ['a granularity of 2^64', changed(17, '40'), 'granularity_bits', 64],
    ['no name', changed(18, '0000'), 'name_size', '0 at byte 24'],
    ['a name past the end', changed(18, '0009'), 'name_size', '9 at byte 24'],
    ['extra data past the end', changed(20, 'ffffffff'), 'name_size', '5 at byte 4294967319'],
  ]
  for (const [title, directory, field, actual] of cases) {
    refuses(t, title, () => parse(directory), Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_BITMAP_DIRECTORY',
      layer: 'disk.qcow2',
      hostOffset: HOST_OFFSET,
      field,
      actual,
    })
  }
  refuses(t, 'fewer than there should be', () => parse(ENTRY, 2), Qcow2FormatError, {
    code: 'ERR_QCOW2_BAD_BITMAP_DIRECTORY',
    hostOffset: HOST_OFFSET + ENTRY.length,
    actual: '0 bytes',
  })
})
