/**
 * Sectors are decrypted as the standards say, in runs of any length, anywhere in memory: against published vectors, and
 * against an implementation that takes one sector at a time.
 */
import { createHash } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { diskKey, SECTOR_BYTES, SectorCipher, wipe, type CipherSpec } from '../../../lib/crypto/cipher.js'
import { decryptSectors, encryptSectors, essivKeyOf, xts } from '../../fixtures/naive-sector-cipher.js'
import { pattern } from '../../fixtures/patterns.js'

const fromHex = (digits: string): Uint8Array => Uint8Array.from(Buffer.from(digits.replace(/\s/g, ''), 'hex'))

const specOf = (mode: CipherSpec['mode'], key: Uint8Array, iv: CipherSpec['iv'] = 'plain64'): CipherSpec => ({
  mode,
  iv,
  key: Uint8Array.from(key),
  essivKey: iv === 'essiv' ? Uint8Array.from(essivKeyOf(key, 'sha256')) : undefined,
})

/** A copy of the bytes, decrypted. */
function decrypted(spec: CipherSpec, bytes: Uint8Array, sector: number): Buffer {
  const copy = Buffer.from(bytes)
  new SectorCipher(spec).decrypt(copy, sector)
  return copy
}

// Bytes 0 to 255, twice.
const COUNTING = Buffer.from(Array.from({ length: 512 }, (_, i) => i % 256))

const KEY_128 = '2718281828459045 2353602874713526 3141592653589793 2384626433832795'
const KEY_256 = `2718281828459045 2353602874713526 6249775724709369 9959574966967627
                 3141592653589793 2384626433832795 0288419716939937 5105820974944592`

// IEEE 1619-2007, appendix B: the vectors of 512 bytes that begin with counting bytes, or with the vector before.
const ieee: readonly (readonly [vector: number, key: string, sector: number, ends: string, sha256: string])[] = [
  [
    4,
    KEY_128,
    0,
    '27a7479befa1d476489f308cd4cfa6e2 0a282df920147beabe421ee5319d0568',
    'ebee4d64dd2395bb2d6a2d37a0a48ecb2bf4913cfc99d27c2214f2f4144715ea',
  ],
  [
    5,
    KEY_128,
    1,
    '264d3ca8512194fec312c8c9891f279f fd2a89ccb45e001a03a867b187f225dd',
    'bed1b9d9bf8ce83a2ae1981fbd5f2b0c40e21bba5d57df2ea16ecd0975f25215',
  ],
  [
    6,
    KEY_128,
    2,
    'fa762a3680b76007928ed4a4f49a9456 4bcf518138dc3a25c5e236171a2d01d6',
    '68f1e84faa401c9914a7fd6fc565eaa7b531cedbc22bd28269aa58b15ceec03f',
  ],
  [
    10,
    KEY_256,
    0xff,
    '1c3b3a102f770386e4836c99e370cf9b c4f36ffda9fcea70b9c6e693e148c151',
    'e97e974fa393af794f7a4684395814cf820de60a01eaec677d87b452e316b364',
  ],
  [
    11,
    KEY_256,
    0xffff,
    '77a31251618a15e6b92d1d66dffe7b50 a4f9e27b42af8100cb9d59cef9645803',
    'def4fad29e95dfe1a24b1ad4620f86d7be094cced5b19e0b121aa82d9e6baf98',
  ],
  [
    12,
    KEY_256,
    0xff_ffff,
    'e387aaa58ba483afa7e8eb469778317e 2263a1eef52dd6888c309f5a7d712826',
    '8bf44861a081dd660d91ce615b5cdfb4d5df9d72c3025c12e67cc0ae097fa5d5',
  ],
  [
    13,
    KEY_256,
    0xffff_ffff,
    'bf53d2dade78e822a4d949a9bc6766b0 4c82f335abb152c4a93411373aaa8220',
    'c706140a11affda7402234f5e6331eacbfeb687d8e80d83962691823bb3636f0',
  ],
  [
    14,
    KEY_256,
    0xff_ffff_ffff,
    '64497e5a831e4a932c09be3e5393376d d609d273ad5b0d59631c531f6a0a57b9',
    'afba71abc4e95b186d89a63a5437c1bafcfd1a18ca273970c534aba4f8d05282',
  ],
]

t.test('decrypts the vectors of IEEE 1619 with sectors of 512 bytes', async (t) => {
  let before: Uint8Array = COUNTING
  for (const [vector, key, sector, ends, sha256] of ieee) {
    const plain = vector === 5 || vector === 6 ? before : COUNTING
    const spec = specOf('xts', fromHex(key))
    const encrypted = encryptSectors(spec, plain, sector)
    const found = `${encrypted.toString('hex', 0, 16)} ${encrypted.toString('hex', 496)}`
    t.equal(found, ends, `vector ${vector} as it is published`)
    t.equal(createHash('sha256').update(encrypted).digest('hex'), sha256)
    t.ok(decrypted(spec, encrypted, sector).equals(plain), `vector ${vector} decrypted`)
    before = encrypted
  }
})

// NIST SP 800-38A, F.1 and F.2: four blocks, the same for every mode and length of key.
const NIST_KEYS = {
  128: '2b7e151628aed2a6abf7158809cf4f3c',
  192: '8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b',
  256: '603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4',
} as const
const NIST_PLAIN = fromHex(`
  6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51
  30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710`)
const NIST_VECTOR = fromHex('000102030405060708090a0b0c0d0e0f')
const nist: readonly (readonly ['ecb' | 'cbc', keyof typeof NIST_KEYS, encrypted: string])[] = [
  [
    'ecb',
    128,
    `3ad77bb40d7a3660a89ecaf32466ef97 f5d3d58503b9699de785895a96fdbaaf
     43b1cd7f598ece23881b00e3ed030688 7b0c785e27e8ad3f8223207104725dd4`,
  ],
  [
    'ecb',
    192,
    `bd334f1d6e45f25ff712a214571fa5cc 974104846d0ad3ad7734ecb3ecee4eef
     ef7afd2270e2e60adce0ba2face6444e 9a4b41ba738d6c72fb16691603c18e0e`,
  ],
  [
    'ecb',
    256,
    `f3eed1bdb5d2a03c064b5a7e3db181f8 591ccb10d410ed26dc5ba74a31362870
     b6ed21b99ca6f4f9f153e7b1beafed1d 23304b7a39f9f3ff067d8d8f9e24ecc7`,
  ],
  [
    'cbc',
    128,
    `7649abac8119b246cee98e9b12e9197d 5086cb9b507219ee95db113a917678b2
     73bed6b8e3c1743b7116e69e22229516 3ff1caa1681fac09120eca307586e1a7`,
  ],
  [
    'cbc',
    192,
    `4f021db243bc633d7178183a9fa071e8 b4d9ada9ad7dedf4e5e738763f69145a
     571b242012fb7ae07fa9baac3df102e0 08b0e27988598881d920a9e64f5615cd`,
  ],
  [
    'cbc',
    256,
    `f58c4c04d6e5f1ba779eabfb5f7bfbd6 9cfc4e967edb808d679f777bc6702c7d
     39f23369a9d9bacfa530e26304231461 b2eb05e2c39be9fcda6c19078c6a9d1b`,
  ],
]

for (const [mode, bits, encrypted] of nist) {
  t.test(
    `decrypts the vector of NIST SP 800-38A for ${mode.toUpperCase()}-AES${bits} wherever it is in a sector`,
    async (t) => {
      const spec = specOf(mode, fromHex(NIST_KEYS[bits]))
      for (let at = 16; at + 64 <= 512; at += 16) {
        const sector = pattern(at, 512)
        // In CBC the block before stands for the vector.
        sector.set(NIST_VECTOR, at - 16)
        sector.set(fromHex(encrypted), at)
        t.ok(
          decrypted(spec, sector, 7)
            .subarray(at, at + 64)
            .equals(NIST_PLAIN),
          `at ${at}`,
        )
      }
    },
  )
}

t.test('decrypts the first block of CBC with the vector of the sector', async (t) => {
  // A sector number of 64 bits, lowest byte first: its upper bytes of the vector are zeros, unlike NIST's.
  const sector = 0x0605_0403_0201
  const vector = fromHex('01020304050600000000000000000000')
  const first = fromHex('7649abac8119b246cee98e9b12e9197d')
  const plain = NIST_PLAIN.subarray(0, 16).map((byte, i) => byte ^ NIST_VECTOR[i]! ^ vector[i]!)
  const bytes = Buffer.concat([first, pattern(1, 496)])
  t.ok(
    decrypted(specOf('cbc', fromHex(NIST_KEYS[128])), bytes, sector)
      .subarray(0, 16)
      .equals(plain),
  )
})

t.test('what the tests compare with computes XTS itself as OpenSSL does', async (t) => {
  for (const keyBytes of [32, 64]) {
    const key = pattern(keyBytes, keyBytes)
    const plain = pattern(1, 512)
    const expected = encryptSectors({ mode: 'xts', iv: 'plain64', key }, plain, 0x0201)
    t.ok(xts('encrypt', key, fromHex('01020000000000000000000000000000'), plain).equals(expected))
    t.ok(xts('decrypt', key, fromHex('01020000000000000000000000000000'), expected).equals(plain))
  }
})

// The last numbers of each kind before something wraps, and those that are exact in a double only.
const SECTORS = [0, 1, 2 ** 31 - 2, 2 ** 32 - 2, 2 ** 32, 2 ** 44 - 2, 2 ** 44 + 12345, 2 ** 53 - 4]

for (const mode of ['xts', 'cbc', 'ecb'] as const) {
  for (const iv of ['plain', 'plain64', 'essiv'] as const) {
    for (const bits of [128, 192, 256]) {
      t.test(`decrypts aes-${bits}-${mode}-${iv} as one sector at a time does`, async (t) => {
        const keyBytes = (mode === 'xts' ? 2 : 1) * (bits / 8)
        const spec = specOf(mode, pattern(bits, keyBytes), iv)
        const plain = pattern(3, 4 * 512)
        const cipher = new SectorCipher(spec)
        for (const sector of SECTORS) {
          const bytes = encryptSectors(spec, plain, sector)
          cipher.decrypt(bytes, sector)
          t.ok(bytes.equals(plain), `sectors from ${sector} on`)
        }
      })
    }
  }
}

for (const bytes of [16, 24, 32]) {
  t.test(`takes an essiv key of ${bytes} bytes, whatever the length of the other`, async (t) => {
    for (const keyBytes of [16, 24, 32]) {
      const spec: CipherSpec = { mode: 'cbc', iv: 'essiv', key: pattern(1, keyBytes), essivKey: pattern(2, bytes) }
      t.ok(decrypted(spec, encryptSectors(spec, pattern(3, 1024), 99), 99).equals(pattern(3, 1024)))
    }
  })
}

t.test('plain sector numbers begin again after 2^32, those of 64 bits do not', async (t) => {
  for (const mode of ['xts', 'cbc'] as const) {
    for (const [iv, isSame] of [
      ['plain', true],
      ['plain64', false],
      ['essiv', false],
    ] as const) {
      const spec = specOf(mode, pattern(1, 32), iv)
      const bytes = pattern(2, 1024)
      t.equal(decrypted(spec, bytes, 5).equals(decrypted(spec, bytes, 2 ** 32 + 5)), isSame, `${mode}-${iv}`)
      // Within one run, too.
      const run = decrypted(spec, bytes, 2 ** 32 - 1)
      t.equal(run.subarray(512).equals(decrypted(spec, bytes.subarray(512), 0)), isSame, `${mode}-${iv}, in a run`)
    }
  }
})

// A piece is 256 sectors: below, at and above one and two of them.
const COUNTS = [0, 1, 2, 255, 256, 257, 511, 512, 513, 700]

for (const mode of ['xts', 'cbc', 'ecb'] as const) {
  t.test(`decrypts runs of ${mode} of any length at once as sector by sector`, async (t) => {
    const spec = specOf(mode, pattern(1, 64).subarray(0, mode === 'xts' ? 64 : 32))
    const cipher = new SectorCipher(spec)
    const encrypted = pattern(2, 700 * 512)
    const sector = 2 ** 32 - 300
    const single = Buffer.from(encrypted)
    for (let i = 0; i < 700; i++) cipher.decrypt(single.subarray(512 * i, 512 * (i + 1)), sector + i)
    t.ok(single.equals(decryptSectors(spec, encrypted, sector)))
    for (const count of COUNTS) {
      const bytes = Buffer.from(encrypted)
      cipher.decrypt(bytes.subarray(0, 512 * count), sector)
      t.ok(bytes.subarray(0, 512 * count).equals(single.subarray(0, 512 * count)), `${count} sectors`)
      t.ok(bytes.subarray(512 * count).equals(encrypted.subarray(512 * count)), 'and no other')
    }
  })

  t.test(`decrypts ${mode} at any place in memory, and writes nothing beside it`, async () => {
    const spec = specOf(mode, pattern(1, 32))
    const cipher = new SectorCipher(spec)
    const plain = pattern(2, 258 * 512)
    fc.assert(
      fc.property(fc.nat(67), fc.integer({ min: 0, max: 258 }), fc.nat(2 ** 44), (before, count, sector) => {
        const expected = plain.subarray(0, count * 512)
        const memory = new Uint8Array(before + expected.length + 37).fill(0xa5)
        const bytes = memory.subarray(before, before + expected.length)
        bytes.set(count < 8 ? encryptSectors(spec, expected, sector) : expected)
        const wanted = count < 8 ? expected : decryptSectors(spec, expected, sector)
        cipher.decrypt(bytes, sector)
        return (
          wanted.equals(bytes) &&
          memory.subarray(0, before).every((byte) => byte === 0xa5) &&
          memory.subarray(before + expected.length).every((byte) => byte === 0xa5)
        )
      }),
      { numRuns: 40, examples: [[1, 257, 2 ** 32 - 100]] },
    )
  })
}

t.test('decrypts shared memory', async (t) => {
  const spec = specOf('xts', pattern(1, 64))
  const plain = pattern(2, 300 * 512)
  const shared = new Uint8Array(new SharedArrayBuffer(plain.length + 3)).subarray(3)
  shared.set(encryptSectors(spec, plain, 17))
  new SectorCipher(spec).decrypt(shared, 17)
  t.ok(plain.equals(shared))
})

t.test('goes on decrypting, for megabytes, after its keys were wiped', async (t) => {
  for (const iv of ['plain64', 'essiv'] as const) {
    const spec = specOf('cbc', pattern(1, 32), iv)
    const plain = pattern(2, 3 * 2 ** 20)
    const encrypted = encryptSectors(spec, plain, 1)
    const cipher = new SectorCipher(spec)
    wipe(spec)
    t.ok(spec.key.every((byte) => byte === 0))
    t.ok(spec.essivKey?.every((byte) => byte === 0) ?? iv === 'plain64')
    for (let turn = 0; turn < 2; turn++) {
      const bytes = Buffer.from(encrypted)
      cipher.decrypt(bytes, 1)
      t.ok(bytes.equals(plain))
    }
  }
})

t.test('each key has a number of its own', async (t) => {
  const spec = specOf('ecb', pattern(1, 16))
  const keys = [diskKey(spec), diskKey(spec), diskKey(spec)]
  t.equal(new Set(keys.map(({ id }) => id)).size, 3)
  t.ok(keys.every((key) => key.spec === spec))
})

t.test('a sector has 512 bytes', async (t) => {
  t.equal(SECTOR_BYTES, 512)
})
