/**
 * From a passphrase to the key of the sectors, over volumes that were made by another implementation of the specification.
 */
import { createHook } from 'node:async_hooks'
import t from 'tap'
import { rejection } from '../../fixtures/expect-error.js'
import { SectorCipher, type CipherSpec } from '../../../lib/crypto/cipher.js'
import { iterationsToTry, schemeOf, unlock, type LuksScheme } from '../../../lib/crypto/luks.js'
import { Qcow2FormatError, Qcow2UnsupportedError } from '../../../lib/errors.js'
import { parseLuksHeader, type LuksHeader } from '../../../lib/format/luks-header.js'
import { refuses } from '../../fixtures/expect-refusal.js'
import { ACTIVE, luksHeaderBytes, type LuksFields } from '../../fixtures/luks-header-bytes.js'
import { makeLuksVolume, type LuksVolume, type LuksVolumeSpec } from '../../fixtures/luks-volume.js'
import { pattern } from '../../fixtures/patterns.js'

const FACTS = { layer: 'disk.qcow2', hostOffset: 0x30000 }

const headerOf = (bytes: Buffer): LuksHeader => parseLuksHeader(bytes.subarray(0, 592), { ...FACTS, length: 2 ** 40 })

const scheme = (fields: Partial<LuksFields>): LuksScheme => schemeOf(headerOf(luksHeaderBytes(fields)), FACTS)

t.test('reads the scheme of a header', async (t) => {
  const rows: [cipherMode: string, keyBytes: number, expected: Partial<LuksScheme>][] = [
    ['xts-plain64:sha256', 64, { mode: 'xts', iv: 'plain64', essivHash: undefined }],
    ['xts-plain64', 64, { mode: 'xts', iv: 'plain64', essivHash: undefined }],
    ['xts-plain64', 32, { mode: 'xts', iv: 'plain64', essivHash: undefined }],
    ['xts-plain', 48, { mode: 'xts', iv: 'plain', essivHash: undefined }],
    ['xts-essiv:sha256', 64, { mode: 'xts', iv: 'essiv', essivHash: 'sha256' }],
    ['cbc-plain', 16, { mode: 'cbc', iv: 'plain', essivHash: undefined }],
    ['cbc-plain64', 24, { mode: 'cbc', iv: 'plain64', essivHash: undefined }],
    ['cbc-essiv:sha256', 32, { mode: 'cbc', iv: 'essiv', essivHash: 'sha256' }],
    ['cbc-essiv:md5', 16, { mode: 'cbc', iv: 'essiv', essivHash: 'md5' }],
    ['ecb', 32, { mode: 'ecb', iv: 'plain64', essivHash: undefined }],
    ['ecb-plain', 16, { mode: 'ecb', iv: 'plain', essivHash: undefined }],
  ]
  for (const [cipherMode, keyBytes, expected] of rows) {
    t.strictSame(scheme({ cipherMode, keyBytes }), { hash: 'sha256', ...expected }, `${cipherMode}, ${keyBytes} bytes`)
  }
  for (const hashSpec of ['sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160', 'md5']) {
    t.equal(scheme({ hashSpec }).hash, hashSpec)
  }
})

const unsupported: readonly (readonly [fields: Partial<LuksFields>, field: string, actual: string])[] = [
  [{ cipherName: 'twofish' }, 'cipherName', 'twofish'],
  [{ cipherName: 'serpent' }, 'cipherName', 'serpent'],
  [{ cipherName: 'cast5' }, 'cipherName', 'cast5'],
  [{ cipherName: 'AES' }, 'cipherName', 'AES'],
  [{ cipherName: '' }, 'cipherName', ''],
  [{ cipherName: '\u001b[31m' }, 'cipherName', '\u001b[31m'],
  [{ cipherMode: 'ctr-plain64' }, 'cipherMode', 'ctr'],
  [{ cipherMode: 'lrw-plain64' }, 'cipherMode', 'lrw'],
  [{ cipherMode: '' }, 'cipherMode', ''],
  [{ cipherMode: '-plain64' }, 'cipherMode', ''],
  [{ cipherMode: 'xts:plain64' }, 'cipherMode', 'xts:plain64'],
  [{ cipherMode: 'xts-benbi' }, 'ivgen', 'benbi'],
  [{ cipherMode: 'xts-' }, 'ivgen', ''],
  [{ cipherMode: 'xts' }, 'ivgen', ''],
  [{ cipherMode: 'xts-plain64:nonsense' }, 'ivgen hash', 'nonsense'],
  [{ cipherMode: 'xts-plain64-more' }, 'ivgen', 'plain64-more'],
  [{ cipherMode: 'cbc-:sha256', keyBytes: 32 }, 'ivgen', ''],
  [{ cipherMode: 'cbc-essiv', keyBytes: 32 }, 'ivgen hash', ''],
  [{ cipherMode: 'cbc-essiv:', keyBytes: 32 }, 'ivgen hash', ''],
  // Digests that are no keys of AES.
  [{ cipherMode: 'cbc-essiv:sha1', keyBytes: 32 }, 'ivgen hash', 'sha1'],
  [{ cipherMode: 'cbc-essiv:sha512', keyBytes: 32 }, 'ivgen hash', 'sha512'],
  [{ cipherMode: 'cbc-essiv:sha256:sha1', keyBytes: 32 }, 'ivgen hash', 'sha256:sha1'],
  [{ cipherMode: 'cbc-essiv:whirlpool', keyBytes: 32 }, 'ivgen hash', 'whirlpool'],
  [{ hashSpec: 'whirlpool' }, 'hashSpec', 'whirlpool'],
  [{ hashSpec: 'SHA256' }, 'hashSpec', 'SHA256'],
  [{ hashSpec: 'shake128' }, 'hashSpec', 'shake128'],
  [{ hashSpec: '' }, 'hashSpec', ''],
]

for (const [fields, field, actual] of unsupported) {
  const given = Object.entries(fields).map(([name, value]) => `${name} ${JSON.stringify(value)}`)
  t.test(`refuses ${given.join(', ')} by its name`, async (t) => {
    refuses(t, field, () => scheme(fields), Qcow2UnsupportedError, {
      code: 'ERR_QCOW2_UNSUPPORTED_ENCRYPTION',
      ...FACTS,
      field,
      actual,
      message: new RegExp(`LUKS, ${field} ".*"; .+ can be read$`),
    })
  })
}

for (const [cipherMode, lengths] of [
  ['xts-plain64', [1, 16, 24, 31, 33, 63]],
  ['cbc-plain64', [1, 15, 17, 48, 64]],
  ['cbc-essiv:sha256', [8, 31, 64]],
  ['ecb', [64]],
] as const) {
  t.test(`refuses keys that AES does not have in ${cipherMode}`, async (t) => {
    for (const keyBytes of lengths) {
      refuses(t, `${keyBytes} bytes`, () => scheme({ cipherMode, keyBytes }), Qcow2FormatError, {
        code: 'ERR_QCOW2_BAD_LUKS_HEADER',
        ...FACTS,
        field: 'keyBytes',
        actual: keyBytes,
        message: cipherMode.startsWith('xts') ? /32, 48, 64 for aes-xts/ : /16, 24, 32 for aes-(cbc|ecb)/,
      })
    }
  })
}

t.test('counts the iterations that a wrong passphrase takes', async (t) => {
  const count = (fields: Partial<LuksFields>): number => {
    const header = headerOf(luksHeaderBytes(fields))
    return iterationsToTry(header, schemeOf(header, FACTS))
  }
  const slots = (...iterations: number[]): LuksFields['keySlots'] =>
    Object.fromEntries(iterations.map((n, index) => [index * 2, { active: ACTIVE, iterations: n }]))
  t.equal(count({ keySlots: {} }), 0, 'no active slot')
  t.equal(count({ keySlots: { 0: { iterations: 9 } } }), 0, 'iterations of a slot that is not active')
  // 64 bytes of key are two digests of sha256, one of sha512, four of md5 and of sha1 (of 20 bytes); the 20 of the master
  // key's digest are one, of md5 two.
  const keySlots = slots(1000, 20)
  t.equal(count({ keySlots, mkDigestIterations: 7 }), 1020 * 2 + 7 * 2)
  t.equal(count({ keySlots, mkDigestIterations: 7, hashSpec: 'sha512' }), 1020 + 7 * 2)
  t.equal(count({ keySlots, mkDigestIterations: 7, hashSpec: 'md5' }), 1020 * 4 + 7 * 2 * 2)
  t.equal(count({ keySlots, mkDigestIterations: 7, hashSpec: 'sha1' }), 1020 * 4 + 7 * 2)
  t.equal(count({ keySlots, mkDigestIterations: 7, keyBytes: 32 }), 1020 + 7 * 2)
  const most = 2 ** 32 - 1
  t.equal(
    count({ keySlots: slots(most, most, most, most), mkDigestIterations: most, hashSpec: 'md5' }),
    4 * (4 * most + 2 * most),
    'as much as a header can ask for is no more than can be counted',
  )
})

interface Unlocking {
  readonly spec: CipherSpec | undefined
  /** The slots whose key material was read, and that material afterwards. */
  readonly read: { readonly slot: number; readonly material: Uint8Array }[]
}

async function tryPassphrase(volume: LuksVolume, passphrase: string | Uint8Array): Promise<Unlocking> {
  const header = headerOf(volume.bytes)
  const read: Unlocking['read'] = []
  const spec = await unlock(header, schemeOf(header, FACTS), Buffer.from(passphrase), async (slot) => {
    const material = volume.keyMaterial(slot.index)
    read.push({ slot: slot.index, material })
    return material
  })
  return { spec, read }
}

const opens = (spec: CipherSpec | undefined, volume: LuksVolume): boolean => {
  const plain = pattern(5, 2048)
  const bytes = volume.encrypt(plain, 2 ** 32 - 2)
  if (spec !== undefined) new SectorCipher(spec).decrypt(bytes, 2 ** 32 - 2)
  return bytes.equals(plain)
}

const volumes: readonly LuksVolumeSpec[] = [
  {},
  ...['sha1', 'sha224', 'sha384', 'sha512', 'ripemd160', 'md5'].map((hashSpec) => ({ hashSpec })),
  { keyBytes: 48, hashSpec: 'sha1' },
  { keyBytes: 32, hashSpec: 'sha512' },
  { cipherMode: 'xts-plain' },
  { cipherMode: 'xts-essiv:sha256' },
  { cipherMode: 'cbc-essiv:sha256', keyBytes: 32 },
  { cipherMode: 'cbc-essiv:sha256', keyBytes: 16 },
  { cipherMode: 'cbc-essiv:md5', keyBytes: 32, hashSpec: 'sha1' },
  { cipherMode: 'cbc-plain64', keyBytes: 16, hashSpec: 'ripemd160' },
  { cipherMode: 'cbc-plain', keyBytes: 32 },
  // 96,000 bytes of key material, which are no whole sectors.
  { cipherMode: 'cbc-plain64', keyBytes: 24, hashSpec: 'sha1' },
  { cipherMode: 'ecb', keyBytes: 32 },
]

for (const spec of volumes) {
  const { cipherMode = 'xts-plain64', hashSpec = 'sha256', keyBytes = 64 } = spec
  t.test(`finds the key of a volume with ${cipherMode}, ${keyBytes} bytes of key and ${hashSpec}`, async (t) => {
    const volume = makeLuksVolume(spec)
    const right = await tryPassphrase(volume, 'secret')
    t.ok(volume.masterKey.equals(right.spec?.key ?? pattern(0, 1)))
    t.strictSame(right.spec?.essivKey, volume.cipher.essivKey && Uint8Array.from(volume.cipher.essivKey))
    t.ok(opens(right.spec, volume))
    const wrong = await tryPassphrase(volume, 'Secret')
    t.equal(wrong.spec, undefined)
  })
}

t.test('keeps the keys in memory of their own', async (t) => {
  const { spec } = await tryPassphrase(makeLuksVolume({ cipherMode: 'cbc-essiv:sha256', keyBytes: 16 }), 'secret')
  t.equal(spec?.key.buffer.byteLength, 16)
  t.equal(spec?.essivKey?.buffer.byteLength, 32)
})

const PASSPHRASES = { 0: 'first', 2: '', 3: 'ключ 🔑', 7: Buffer.from([0xff, 0x00, 0xfe]) }
const several = makeLuksVolume({ keyBytes: 32, passphrases: PASSPHRASES })

for (const [title, passphrase, slots] of [
  ['text in the first slot', 'first', [0]],
  ['nothing at all in the second active one', '', [0, 2]],
  ['UTF-8', 'ключ 🔑', [0, 2, 3]],
  ['bytes that are no text in the last slot', PASSPHRASES[7], [0, 2, 3, 7]],
] as const) {
  t.test(`tries the active slots in turn until the passphrase fits: ${title}`, async (t) => {
    const given = Uint8Array.from(Buffer.from(passphrase))
    const { spec, read } = await tryPassphrase(several, given)
    t.ok(opens(spec, several))
    t.strictSame(
      read.map(({ slot }) => slot),
      slots,
    )
    t.ok(
      read.every(({ material }) => material.every((byte) => byte === 0)),
      'the key material has been overwritten',
    )
  })
}

t.test('a passphrase that fits none is tried with every active slot', async (t) => {
  // Zeros at the end make no other passphrase: HMAC adds them itself.
  for (const passphrase of ['first ', 'FIRST', 'firs', ' ', Buffer.from([0xff])]) {
    const { spec, read } = await tryPassphrase(several, passphrase)
    t.equal(spec, undefined)
    t.strictSame(
      read.map(({ slot }) => slot),
      [0, 2, 3, 7],
    )
    t.ok(read.every(({ material }) => material.every((byte) => byte === 0)))
  }
})

t.test('a volume without an active slot is opened by nothing', async (t) => {
  const { spec, read } = await tryPassphrase(makeLuksVolume({ keyBytes: 32, passphrases: {} }), 'secret')
  t.equal(spec, undefined)
  t.strictSame(read, [])
})

t.test('key material with one wrong bit opens nothing', async (t) => {
  const volume = makeLuksVolume({ keyBytes: 32 })
  for (const at of [0, 64_000, 127_999]) {
    volume.bytes[4096 + at]! ^= 1
    t.equal((await tryPassphrase(volume, 'secret')).spec, undefined, `byte ${at}`)
    volume.bytes[4096 + at]! ^= 1
  }
  t.ok(opens((await tryPassphrase(volume, 'secret')).spec, volume), 'and opens again without')
})

t.test('a key whose digest is another is not taken for the right one', async (t) => {
  for (const header of [{ mkDigest: pattern(1, 20) }, { mkDigestSalt: pattern(1, 32) }, { mkDigestIterations: 6 }]) {
    const { spec } = await tryPassphrase(makeLuksVolume({ keyBytes: 32, header }), 'secret')
    t.equal(spec, undefined, Object.keys(header).join())
  }
})

t.test('the caller keeps the passphrase', async (t) => {
  const passphrase = Buffer.from('secret')
  await tryPassphrase(makeLuksVolume({ keyBytes: 32 }), passphrase)
  t.equal(passphrase.toString(), 'secret')
})

t.test('passes on that key material cannot be read', async (t) => {
  const header = headerOf(several.bytes)
  const lost = new Error('the disk is gone')
  const reading = unlock(header, schemeOf(header, FACTS), Buffer.from('x'), () => Promise.reject(lost))
  await t.rejects(reading, lost)
})

t.test('an abort ends it while it puts a key together', async (t) => {
  const volume = makeLuksVolume({ keyBytes: 32 })
  const header = headerOf(volume.bytes)
  const material = volume.keyMaterial(0)
  const stored = Buffer.from(material)
  const controller = new AbortController()
  const reason = new Error('enough')
  const abortOnceDecrypted = (): void => {
    if (stored.equals(material)) setImmediate(abortOnceDecrypted)
    else controller.abort(reason)
  }
  const unlocking = unlock(
    header,
    schemeOf(header, FACTS),
    Buffer.from('secret'),
    () => {
      abortOnceDecrypted()
      return Promise.resolve(material)
    },
    controller.signal,
  )
  t.equal(await rejection(t, unlocking), reason)
  t.ok(material.every((byte) => byte === 0))
})

t.test('lets the event loop turn while it puts a key together', async (t) => {
  const volume = makeLuksVolume({ keyBytes: 32 })
  let turns = 0
  const hook = createHook({
    init: (_id, type) => {
      if (type === 'Immediate') turns++
    },
  })
  hook.enable()
  await tryPassphrase(volume, 'secret')
  hook.disable()
  t.ok(turns >= 8, `${turns} times for 4000 stripes`)
})
