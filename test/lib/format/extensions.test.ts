// Header extensions: what each type says, where the area ends, what is kept, and what is refused.
import t from 'tap'
import { Qcow2FormatError } from '../../../lib/errors.js'
import { decodeName, parseExtensions } from '../../../lib/format/extensions.js'
import { expectError } from '../../fixtures/expect-error.js'
import { refuses, thrownBy } from '../../fixtures/expect-refusal.js'
import { headerWith } from '../../fixtures/header-samples.js'

const CLUSTER = 1024
const HEADER = headerWith({ clusterBits: 10, headerLength: 112 })
const LUKS = headerWith({ clusterBits: 10, headerLength: 112, cryptMethod: 2 })
const VOUCHED = headerWith({
  clusterBits: 10,
  headerLength: 112,
  cryptMethod: 2,
  features: { ...HEADER.features, hasConsistentBitmaps: true },
})
const NONE = {
  backingFormat: undefined,
  dataFileName: undefined,
  featureNames: [],
  bitmaps: undefined,
  cryptoHeader: undefined,
  unknown: [],
}

const BACKING_FORMAT = 'e2792aca'
const FEATURE_NAMES = '6803f857'
const BITMAPS = '23852875'
const CRYPTO_HEADER = '0537be77'
const DATA_FILE_NAME = '44415441'

const hex = (digits: string): Buffer => Buffer.from(digits.replaceAll(' ', ''), 'hex')

/** Type, length and data as they stand in the file; `padding` fills up to a multiple of 8. */
function extension(type: string, data: Uint8Array | string, padding = 0): Buffer {
  const bytes = Buffer.from(data)
  const head = hex(type + bytes.length.toString(16).padStart(8, '0'))
  return Buffer.concat([head, bytes, Buffer.alloc((8 - (bytes.length % 8)) % 8, padding)])
}

/** A first cluster with these bytes after a header of 112, and zeros, which mark the end, after them. */
function cluster(...parts: readonly Uint8Array[]): Buffer {
  const bytes = Buffer.alloc(CLUSTER)
  bytes.set(Buffer.concat(parts), 112)
  return bytes
}

const parse = (firstCluster: Uint8Array, header = HEADER) => parseExtensions(firstCluster, header, 'disk.qcow2')

t.test('a header without extensions has none', async (t) => {
  t.strictSame(parse(cluster()), NONE)
})

t.test('reads the format of the backing file', async (t) => {
  t.strictSame(parse(cluster(extension(BACKING_FORMAT, 'qcow2'))), { ...NONE, backingFormat: 'qcow2' })
  t.strictSame(parse(cluster(extension(BACKING_FORMAT, ''))), { ...NONE, backingFormat: '' })
})

t.test('reads the name of the external data file', async (t) => {
  t.strictSame(parse(cluster(extension(DATA_FILE_NAME, 'größe.raw'))), { ...NONE, dataFileName: 'größe.raw' })
})

t.test('reads where the bitmaps are', async (t) => {
  const data = hex('00000003 00000000 0000000100000060 0012345678900000')
  t.strictSame(parse(cluster(extension(BITMAPS, data)), VOUCHED), {
    ...NONE,
    bitmaps: { nbBitmaps: 3, bitmapDirectorySize: 0x1_0000_0060, bitmapDirectoryOffset: 0x12_3456_7890_0000 },
  })
})

t.test('knows of no bitmaps that the image does not vouch for, whatever the extension says', async (t) => {
  for (const data of [hex('00000001 00000000 0000000000000020 0000000000010000'), Buffer.alloc(24, 0xff)]) {
    t.strictSame(parse(cluster(extension(BITMAPS, data))), NONE, data.toString('hex'))
  }
})

t.test('reads where the encryption header is', async (t) => {
  const data = hex('0012345678900000 00000001 00000400')
  t.strictSame(parse(cluster(extension(CRYPTO_HEADER, data)), LUKS), {
    ...NONE,
    cryptoHeader: { offset: 0x12_3456_7890_0000, length: 0x1_0000_0400 },
  })
})

t.test('keeps what it does not know, byte for byte and as often as it comes', async (t) => {
  const found = parse(
    cluster(
      extension('12345678', 'seven c', 0xee),
      extension('ffffffff', ''),
      extension(BACKING_FORMAT, 'raw'),
      extension('12345678', Uint8Array.of(1)),
    ),
  )
  t.strictSame(found, {
    ...NONE,
    backingFormat: 'raw',
    unknown: [
      { type: 0x12345678, data: Uint8Array.from(Buffer.from('seven c')) },
      { type: 0xffffffff, data: new Uint8Array(0) },
      { type: 0x12345678, data: Uint8Array.of(1) },
    ],
  })
})

t.test('what it keeps is a copy that the caller may change', async (t) => {
  const bytes = cluster(extension('12345678', 'data'))
  const [kept] = parse(bytes).unknown
  bytes.fill(0xff)
  t.equal(Buffer.from(kept!.data).toString(), 'data')
  t.equal(kept!.data.buffer.byteLength, 4, 'it does not keep the cluster in memory')
})

t.test('reads all types together, with padding of any bytes between them', async (t) => {
  const found = parse(
    cluster(
      extension(BACKING_FORMAT, 'qcow2', 0xff),
      extension(DATA_FILE_NAME, 'disk.raw.data', 0xff),
      extension(CRYPTO_HEADER, hex('0000000000010000 0000000000000200')),
      extension(BITMAPS, hex('00000001 00000000 0000000000000020 0000000000020000')),
      extension(FEATURE_NAMES, Buffer.concat([hex('0003'), Buffer.from('compression type'.padEnd(46, '\0'))])),
    ),
    VOUCHED,
  )
  t.strictSame(found, {
    backingFormat: 'qcow2',
    dataFileName: 'disk.raw.data',
    featureNames: [{ mask: 'incompatible', bit: 3, name: 'compression type' }],
    bitmaps: { nbBitmaps: 1, bitmapDirectorySize: 32, bitmapDirectoryOffset: 131072 },
    cryptoHeader: { offset: 65536, length: 512 },
    unknown: [],
  })
})

t.test('extensions begin where the header ends', async (t) => {
  const bytes = Buffer.alloc(CLUSTER)
  bytes.set(extension(BACKING_FORMAT, 'raw'), 72)
  bytes.set(extension(BACKING_FORMAT, 'qcow2'), 104)
  bytes.set(extension(DATA_FILE_NAME, 'data'), 512)
  t.strictSame(parse(bytes, headerWith({ clusterBits: 10, headerLength: 72 })), { ...NONE, backingFormat: 'raw' })
  t.strictSame(parse(bytes, headerWith({ clusterBits: 10, headerLength: 104 })), { ...NONE, backingFormat: 'qcow2' })
  t.strictSame(parse(bytes, headerWith({ clusterBits: 10, headerLength: 512 })), { ...NONE, dataFileName: 'data' })
  t.strictSame(parse(bytes, headerWith({ clusterBits: 10, headerLength: 1024 })), NONE, 'no room for any')
})

t.test('nothing after the end marker is read, whatever length the marker claims within the cluster', async (t) => {
  const after = extension(BACKING_FORMAT, 'raw')
  t.strictSame(parse(cluster(hex('00000000 00000000'), after)), NONE)
  t.strictSame(parse(cluster(hex('00000000 00000388'), after)), NONE)
  t.throws(() => parse(cluster(hex('00000000 00000389'), after)), { code: 'ERR_QCOW2_BAD_EXTENSION' })
})

t.test('the area ends with the first cluster, or at the name of the backing file, without an end marker', async (t) => {
  const fits = extension('00000001', Buffer.alloc(80, 0x11))
  const header = headerWith({ clusterBits: 10, headerLength: 112, backingFileOffset: 200, backingFileSize: 9 })
  const bytes = cluster(fits, Buffer.from('\u0001\u0002\u0003\u0004base.img'))
  t.strictSame(parse(bytes, header), { ...NONE, unknown: [{ type: 1, data: new Uint8Array(80).fill(0x11) }] })
  const whole = cluster(extension('00000001', Buffer.alloc(CLUSTER - 112 - 8, 0x22)))
  t.equal(parse(whole).unknown[0]!.data.length, 904, 'up to the last byte of the cluster')
  const tooLong = Buffer.concat([whole, Buffer.alloc(CLUSTER)])
  tooLong.writeUInt32BE(905, 116)
  t.match(
    thrownBy(() => parse(tooLong)),
    { code: 'ERR_QCOW2_BAD_EXTENSION' },
    'even if there are more bytes at hand',
  )
})

t.test('bytes too few for another extension are refused', async (t) => {
  for (let rest = 1; rest < 8; rest++) {
    const header = headerWith({ clusterBits: 10, headerLength: 112, backingFileOffset: 112 + rest })
    expectError(
      t,
      thrownBy(() => parse(cluster(hex('ffffffff ffffffff')), header)),
      Qcow2FormatError,
      'ERR_QCOW2_BAD_EXTENSION',
      { hostOffset: 112, field: 'header extensions', actual: rest },
    )
  }
  const header = headerWith({ clusterBits: 10, headerLength: 112, backingFileOffset: 112 })
  t.strictSame(parse(cluster(hex('ffffffff ffffffff')), header), NONE, 'none at all are none')
})

t.test('more extensions than anybody needs are refused', async (t) => {
  const header = headerWith({ clusterBits: 16, headerLength: 112 })
  const many = (count: number): Buffer => {
    const bytes = Buffer.alloc(65536)
    for (let i = 0; i < count; i++) bytes.writeUInt32BE(1, 112 + i * 8)
    return bytes
  }
  t.equal(parse(many(256), header).unknown.length, 256)
  expectError(
    t,
    thrownBy(() => parse(many(257), header)),
    Qcow2FormatError,
    'ERR_QCOW2_BAD_EXTENSION',
    { hostOffset: 112 + 256 * 8 },
  )
})

t.test('the padding of the last extension may be cut', async (t) => {
  const header = headerWith({ clusterBits: 10, headerLength: 112, backingFileOffset: 123 })
  t.strictSame(parse(cluster(extension(BACKING_FORMAT, 'raw')), header), { ...NONE, backingFormat: 'raw' })
})

t.test('a length that leads out of the area is refused, at the edge and far beyond', async (t) => {
  for (const length of [905, 906, 1024, 0x7fff_ffff, 0x8000_0000, 0xffff_fff8, 0xffff_ffff]) {
    const bytes = cluster(hex(`12345678 ${length.toString(16).padStart(8, '0')}`))
    refuses(t, `${length} bytes`, () => parse(bytes), Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_EXTENSION',
      layer: 'disk.qcow2',
      hostOffset: 112,
      field: 'extension 0x12345678',
      actual: `a length of ${length} bytes`,
      message: /up to 904, what is left before host offset 0x400$/,
    })
  }
})

t.test('a length that leads into the name of the backing file is refused', async (t) => {
  const header = headerWith({ clusterBits: 10, headerLength: 112, backingFileOffset: 122 })
  refuses(t, 'one byte', () => parse(cluster(extension(BACKING_FORMAT, 'raw')), header), Qcow2FormatError, {
    code: 'ERR_QCOW2_BAD_EXTENSION',
    hostOffset: 112,
    message: /up to 2, what is left before host offset 0x7a$/,
  })
})

t.test('a file that ends inside the extensions is refused or has no more of them, at every length', async (t) => {
  const bytes = cluster(extension(BACKING_FORMAT, 'qcow2'), extension(DATA_FILE_NAME, 'data.raw'))
  for (let length = 105; length <= 160; length++) {
    const run = () => parse(bytes.subarray(0, length))
    const isInside = [
      [112, 125],
      [128, 144],
      [144, 152],
    ].some(([from, to]) => length > from! && length < to!)
    if (isInside) {
      t.match(thrownBy(run), { code: 'ERR_QCOW2_BAD_EXTENSION' }, `${length} bytes`)
    } else {
      const expected = {
        ...NONE,
        backingFormat: length < 125 ? undefined : 'qcow2',
        dataFileName: length < 144 ? undefined : 'data.raw',
      }
      t.strictSame(run(), expected, `${length} bytes`)
    }
  }
})

t.test('a name is UTF-8 up to the first NUL, and anything else shows as such', async (t) => {
  t.equal(decodeName(Buffer.from('größe 💾')), 'größe 💾')
  t.equal(decodeName(Buffer.from('name\0garbage')), 'name')
  t.equal(decodeName(Buffer.from('\0')), '')
  t.equal(decodeName(Buffer.alloc(0)), '')
  t.equal(decodeName(hex('61 ff 62 c3')), 'a\ufffdb\ufffd')
  t.equal(decodeName(hex('efbbbf 61')), '\ufeffa', 'a byte order mark belongs to the name')
})
