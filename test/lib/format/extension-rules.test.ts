// What header extensions of the known types must hold to: how often they come, how long they are, what their numbers are.
import fc from 'fast-check'
import t from 'tap'
import { Qcow2Error, Qcow2FormatError } from '../../../lib/errors.js'
import { parseExtensions } from '../../../lib/format/extensions.js'
import type { Qcow2Header } from '../../../lib/format/header.js'
import { refuses } from '../../fixtures/expect-refusal.js'
import { headerWith } from '../../fixtures/header-samples.js'

// LUKS, and bitmaps that the image vouches for: all types of extensions have a meaning.
const BASE = headerWith({ clusterBits: 12, headerLength: 112 })
const HEADER: Qcow2Header = { ...BASE, cryptMethod: 2, features: { ...BASE.features, hasConsistentBitmaps: true } }

/** A first cluster of 4 KiB: for each pair the type, the length of the data and the data, padded to 8 bytes. */
function cluster(...extensions: readonly (readonly [type: number, data: Uint8Array])[]): Buffer {
  const bytes = Buffer.alloc(4096)
  let at = 112
  for (const [type, data] of extensions) {
    bytes.writeUInt32BE(type, at)
    bytes.writeUInt32BE(data.length, at + 4)
    bytes.set(data, at + 8)
    at += 8 + Math.ceil(data.length / 8) * 8
  }
  return bytes
}

const parse = (firstCluster: Uint8Array, header = HEADER) => parseExtensions(firstCluster, header, 'disk.qcow2')

/** Two 32-bit words and two 64-bit ones. */
function bitmapsData(count: number, reserved: number, directorySize: bigint, directoryOffset: bigint): Buffer {
  const data = Buffer.alloc(24)
  data.writeUInt32BE(count, 0)
  data.writeUInt32BE(reserved, 4)
  data.writeBigUInt64BE(directorySize, 8)
  data.writeBigUInt64BE(directoryOffset, 16)
  return data
}

function cryptoData(offset: bigint, length: bigint): Buffer {
  const data = Buffer.alloc(16)
  data.writeBigUInt64BE(offset, 0)
  data.writeBigUInt64BE(length, 8)
  return data
}

const known: readonly [title: string, type: number, data: Uint8Array][] = [
  ['the backing format', 0xe2792aca, Buffer.from('raw')],
  ['the feature name table', 0x6803f857, Buffer.alloc(48)],
  ['the bitmaps extension', 0x23852875, bitmapsData(1, 0, 32n, 65536n)],
  ['the encryption header pointer', 0x0537be77, cryptoData(65536n, 512n)],
  ['the data file name', 0x44415441, Buffer.from('data')],
]

for (const [title, type, data] of known) {
  t.test(`${title} cannot come twice`, async (t) => {
    const bytes = cluster([type, data], [0x00c0ffee, Buffer.alloc(1)], [type, data])
    refuses(t, 'twice', () => parse(bytes), Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_EXTENSION',
      layer: 'disk.qcow2',
      hostOffset: 112 + 8 + Math.ceil(data.length / 8) * 8 + 16,
      field: `extension 0x${type.toString(16)}`,
      actual: 'a second one of this type',
      message: /allowed is one$/,
    })
  })
}

const lengths: readonly [title: string, type: number, allowed: number, refused: readonly number[]][] = [
  ['the bitmaps extension', 0x23852875, 24, [0, 1, 23, 25, 32, 48]],
  ['the encryption header pointer', 0x0537be77, 16, [0, 8, 15, 17, 24]],
]

for (const [title, type, allowed, refused] of lengths) {
  t.test(`${title} is ${allowed} bytes long and nothing else`, async (t) => {
    const data = Buffer.alloc(allowed)
    data[3] = 1
    t.doesNotThrow(() => parse(cluster([type, data])))
    for (const length of refused) {
      refuses(t, `${length} bytes`, () => parse(cluster([type, Buffer.alloc(length)])), Qcow2FormatError, {
        code: 'ERR_QCOW2_BAD_EXTENSION',
        hostOffset: 112,
        actual: `a length of ${length} bytes`,
      })
    }
  })
}

t.test('a format is up to 15 bytes long, a name up to 1023', async (t) => {
  for (const [type, field, most] of [
    [0xe2792aca, 'backingFormat', 15],
    [0x44415441, 'dataFileName', 1023],
  ] as const) {
    t.equal(parse(cluster([type, Buffer.alloc(most, 'n')]))[field], 'n'.repeat(most))
    refuses(t, field, () => parse(cluster([type, Buffer.alloc(most + 1, 'n')])), Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_EXTENSION',
      hostOffset: 112,
      actual: `a length of ${most + 1} bytes`,
      message: new RegExp(`up to ${most}$`),
    })
  }
})

t.test('a feature name has a mask, a bit and up to 46 bytes of text', async (t) => {
  const row = (mask: number, bit: number, name: Uint8Array | string): Buffer => {
    const bytes = Buffer.alloc(48)
    bytes.set([mask, bit])
    bytes.set(Buffer.from(name), 2)
    return bytes
  }
  const table = Buffer.concat([
    row(0, 0, 'dirty bit'),
    row(1, 63, 'lazy refcounts'),
    row(2, 1, Buffer.alloc(46, 'x')),
    row(0, 5, Uint8Array.of(0x1b, 0xff)),
    row(0, 6, ''),
    row(3, 0, 'no such mask'),
    row(255, 0, 'no such mask'),
    row(0, 64, 'no such bit'),
    row(0, 255, 'no such bit'),
    row(0, 7, 'the last').subarray(0, 47),
  ])
  t.strictSame(parse(cluster([0x6803f857, table])).featureNames, [
    { mask: 'incompatible', bit: 0, name: 'dirty bit' },
    { mask: 'compatible', bit: 63, name: 'lazy refcounts' },
    { mask: 'autoclear', bit: 1, name: 'x'.repeat(46) },
    { mask: 'incompatible', bit: 5, name: '\u001b\ufffd' },
    { mask: 'incompatible', bit: 6, name: '' },
  ])
  t.strictSame(parse(cluster([0x6803f857, Buffer.alloc(0)])).featureNames, [], 'an empty table')
})

const broken: readonly (readonly [title: string, type: number, data: Uint8Array, actual: string])[] = [
  ['no bitmaps at all', 0x23852875, bitmapsData(0, 0, 0n, 0x10000n), '0 bitmaps'],
  ['more bitmaps than qemu reads', 0x23852875, bitmapsData(65536, 0, 32n, 0x10000n), '65536 bitmaps'],
  ['a reserved word', 0x23852875, bitmapsData(1, 0x8000_0001, 32n, 0x10000n), 'reserved bytes 0x80000001'],
  ['a directory in mid-cluster', 0x23852875, bitmapsData(1, 0, 32n, 0x10800n), 'a bitmap directory at 0x10800'],
  [
    'a directory beyond 2^53',
    0x23852875,
    bitmapsData(1, 0, 32n, 2n ** 53n),
    'the offset of the bitmap directory 0x20000000000000',
  ],
  [
    'a directory of 2^64 - 1 bytes',
    0x23852875,
    bitmapsData(1, 0, 2n ** 64n - 1n, 0x10000n),
    'the size of the bitmap directory 0xffffffffffffffff',
  ],
  ['an encryption header off the clusters', 0x0537be77, cryptoData(4096n + 512n, 512n), 'a header at 0x1200'],
  ['an encryption header beyond 2^53', 0x0537be77, cryptoData(2n ** 53n, 512n), 'the offset 0x20000000000000'],
  [
    'an encryption header of 2^64 - 1 bytes',
    0x0537be77,
    cryptoData(4096n, 2n ** 64n - 1n),
    'the length 0xffffffffffffffff',
  ],
]

for (const [title, type, data, actual] of broken) {
  t.test(`refuses ${title}`, async (t) => {
    refuses(t, title, () => parse(cluster([type, data])), Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_EXTENSION',
      layer: 'disk.qcow2',
      hostOffset: 112,
      field: `extension 0x${type.toString(16)}`,
      actual,
    })
  })
}

t.test('accepts the most bitmaps, and the largest numbers that can be counted', async (t) => {
  const most = parse(cluster([0x23852875, bitmapsData(65535, 0, 2n ** 53n - 1n, 2n ** 53n - 4096n)]))
  t.strictSame(most.bitmaps, {
    nbBitmaps: 65535,
    bitmapDirectorySize: 2 ** 53 - 1,
    bitmapDirectoryOffset: 2 ** 53 - 4096,
  })
  const crypto = parse(cluster([0x0537be77, cryptoData(2n ** 53n - 4096n, 2n ** 53n - 1n)]))
  t.strictSame(crypto.cryptoHeader, { offset: 2 ** 53 - 4096, length: 2 ** 53 - 1 })
})

t.test('only a LUKS image has an encryption header', async (t) => {
  for (const cryptMethod of [0, 1] as const) {
    const run = () => parse(cluster([0x0537be77, cryptoData(4096n, 512n)]), { ...HEADER, cryptMethod })
    refuses(t, `crypt method ${cryptMethod}`, run, Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_EXTENSION',
      hostOffset: 112,
      actual: `crypt method ${cryptMethod}`,
    })
  }
})

t.test('no number comes out that is not exactly what the image says', async (t) => {
  const uint64 = fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.bigInt({ min: 0n, max: 2n ** 54n }))
  fc.assert(
    fc.property(uint64, uint64, fc.boolean(), (first, second, isVouchedFor) => {
      const directory = second - (second % 4096n)
      const bytes = cluster([0x23852875, bitmapsData(1, 0, first, directory)], [0x0537be77, cryptoData(second, first)])
      const features = { ...HEADER.features, hasConsistentBitmaps: isVouchedFor }
      let found
      try {
        found = parse(bytes, { ...HEADER, features })
      } catch (error) {
        return error instanceof Qcow2Error
      }
      const { bitmaps, cryptoHeader } = found
      if (cryptoHeader === undefined || (bitmaps !== undefined) !== isVouchedFor) return false
      const pairs = [
        [bitmaps?.bitmapDirectorySize ?? first, first],
        [bitmaps?.bitmapDirectoryOffset ?? directory, directory],
        [cryptoHeader.offset, second],
        [cryptoHeader.length, first],
      ] as const
      return pairs.every(([number, stored]) => BigInt(number) === stored)
    }),
  )
  t.pass('for every pair tried')
})

t.test('whatever the bytes, there are extensions or an error of the family', async (t) => {
  const types = fc.constantFrom(0xe2792aca, 0x6803f857, 0x23852875, 0x0537be77, 0x44415441, 1)
  const extension = fc.tuple(types, fc.uint8Array({ maxLength: 60 }))
  const edits = fc.array(fc.tuple(fc.integer({ min: 112, max: 400 }), fc.integer({ min: 0, max: 255 })), {
    maxLength: 4,
  })
  fc.assert(
    fc.property(
      fc.array(extension, { maxLength: 5 }),
      edits,
      fc.integer({ min: 112, max: 4096 }),
      (list, edits, end) => {
        const header = end % 2 === 0 ? HEADER : BASE
        const bytes = cluster(...list)
        for (const [at, byte] of edits) bytes[at] = byte
        try {
          return parse(bytes.subarray(0, end), header).unknown.every(({ data }) => data.length < end)
        } catch (error) {
          return error instanceof Qcow2Error && error.layer === 'disk.qcow2'
        }
      },
    ),
    { numRuns: 1000 },
  )
  t.pass('for all bytes tried')
})
