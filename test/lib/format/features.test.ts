// Feature bits: what each known one means, and how unknown incompatible ones are refused by the image's own names.
import t, { type Test } from 'tap'
import { Qcow2UnsupportedError } from '../../../lib/errors.js'
import { decodeFeatures, refuseUnknownFeatures, type FeatureName } from '../../../lib/format/features.js'
import { refuses } from '../../fixtures/expect-refusal.js'

const NONE = {
  isDirty: false,
  isCorrupt: false,
  hasExternalDataFile: false,
  isExternalDataFileRaw: false,
  hasCompressionType: false,
  hasExtendedL2: false,
  hasLazyRefcounts: false,
  hasConsistentBitmaps: false,
}
const ALL_BITS = 0xffff_ffff_ffff_ffffn

t.test('each known bit is one fact and touches no other', async (t) => {
  const rows: [masks: [incompatible: bigint, compatible: bigint, autoclear: bigint], fact: keyof typeof NONE][] = [
    [[0x01n, 0n, 0n], 'isDirty'],
    [[0x02n, 0n, 0n], 'isCorrupt'],
    [[0x04n, 0n, 0n], 'hasExternalDataFile'],
    [[0x08n, 0n, 0n], 'hasCompressionType'],
    [[0x10n, 0n, 0n], 'hasExtendedL2'],
    [[0n, 0x01n, 0n], 'hasLazyRefcounts'],
    [[0n, 0n, 0x01n], 'hasConsistentBitmaps'],
    [[0n, 0n, 0x02n], 'isExternalDataFileRaw'],
  ]
  for (const [masks, fact] of rows) {
    t.strictSame(decodeFeatures(...masks), { ...NONE, [fact]: true }, fact)
  }
})

t.test('bits that are not known are no fact', async (t) => {
  t.strictSame(decodeFeatures(0n, 0n, 0n), NONE)
  t.strictSame(decodeFeatures(ALL_BITS & ~0x1fn, ALL_BITS & ~0x01n, ALL_BITS & ~0x03n), NONE)
  t.notOk(Object.values(decodeFeatures(ALL_BITS, ALL_BITS, ALL_BITS)).includes(false), 'and hide none')
})

const refusal = (t: Test, title: string, mask: bigint, names: readonly FeatureName[], text: string): void =>
  refuses(t, title, () => refuseUnknownFeatures(mask, names, 'disk.qcow2'), Qcow2UnsupportedError, {
    code: 'ERR_QCOW2_UNKNOWN_FEATURE',
    layer: 'disk.qcow2',
    field: 'incompatibleFeatures',
    hostOffset: 72,
    actual: `0x${mask.toString(16)}`,
    message: new RegExp(`not known here: ${escaped(text)}$`),
  })

const escaped = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')

const named = (bit: number, name: string): FeatureName => ({ mask: 'incompatible', bit, name })

t.test('an image that needs only known features is not refused, whatever it calls them', async (t) => {
  for (let bits = 0n; bits < 0x20n; bits++) {
    t.doesNotThrow(() => refuseUnknownFeatures(bits, [named(0, 'unheard of'), named(5, 'not set')], 'disk.qcow2'))
  }
})

t.test('every other bit is refused by its number where the image has no name for it', async (t) => {
  for (let bit = 5; bit < 64; bit++) {
    refusal(t, `bit ${bit}`, 1n << BigInt(bit), [], `bit ${bit} (unnamed)`)
  }
})

t.test("unknown bits are refused by the image's own names, in the order of bits, known ones left out", async (t) => {
  const names = [named(63, 'time travel'), named(2, 'data file'), named(5, 'brotli')]
  const mask = (1n << 63n) | (1n << 40n) | (1n << 5n) | 0x06n
  refusal(t, 'three of them', mask, names, 'bit 5 "brotli", bit 40 (unnamed), bit 63 "time travel"')
  refusal(t, 'all bits', ALL_BITS & ~0x1en, [named(5, 'x')], allBitsText('bit 5 "x"'))
})

function allBitsText(first: string): string {
  const rest = Array.from({ length: 58 }, (_, i) => `bit ${i + 6} (unnamed)`)
  return [first, ...rest].join(', ')
}

t.test('a name counts for its own mask and bit alone, and the first one given counts', async (t) => {
  const names: FeatureName[] = [
    { mask: 'compatible', bit: 7, name: 'compatible' },
    { mask: 'autoclear', bit: 7, name: 'autoclear' },
    named(8, 'next'),
    named(7, 'first'),
    named(7, 'second'),
  ]
  refusal(t, 'bit 7', 1n << 7n, names, 'bit 7 "first"')
  refusal(t, 'bit 9', 1n << 9n, names, 'bit 9 (unnamed)')
  refusal(t, 'an empty name', 1n << 9n, [named(9, '')], 'bit 9 ""')
})

t.test('a name cannot break the line, colour the terminal or turn the text around', async (t) => {
  const names = [named(6, 'a\r\nb\u001b[31m\u007f\u009b\u202e\u2028"')]
  refusal(t, 'bit 6', 1n << 6n, names, 'bit 6 "a\\r\\nb\\u001b[31m\\u007f\\u009b\\u202e\\u2028\\""')
})
