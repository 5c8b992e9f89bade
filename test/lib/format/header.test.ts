// The header as a whole: both versions, feature masks, where it may be cut, and bytes at random.
import fc from 'fast-check'
import t from 'tap'
import { Qcow2Error, Qcow2FormatError, Qcow2UnsupportedError } from '../../../lib/errors.js'
import { hasQcow2Magic, l1Reach, parseHeader } from '../../../lib/format/header.js'
import { refuses, thrownBy } from '../../fixtures/expect-refusal.js'
import { version2Header, VERSION_3_FIELDS, version3Header } from '../../fixtures/header-samples.js'

const parse = (bytes: Uint8Array) => parseHeader(bytes, 'disk.qcow2')

t.test('reads every field of a version 3 header', async (t) => {
  t.strictSame(parse(version3Header()), VERSION_3_FIELDS)
})

t.test('reads a version 2 header and gives the fields it lacks the values they have then', async (t) => {
  t.strictSame(parse(version2Header()), { ...VERSION_3_FIELDS, version: 2, headerLength: 72 })
})

t.test('what follows the 72 bytes of version 2 is no part of its header', async (t) => {
  const bytes = Buffer.concat([version2Header(), Buffer.alloc(40, 0xff)])
  t.strictSame(parse(bytes), { ...VERSION_3_FIELDS, version: 2, headerLength: 72 })
})

t.test('reads each field from its own place', async (t) => {
  const bytes = version3Header(
    [8, 8, 0x90],
    [16, 4, 0x17],
    [20, 4, 17],
    [24, 8, 0x1_2345_6789],
    [32, 4, 2],
    [36, 4, 0x99],
    [40, 8, 0x12_3400_0000],
    [48, 8, 0x56_7800_0000],
    [56, 4, 3],
    [60, 4, 5],
    [64, 8, 0x9a_bc00_0000],
    [72, 8, 0x8000_0000_0000_0009n],
    [80, 8, 0x4000_0000_0000_0001n],
    [88, 8, 0x2000_0000_0000_0001n],
    [96, 4, 6],
    [100, 4, 120],
    [104, 1, 1],
  )
  t.strictSame(parse(Buffer.concat([bytes, Buffer.alloc(8)])), {
    version: 3,
    backingFileOffset: 0x90,
    backingFileSize: 0x17,
    clusterBits: 17,
    size: 0x1_2345_6789,
    cryptMethod: 2,
    l1Size: 0x99,
    l1TableOffset: 0x12_3400_0000,
    refcountTableOffset: 0x56_7800_0000,
    refcountTableClusters: 3,
    nbSnapshots: 5,
    snapshotsOffset: 0x9a_bc00_0000,
    incompatibleFeatures: 0x8000_0000_0000_0009n,
    compatibleFeatures: 0x4000_0000_0000_0001n,
    autoclearFeatures: 0x2000_0000_0000_0001n,
    refcountOrder: 6,
    headerLength: 120,
    compressionType: 1,
    features: {
      ...VERSION_3_FIELDS.features,
      isDirty: true,
      hasCompressionType: true,
      hasLazyRefcounts: true,
      hasConsistentBitmaps: true,
    },
  })
})

t.test('reads a header that lies in the middle of other memory', async (t) => {
  const memory = Buffer.concat([Buffer.alloc(13, 0xee), version3Header(), Buffer.alloc(5, 0xee)])
  t.strictSame(parse(memory.subarray(13, 125)), VERSION_3_FIELDS)
})

t.test('what does not begin as qcow2 is not taken for one', async (t) => {
  const wrong: [string, Uint8Array][] = [
    ['nothing', Buffer.alloc(0)],
    ['three bytes of the magic number', version3Header().subarray(0, 3)],
    ['zeros', Buffer.alloc(112)],
    ['the version before this format', Buffer.from('514649fb', 'hex').reverse()],
    ...[0, 1, 2, 3].map((at): [string, Uint8Array] => {
      const bytes = version3Header()
      bytes[at]! ^= 0x01
      return [`byte ${at} of the magic number off by one bit`, bytes]
    }),
  ]
  for (const [title, bytes] of wrong) {
    t.equal(hasQcow2Magic(bytes), false, title)
    refuses(t, title, () => parse(bytes), Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_MAGIC',
      layer: 'disk.qcow2',
      hostOffset: 0,
    })
  }
  t.match(
    thrownBy(() => parse(Buffer.alloc(0))),
    { message: /not a qcow2 image: it is empty$/ },
  )
  t.match(
    thrownBy(() => parse(Buffer.from('Q'))),
    { message: /not a qcow2 image: it does not begin with "QFI/ },
  )
  t.equal(hasQcow2Magic(version3Header()), true)
  t.equal(hasQcow2Magic(version2Header().subarray(0, 4)), true)
})

for (const version of [0, 1, 4, 0x0200_0000, 0xffff_ffff]) {
  t.test(`refuses version ${version} as one it does not read`, async (t) => {
    const bytes = version3Header([4, 4, version])
    refuses(t, 'whole', () => parse(bytes), Qcow2UnsupportedError, {
      code: 'ERR_QCOW2_UNSUPPORTED_VERSION',
      layer: 'disk.qcow2',
      hostOffset: 4,
      field: 'version',
      actual: version,
    })
    refuses(t, 'cut', () => parse(bytes.subarray(0, 8)), Qcow2UnsupportedError, {
      code: 'ERR_QCOW2_UNSUPPORTED_VERSION',
      actual: version,
    })
  })
}

t.test('a header that the file cuts short is a truncated image, at every length', async (t) => {
  const rows: [title: string, header: Buffer, needed: number][] = [
    ['version 2', version2Header(), 72],
    ['version 3 without additional fields', version3Header([100, 4, 104]), 104],
    ['version 3 with a compression type', version3Header(), 105],
  ]
  for (const [title, header, needed] of rows) {
    for (let length = 4; length < needed; length++) {
      const expected = { code: 'ERR_QCOW2_TRUNCATED', layer: 'disk.qcow2', hostOffset: length } as const
      refuses(t, `${title}, ${length} bytes`, () => parse(header.subarray(0, length)), Qcow2FormatError, expected)
    }
    t.equal(parse(header.subarray(0, needed)).size, 1073741824, `${title}, ${needed} bytes`)
  }
})

t.test('the compression type is absent from a header that ends before it', async (t) => {
  const header = parse(version3Header([100, 4, 104], [104, 1, 1]))
  t.equal(header.compressionType, 0)
  t.equal(header.headerLength, 104)
})

t.test('unknown feature bits are kept for those who can name them', async (t) => {
  const header = parse(version3Header([72, 8, 1n << 63n], [80, 8, ~0n & 0xffff_ffff_ffff_fffen], [88, 8, 1n << 2n]))
  t.equal(header.incompatibleFeatures, 0x8000_0000_0000_0000n)
  t.equal(header.compatibleFeatures, 0xffff_ffff_ffff_fffen)
  t.equal(header.autoclearFeatures, 4n)
  t.strictSame(header.features, VERSION_3_FIELDS.features)
})

t.test('an L1 entry reaches over one L2 table: a cluster of entries of 8 or 16 bytes', async (t) => {
  t.equal(l1Reach(512, false), 32768)
  t.equal(l1Reach(65536, false), 536870912)
  t.equal(l1Reach(65536, true), 268435456)
  t.equal(l1Reach(2097152, false), 549755813888)
  t.equal(l1Reach(2097152, true), 274877906944)
})

t.test('whatever the bytes, there is a header within its bounds or an error of the family', async (t) => {
  const edits = fc.array(fc.tuple(fc.integer({ min: 4, max: 111 }), fc.integer({ min: 0, max: 255 })), { maxLength: 6 })
  const length = fc.integer({ min: 90, max: 112 })
  let parsed = 0
  fc.assert(
    fc.property(edits, length, fc.boolean(), (edits, length, isVersion2) => {
      const bytes = Buffer.from(isVersion2 ? version2Header() : version3Header()).subarray(0, length)
      for (const [at, byte] of edits) {
        if (at < bytes.length) bytes[at] = byte
      }
      try {
        const header = parse(bytes)
        parsed++
        const clusterSize = 2 ** header.clusterBits
        const numbers = Object.values(header).filter((value) => typeof value === 'number')
        return (
          numbers.every((value) => Number.isSafeInteger(value) && value >= 0) &&
          header.l1Size * 8 <= 32 * 2 ** 20 &&
          header.refcountTableClusters * clusterSize <= 8 * 2 ** 20 &&
          [header.l1TableOffset, header.refcountTableOffset, header.snapshotsOffset].every(
            (offset) => offset % clusterSize === 0,
          ) &&
          header.headerLength <= clusterSize &&
          header.backingFileOffset + header.backingFileSize <= clusterSize &&
          header.size <= header.l1Size * l1Reach(clusterSize, header.features.hasExtendedL2)
        )
      } catch (error) {
        return error instanceof Qcow2Error && error.layer === 'disk.qcow2'
      }
    }),
    { numRuns: 2000 },
  )
  t.ok(parsed > 20, `some headers were valid: ${parsed}`)
})
