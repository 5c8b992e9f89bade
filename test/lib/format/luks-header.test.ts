// The LUKS header: each field on its own, the last values allowed and the first refused.
import fc from 'fast-check'
import t from 'tap'
import { Qcow2Error, Qcow2FormatError, Qcow2UnsupportedError } from '../../../lib/errors.js'
import {
  keyMaterialBytes,
  LUKS_HEADER_BYTES,
  LUKS_STRIPES,
  parseLuksHeader,
  type LuksHeader,
} from '../../../lib/format/luks-header.js'
import { refuses } from '../../fixtures/expect-refusal.js'
import { ACTIVE, DISABLED, luksHeaderBytes, type LuksFields } from '../../fixtures/luks-header-bytes.js'
import { pattern } from '../../fixtures/patterns.js'

// 512-byte sectors of key material of a key of 64 bytes, and where the payload begins behind eight of them.
const SLOT = 504
const PAYLOAD = 8 + 8 * SLOT
const HOST_OFFSET = 0x30000
const PLACE = { layer: 'disk.qcow2', hostOffset: HOST_OFFSET, length: PAYLOAD * 512 }

const parse = (fields: Partial<LuksFields> = {}, length = PLACE.length): LuksHeader =>
  parseLuksHeader(luksHeaderBytes(fields), { ...PLACE, length })

t.test('reads every field', async (t) => {
  t.strictSame(parse(), {
    cipherName: 'aes',
    cipherMode: 'xts-plain64',
    hashSpec: 'sha256',
    keyBytes: 64,
    mkDigest: new Uint8Array(pattern(1, 20)),
    mkDigestSalt: new Uint8Array(pattern(2, 32)),
    mkDigestIterations: 1000,
    payloadOffset: PAYLOAD * 512,
    uuid: '01234567-89ab-cdef-0123-456789abcdef',
    keySlots: Array.from({ length: 8 }, (_, index) => ({
      index,
      isActive: index === 0,
      iterations: index === 0 ? 2000 : 0,
      salt: new Uint8Array(pattern(10 + index, 32)),
      keyMaterialOffset: 4096 + index * 258_048,
    })),
  })
})

t.test('the constants are those of the specification', async (t) => {
  t.equal(LUKS_HEADER_BYTES, 592)
  t.equal(LUKS_STRIPES, 4000)
  t.equal(keyMaterialBytes(64), 256_000)
  t.equal(keyMaterialBytes(32), 128_000)
  t.equal(keyMaterialBytes(24), 96_256, '96,000 bytes in whole sectors')
  t.equal(keyMaterialBytes(16), 64_000)
})

t.test('reads a header that lies in the middle of other memory, and keeps nothing of that memory', async (t) => {
  const memory = Buffer.concat([Buffer.alloc(13, 0xee), luksHeaderBytes(), Buffer.alloc(100, 0xee)])
  const header = parseLuksHeader(memory.subarray(13), PLACE)
  t.strictSame(header, parse())
  memory.fill(0)
  t.strictSame(header, parse())
})

t.test('accepts what is unusual and allowed', async (t) => {
  const longName = 'x'.repeat(31)
  t.equal(parse({ cipherName: longName }).cipherName, longName, 'the longest name')
  t.equal(parse({ hashSpec: '' }).hashSpec, '', 'a name of no length')
  t.equal(parse({ cipherMode: Buffer.from('cbc\0rest of before') }).cipherMode, 'cbc', 'bytes behind a name')
  t.equal(parse({ uuid: 'u'.repeat(40) }).uuid, 'u'.repeat(40), 'a UUID that fills its field')
  t.equal(parse({ keyBytes: 1 }).keyBytes, 1, 'the shortest key')
  t.equal(parse({ keyBytes: 64 }).keyBytes, 64, 'the longest key')
  t.equal(parse({ mkDigestIterations: 2 ** 32 - 1 }).mkDigestIterations, 2 ** 32 - 1, 'the most iterations')
  const slots = parse({ keySlots: { 7: { active: ACTIVE, iterations: 1 }, 2: { iterations: 2 ** 32 - 1 } } }).keySlots
  t.strictSame(slots.map(({ isActive }) => isActive).indexOf(true), 7, 'only the last slot is active')
  t.equal(slots[7]?.iterations, 1)
  t.equal(slots[2]?.iterations, 2 ** 32 - 1, 'iterations of a slot that is not active')
  t.equal(
    parse({ keySlots: {} }).keySlots.some(({ isActive }) => isActive),
    false,
    'no active slot',
  )
})

t.test('accepts key material that fills all there is, in any order', async (t) => {
  // 500 sectors each, without a gap.
  const order = [3, 1, 7, 0, 5, 2, 6, 4]
  const keySlots = Object.fromEntries(order.map((place, index) => [index, { keyMaterialOffset: 8 + place * 500 }]))
  const end = 8 + 8 * 500
  for (const [title, payloadOffset, length] of [
    ['to the payload', end, 2 ** 40],
    ['to the end of the encryption header', 2 ** 32 - 1, end * 512],
  ] as const) {
    const header = parse({ keySlots, payloadOffset }, length)
    t.strictSame(
      header.keySlots.map(({ keyMaterialOffset }) => keyMaterialOffset),
      order.map((place) => 4096 + place * 256_000),
      title,
    )
  }
})

t.test('the payload may begin in the least of whole pages, if there is room for the key material', async (t) => {
  const expected = { code: 'ERR_QCOW2_BAD_LUKS_HEADER', field: 'keySlots[0].keyMaterialOffset' } as const
  refuses(t, 'sector 8', () => parse({ payloadOffset: 8 }), Qcow2FormatError, expected)
})

type Refused = readonly [
  title: string,
  fields: Partial<LuksFields>,
  field: string,
  at: number,
  actual: unknown,
  length?: number,
]

const nameBytes = (first: string): Buffer => Buffer.from(first.padEnd(32, 'y'))
const slotAt = (index: number): number => 208 + 48 * index
const material = (index: number, keyMaterialOffset: number): Partial<LuksFields> => ({
  keySlots: { [index]: { keyMaterialOffset } },
})

const refused: readonly Refused[] = [
  ['another magic number', { magic: '4c554b53babf' }, 'magic', 0, '4c554b53babf'],
  ['no magic number', { magic: '000000000000' }, 'magic', 0, '000000000000'],
  ['the magic number of a second header', { magic: '534b554cbabe' }, 'magic', 0, '534b554cbabe'],
  ['a cipher without an end', { cipherName: nameBytes('aes') }, 'cipherName', 8, `"aes${'y'.repeat(29)}"`],
  ['a mode without an end', { cipherMode: nameBytes('xts-') }, 'cipherMode', 40, `"xts-${'y'.repeat(28)}"`],
  ['a hash without an end', { hashSpec: nameBytes('\u0007') }, 'hashSpec', 72, `"\\u0007${'y'.repeat(31)}"`],
  ['a payload within the first sector', { payloadOffset: 1 }, 'payloadOffset', 104, 1],
  ['a payload within the first page', { payloadOffset: 7 }, 'payloadOffset', 104, 7],
  ['no key', { keyBytes: 0 }, 'keyBytes', 108, 0],
  ['a key longer than any', { keyBytes: 65 }, 'keyBytes', 108, 65],
  ['a key of 4 GiB', { keyBytes: 2 ** 32 - 1 }, 'keyBytes', 108, 2 ** 32 - 1],
  ['no iterations of the digest', { mkDigestIterations: 0 }, 'mkDigestIterations', 164, 0],
]

const refusedSlots = Array.from({ length: 8 }, (_, index): Refused[] => {
  const at = slotAt(index)
  const name = `keySlots[${index}]`
  const neighbour = index < 7 ? index + 1 : 6
  const last = 8 + neighbour * SLOT
  return [
    ...[0, 1, 0xdead0000, 0x00ac71f2, 2 ** 32 - 1].map((active): Refused => [
      `slot ${index} in state ${active}`,
      { keySlots: { [index]: { active } } },
      `${name}.active`,
      at,
      `0x${active.toString(16)}`,
    ]),
    [
      `slot ${index} active without iterations`,
      { keySlots: { [index]: { active: ACTIVE, iterations: 0 } } },
      `${name}.iterations`,
      at + 4,
      0,
    ],
    ...[0, 3999, 4001, 2 ** 32 - 1].flatMap((stripes) =>
      [ACTIVE, DISABLED].map((active): Refused => [
        `slot ${index} (${active === ACTIVE ? 'active' : 'disabled'}) of ${stripes} stripes`,
        { keySlots: { [index]: { active, iterations: 1, stripes } } },
        `${name}.stripes`,
        at + 44,
        stripes,
      ]),
    ),
    ...[0, 1, 7].map((sector): Refused => [
      `material of slot ${index} at sector ${sector}`,
      material(index, sector),
      `${name}.keyMaterialOffset`,
      at + 40,
      sector * 512,
    ]),
    ...[PAYLOAD - 499, PAYLOAD, 2 ** 32 - 1].map((sector): Refused => [
      `material of slot ${index} at sector ${sector}, past the beginning of the payload`,
      material(index, sector),
      `${name}.keyMaterialOffset`,
      at + 40,
      sector * 512,
      2 ** 50,
    ]),
    [
      `material of slot ${index} past the end of the encryption header`,
      { payloadOffset: 2 ** 32 - 1, ...material(index, PAYLOAD - 499) },
      `${name}.keyMaterialOffset`,
      at + 40,
      (PAYLOAD - 499) * 512,
    ],
    // Behind the last slot there is none to end in.
    ...(index < 7
      ? [
          [
            `material of slot ${index} that ends within that of slot ${neighbour}`,
            material(index, last - 499),
            `keySlots[${neighbour}].keyMaterialOffset`,
            slotAt(neighbour) + 40,
            last * 512,
          ] as const,
        ]
      : []),
    [
      `material of slot ${index} that begins within that of slot ${neighbour}`,
      material(index, last + 499),
      `${name}.keyMaterialOffset`,
      at + 40,
      (last + 499) * 512,
    ],
  ]
}).flat()

for (const [title, fields, field, at, actual, length] of [...refused, ...refusedSlots]) {
  t.test(`refuses ${title}`, async (t) => {
    refuses(t, field, () => parse(fields, length), Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_LUKS_HEADER',
      layer: 'disk.qcow2',
      hostOffset: HOST_OFFSET + at,
      field,
      actual,
      message: /^"disk\.qcow2": LUKS header field \S+ at host offset 0x3[0-9a-f]{4}: found .+, allowed is ./,
    })
  })
}

t.test('refuses two slots with the same key material', async (t) => {
  refuses(t, 'slots 2 and 5', () => parse(material(5, 8 + 2 * SLOT)), Qcow2FormatError, {
    code: 'ERR_QCOW2_BAD_LUKS_HEADER',
    hostOffset: HOST_OFFSET + slotAt(5) + 40,
    field: 'keySlots[5].keyMaterialOffset',
    actual: (8 + 2 * SLOT) * 512,
    message: /behind slot 2/,
  })
})

for (const version of [0, 2, 3, 0x100, 0xffff]) {
  t.test(`refuses LUKS version ${version} as one it does not read`, async (t) => {
    refuses(t, 'version', () => parse({ version }), Qcow2UnsupportedError, {
      code: 'ERR_QCOW2_UNSUPPORTED_ENCRYPTION',
      layer: 'disk.qcow2',
      hostOffset: HOST_OFFSET + 6,
      field: 'version',
      actual: version,
      message: new RegExp(`LUKS version ${version};`),
    })
  })
}

t.test('refuses a detached header by name', async (t) => {
  refuses(t, 'payloadOffset', () => parse({ payloadOffset: 0 }), Qcow2UnsupportedError, {
    code: 'ERR_QCOW2_UNSUPPORTED_ENCRYPTION',
    layer: 'disk.qcow2',
    hostOffset: HOST_OFFSET + 104,
    field: 'payloadOffset',
    actual: 0,
    message: /detached LUKS header/,
  })
})

t.test('refuses a header that is cut short, at every length', async (t) => {
  const whole = luksHeaderBytes()
  for (let length = 0; length < whole.length; length++) {
    refuses(t, `${length} bytes`, () => parseLuksHeader(whole.subarray(0, length), PLACE), Qcow2FormatError, {
      code: 'ERR_QCOW2_BAD_LUKS_HEADER',
      layer: 'disk.qcow2',
      hostOffset: HOST_OFFSET,
      field: 'magic',
      actual: `a header of ${length} bytes`,
    })
  }
})

t.test('whatever the bytes, there is a header within its bounds or an error of the family', async (t) => {
  const edits = fc.array(fc.tuple(fc.integer({ min: 8, max: 591 }), fc.integer({ min: 0, max: 255 })), { maxLength: 4 })
  let parsed = 0
  fc.assert(
    fc.property(edits, fc.integer({ min: 0, max: 2 ** 22 }), (edits, length) => {
      const bytes = luksHeaderBytes({ keyBytes: 32 })
      for (const [at, byte] of edits) bytes[at] = byte
      try {
        const { keyBytes, keySlots, mkDigestIterations } = parseLuksHeader(bytes, { ...PLACE, length })
        parsed++
        return (
          keyBytes <= 64 &&
          mkDigestIterations > 0 &&
          keySlots.every(
            ({ keyMaterialOffset: offset, isActive, iterations }) =>
              offset >= 4096 && offset + keyBytes * 4000 <= length && (!isActive || iterations > 0),
          )
        )
      } catch (error) {
        return error instanceof Qcow2Error && error.layer === 'disk.qcow2'
      }
    }),
    { numRuns: 2000 },
  )
  t.ok(parsed > 20, `some headers were valid: ${parsed}`)
})
