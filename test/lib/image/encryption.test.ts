/**
 * Encrypted images: read with their passphrase from any place in any way, and not without it.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  createReadStream,
  Qcow2AccessError,
  Qcow2FormatError,
  Qcow2Image,
  Qcow2SourceError,
  Qcow2UnsupportedError,
  Qcow2UsageError,
  type Qcow2Damage,
  type Qcow2EncryptedLayer,
  type Qcow2Passphrase,
} from '../../../lib/index.js'
import { diskOf } from '../../../lib/image/image.js'
import { bytesOf, closing } from '../../fixtures/consume.js'
import { legacyImage, luksImage, PASSPHRASE } from '../../fixtures/encrypted-image.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type ImageSpec } from '../../fixtures/image-builder.js'
import { makeLuksVolume } from '../../fixtures/luks-volume.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { opened, readBytes, readDisk } from '../../fixtures/opened-image.js'
import { pattern, text } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'

const CLUSTER = 4096
const LABEL = 'image in memory'

// Data next to each other on the host and not, with everything that is not encrypted in between, and an end inside a sector.
const MIXED: ImageSpec = {
  clusterBits: 12,
  virtualSize: 12 * CLUSTER + 700,
  clusters: [
    [0, { kind: 'data', bytes: pattern(0, CLUSTER) }],
    [1, { kind: 'data', bytes: pattern(1, CLUSTER) }],
    [4, { kind: 'data', bytes: pattern(4, CLUSTER) }],
    [2, { kind: 'compressed', bytes: text(2, CLUSTER) }],
    [3, { kind: 'zero', preallocated: true }],
    [7, { kind: 'data', bytes: pattern(7, CLUSTER) }],
    [12, { kind: 'data', bytes: pattern(12, CLUSTER) }],
  ],
}

const KINDS = [
  ['LUKS', luksImage(MIXED)],
  ['LUKS with a chain of blocks', luksImage(MIXED, { cipherMode: 'cbc-essiv:sha256', keyBytes: 32 })],
  ['AES', legacyImage(MIXED)],
  [
    'AES in version 2',
    legacyImage({ ...MIXED, version: 2, clusters: [[0, { kind: 'data', bytes: pattern(5, CLUSTER) }]] }),
  ],
] as const

for (const [what, { bytes, guest }] of KINDS) {
  t.test(`${what}: the same bytes wherever a read begins and ends, and in a stream`, async (t) => {
    const image = await opened(t, bytes, { passphrase: PASSPHRASE })
    t.ok((await readBytes(image)).equals(guest))
    for (const from of [0, 1, 100, 511, 512, 513, CLUSTER - 1, CLUSTER, 4 * CLUSTER + 300, 12 * CLUSTER]) {
      for (const length of [1, 2, 411, 512, 513, 1024, CLUSTER, 3 * CLUSTER + 5]) {
        const expected = guest.subarray(from, from + length)
        const read = await readBytes(image, from, Math.min(length, guest.length - from))
        if (!read.equals(expected)) t.fail(`${length} bytes at ${from}`)
      }
    }
    t.ok((await bytesOf(createReadStream(image))).equals(guest), 'a stream')
    t.ok((await bytesOf(createReadStream(image, { start: 77, end: guest.length - 3 }))).equals(guest.subarray(77, -2)))
  })
}

t.test('subclusters, and an external data file', async (t) => {
  const size = 2 ** 14
  const spec: ImageSpec = {
    clusterBits: 14,
    extendedL2: true,
    clusters: [
      [0, { kind: 'subclusters', allocated: 0x0f0f_0001, zero: 0x3000_0000, bytes: pattern(1, size) }],
      [1, { kind: 'data', bytes: pattern(2, size) }],
    ],
  }
  for (const build of [luksImage, legacyImage]) {
    const { bytes, guest } = build(spec)
    t.ok((await readDisk(bytes, { passphrase: PASSPHRASE })).equals(guest))
    const clusters: ImageSpec['clusters'] = [[1, { kind: 'data', bytes: pattern(3, 65536) }]]
    const split = build({ dataFile: { name: 'data' }, clusters })
    t.ok((await readDisk(split.bytes, { passphrase: PASSPHRASE, dataFile: split.dataFile })).equals(split.guest))
  }
})

t.test('a snapshot', async (t) => {
  const now = [[0, { kind: 'data', bytes: pattern(1, CLUSTER) }]] as const
  const then = [[0, { kind: 'data', bytes: pattern(2, CLUSTER) }]] as const
  for (const build of [luksImage, legacyImage]) {
    const { bytes, guest, snapshots } = build({ clusters: now, snapshots: [{ id: '1', clusters: then }] })
    t.ok((await readDisk(bytes, { passphrase: PASSPHRASE })).equals(guest))
    t.ok((await readDisk(bytes, { passphrase: PASSPHRASE, snapshot: '1' })).equals(snapshots[0]!.guest))
  }
})

t.test('much of it, in threads and without', async (t) => {
  const size = 65536
  const count = 400
  // Every third cluster is compressed, so that runs have both.
  const { bytes, guest } = luksImage({
    clusterBits: 16,
    clusters: Array.from({ length: count }, (_, i) =>
      i % 3 === 0
        ? [i, { kind: 'compressed', bytes: text(i % 5, size) }]
        : [i, { kind: 'data', bytes: pattern(i, size) }],
    ),
  })
  for (const threads of [0, 2]) {
    const image = await opened(t, bytes, { passphrase: PASSPHRASE, threads })
    t.ok((await readBytes(image)).equals(guest), `at random, ${threads} threads`)
    t.ok((await bytesOf(createReadStream(image))).equals(guest), `in a stream, ${threads} threads`)
    const target = Buffer.alloc(guest.length + 3)
    await image.read(target.subarray(3), 0)
    t.ok(target.subarray(3).equals(guest), 'into memory that is not aligned')
  }
})

t.test('a passphrase may be text, bytes, or a function that is asked for each encrypted layer', async (t) => {
  const folder = t.testdir()
  const path = (name: string): string => join(folder, name)
  const bottom = luksImage(
    { clusters: [[1, { kind: 'data', bytes: pattern(1, 65536) }]] },
    { passphrases: { 3: 'über' } },
  )
  const middle = buildImage({ virtualSize: 3 * 65536, backingFile: { name: 'bottom', format: 'qcow2' } })
  const top = luksImage({
    virtualSize: 3 * 65536,
    clusters: [[2, { kind: 'data', bytes: pattern(2, 65536) }]],
    backingFile: { name: 'middle', format: 'qcow2' },
  })
  writeFileSync(path('bottom'), bottom.bytes)
  writeFileSync(path('middle'), middle.bytes)
  writeFileSync(path('top'), top.bytes)
  const expected = Buffer.alloc(3 * 65536)
  bottom.guest.copy(expected)
  top.guest.copy(expected, 2 * 65536, 2 * 65536)

  for (const passphrase of ['über', Buffer.from('über'), () => 'über', () => Promise.resolve(Buffer.from('über'))]) {
    t.ok((await readDisk(path('bottom'), { passphrase })).equals(bottom.guest))
  }
  const asked: Qcow2EncryptedLayer[] = []
  const passphrase: Qcow2Passphrase = (layer) => {
    asked.push(layer)
    return layer.depth === 0 ? PASSPHRASE : Buffer.from('über')
  }
  t.ok((await readDisk(path('top'), { passphrase })).equals(expected))
  t.same(asked, [
    { file: path('top'), depth: 0, encryption: 'luks' },
    { file: path('bottom'), depth: 2, encryption: 'luks' },
  ])
})

t.test('without a passphrase an image can be inspected, and not read', async (t) => {
  const { bytes } = luksImage(MIXED)
  for (const passphrase of [undefined, () => undefined]) {
    const image = await opened(t, bytes, { passphrase })
    t.equal(image.virtualSize, MIXED.virtualSize)
    t.equal(image.header.cryptMethod, 2)
    t.same(
      image.backingChain.map(({ encryption }) => encryption),
      ['luks'],
    )
    const error = await rejection(t, readBytes(image))
    expectError(t, error, Qcow2AccessError, 'ERR_QCOW2_PASSPHRASE_REQUIRED', { layer: LABEL, field: 'passphrase' })
    t.match((error as Error).message, /encrypted \(LUKS\); the option passphrase opens it$/)
    t.match(await image.extents().next(), { value: { offset: 0 } }, 'where its bytes are is no secret')
  }
  const [error] = await closing(createReadStream(bytes).resume())
  expectError(t, error, Qcow2AccessError, 'ERR_QCOW2_PASSPHRASE_REQUIRED')
})

t.test('a wrong passphrase is refused when the image is opened, and everything is closed', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'disk.qcow2')
  writeFileSync(path, luksImage(MIXED, { passphrases: { 1: 'a', 6: 'b' } }).bytes)
  for (const passphrase of ['', 'c', 'a\n']) {
    const error = await rejection(t, Qcow2Image.open(path, { passphrase }))
    expectError(t, error, Qcow2AccessError, 'ERR_QCOW2_WRONG_PASSPHRASE', { layer: path, field: 'passphrase' })
    t.match((error as Error).message, /fits none of the image's key slots \(active ones: 2\)$/)
  }
  if (cannotCount === false) t.strictSame(openDescriptors(folder), [])
})

t.test('a passphrase that is none is refused, and what it is stays unsaid', async (t) => {
  const { bytes } = luksImage(MIXED)
  for (const wrong of [1234, null, { secret: 1234 }, [1234]]) {
    for (const passphrase of [wrong, () => wrong, () => Promise.resolve(wrong)]) {
      const error = await rejection(t, Qcow2Image.open(bytes, { passphrase: passphrase as unknown as string }))
      expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'passphrase', actual: typeof wrong })
      t.notMatch((error as Error).message, '1234')
    }
  }
  const own = new Error('no')
  const error = await rejection(t, Qcow2Image.open(bytes, { passphrase: () => Promise.reject(own) }))
  t.equal(error, own)
})

t.test('a wrong passphrase of the old encryption cannot be told, of which there is a warning', async (t) => {
  const { bytes, guest } = legacyImage(MIXED)
  const image = await opened(t, bytes, { passphrase: 'wrong' })
  t.match(image.warnings, [{ code: 'WARN_QCOW2_LEGACY_ENCRYPTION', layer: LABEL }])
  t.notOk((await readBytes(image)).equals(guest))
  t.same(
    await readBytes(image, 2 * CLUSTER, 2 * CLUSTER),
    guest.subarray(2 * CLUSTER, 4 * CLUSTER),
    'compressed, and zeros',
  )
})

t.test('tells data that is encrypted, and hides nothing else of the map', async (t) => {
  const { bytes, layout } = luksImage({ clusters: [[1, { kind: 'data', bytes: pattern(1, 65536) }]] })
  const image = await opened(t, bytes, { passphrase: PASSPHRASE })
  const extents = []
  for await (const extent of image.extents()) extents.push(extent)
  const hostOffset = layout.clusterOffsets.get(1)
  t.same(extents, [
    { kind: 'unallocated', offset: 0, length: 65536, depth: 0 },
    { kind: 'data', offset: 65536, length: 65536, depth: 0, hostOffset, file: LABEL, isEncrypted: true },
  ])
})

t.test('an encryption header that is not there, or not whole', async (t) => {
  const missing = buildImage({ cryptMethod: 2 })
  const error = await rejection(t, Qcow2Image.open(missing.bytes))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_LUKS_HEADER', { layer: LABEL, field: 'cryptoHeader' })

  const { bytes, layout } = luksImage({ virtualSize: 512 })
  const at = layout.encryptionHeaderOffset
  for (const [length, hostOffset, what] of [
    [at, at, /the LUKS header/],
    [at + 591, at, /the LUKS header/],
    [at + 4096 + 255_999, at + 4096, /the material of key slot 0/],
  ] as const) {
    const failure = await rejection(t, Qcow2Image.open(bytes.subarray(0, length), { passphrase: PASSPHRASE }))
    expectError(t, failure, Qcow2FormatError, 'ERR_QCOW2_TRUNCATED', { layer: LABEL, hostOffset, actual: length })
    t.match((failure as Error).message, what)
  }

  // The pointer says that there is less of it.
  const short = luksImage({ encryptionHeader: makeLuksVolume().bytes.subarray(0, 500) })
  const refusal = await rejection(t, Qcow2Image.open(short.bytes))
  expectError(t, refusal, Qcow2FormatError, 'ERR_QCOW2_BAD_LUKS_HEADER', {})
})

t.test('a header that is malformed or not supported is told without a passphrase', async (t) => {
  const bad = luksImage({}, { header: { mkDigestIterations: 0 } })
  const error = await rejection(t, Qcow2Image.open(bad.bytes))
  const hostOffset = bad.layout.encryptionHeaderOffset + 164
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_LUKS_HEADER', { hostOffset, field: 'mkDigestIterations' })
  for (const [header, says] of [
    [{ cipherName: 'serpent' }, /cipherName "serpent"; aes can be read/],
    [{ version: 2 }, /LUKS version 2/],
    [{ payloadOffset: 0 }, /detached/],
  ] as const) {
    const unsupported = await rejection(t, Qcow2Image.open(luksImage({}, { header }).bytes))
    expectError(t, unsupported, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_ENCRYPTION', { layer: LABEL })
    t.match((unsupported as Error).message, says)
  }
})

t.test('what a passphrase would cost is bounded before it costs anything', async (t) => {
  // Two digests of 32 bytes make a key of 64; each slot's key is checked with a digest.
  const { bytes } = luksImage(MIXED, {
    passphrases: { 0: 'a', 1: PASSPHRASE },
    iterations: 1000,
    mkDigestIterations: 10,
  })
  const needed = 2 * (2 * 1000 + 10)
  await opened(t, bytes, { passphrase: PASSPHRASE, limits: { keyIterations: needed } })
  for (const passphrase of [PASSPHRASE, undefined]) {
    const error = await rejection(t, Qcow2Image.open(bytes, { passphrase, limits: { keyIterations: needed - 1 } }))
    expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNLOCKING_TOO_COSTLY', {
      layer: LABEL,
      field: 'limits.keyIterations',
      actual: needed,
    })
  }
  const hostile = luksImage({}, { header: { mkDigestIterations: 2 ** 32 - 1 } })
  const error = await rejection(t, Qcow2Image.open(hostile.bytes, { passphrase: PASSPHRASE }))
  expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNLOCKING_TOO_COSTLY')
})

t.test('the bound is for all layers of a chain together', async (t) => {
  const folder = t.testdir()
  const volume = { iterations: 100, mkDigestIterations: 10 }
  const needed = 2 * 100 + 10
  writeFileSync(join(folder, 'base'), luksImage({}, volume).bytes)
  writeFileSync(join(folder, 'top'), luksImage({ backingFile: { name: 'base', format: 'qcow2' } }, volume).bytes)
  const limited = (keyIterations: number): Promise<Qcow2Image> =>
    Qcow2Image.open(join(folder, 'top'), { passphrase: PASSPHRASE, limits: { keyIterations } })
  await (await limited(2 * needed)).close()
  const error = await rejection(t, limited(2 * needed - 1))
  expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNLOCKING_TOO_COSTLY', {
    layer: join(folder, 'base'),
    actual: 2 * needed,
  })
})

// A second or so, which nobody is to wait for; it is no end that a test could see.
const costly = luksImage(MIXED, {
  header: { keySlots: { 0: { active: 0x00ac71f3, iterations: 2_000_000, keyMaterialOffset: 8 } } },
})

t.test('an abort ends the opening while a key is derived, and while another one waits for its turn', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'disk.qcow2')
  writeFileSync(path, costly.bytes)
  const reason = new Error('enough')
  await Promise.all(
    [1, 2].map(async () => {
      const controller = new AbortController()
      const passphrase = (): string => {
        setImmediate(() => {
          controller.abort(reason)
        })
        return PASSPHRASE
      }
      t.equal(await rejection(t, Qcow2Image.open(path, { passphrase, signal: controller.signal })), reason)
    }),
  )
  if (cannotCount === false) t.strictSame(openDescriptors(folder), [])
  const error = await rejection(t, Qcow2Image.open(path, { signal: AbortSignal.abort(reason) }))
  t.equal(error, reason)
})

t.test('a stream that is destroyed while a key is derived does not wait for it', async (t) => {
  const reason = new Error('enough')
  const stream = createReadStream(costly.bytes, {
    passphrase: () => {
      setImmediate(() => {
        stream.destroy(reason)
      })
      return PASSPHRASE
    },
  })
  const [error] = await closing(stream)
  t.equal(error, reason)
})

t.test('after an abort between two slots nothing more is derived', async (t) => {
  const controller = new AbortController()
  const { bytes } = luksImage(MIXED, { passphrases: { 0: 'a', 1: 'b', 2: 'c' } })
  let reads = 0
  const source = new RecordingSource(bytes, {
    beforeRead: (_n, _offset, length) => {
      // Key material.
      if (length === 256_000 && ++reads === 2) controller.abort(new Error('enough'))
    },
  })
  const error = await rejection(t, Qcow2Image.open(source, { passphrase: 'c', signal: controller.signal }))
  t.match(error, { message: 'enough' })
  t.equal(reads, 2)
})

t.test('what cannot be read becomes zeros if the caller salvages, not what zeros are decrypted to', async (t) => {
  for (const build of [luksImage, legacyImage]) {
    const { bytes, guest, layout } = build(MIXED)
    const bad = layout.clusterOffsets.get(1)! + 10
    const found: Qcow2Damage[] = []
    const source = new RecordingSource(bytes, {
      beforeRead: (n, offset, length) => {
        if (bad >= offset && bad < offset + length && n > 1) throw new Error('bad sector')
      },
    })
    const image = await opened(t, source, { passphrase: PASSPHRASE, salvage: (damage) => found.push(damage) })
    const expected = Buffer.from(guest)
    expected.fill(0, CLUSTER, 2 * CLUSTER)
    t.ok((await readBytes(image)).equals(expected))
    t.same(
      found.splice(0).map(({ offset, length }) => [offset, length]),
      [[CLUSTER, CLUSTER]],
    )
    // Parts of sectors, some of which cannot be read.
    t.ok((await readBytes(image, CLUSTER - 100, 300)).equals(expected.subarray(CLUSTER - 100, CLUSTER + 200)))
    t.same(
      found.splice(0).map(({ offset, length }) => [offset, length]),
      [[CLUSTER, 200]],
    )
  }
})

t.test('a read that fails is an error, whole sectors or not', async (t) => {
  const { bytes, layout } = luksImage(MIXED)
  const bad = layout.clusterOffsets.get(1)!
  const source = new RecordingSource(bytes, {
    beforeRead: (_n, offset) => {
      if (offset === bad) throw new Error('bad sector')
    },
  })
  const image = await opened(t, source, { passphrase: PASSPHRASE })
  for (const [from, length] of [
    [CLUSTER, 512],
    [CLUSTER + 1, 5],
  ] as const) {
    const error = await rejection(t, readBytes(image, from, length))
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { hostOffset: bad })
  }
})

t.test('keys are overwritten when the image is closed', async (t) => {
  for (const { bytes } of [luksImage(MIXED, { cipherMode: 'xts-essiv:sha256' }), legacyImage(MIXED)]) {
    const image = await Qcow2Image.open(bytes, { passphrase: PASSPHRASE })
    const { spec } = diskOf(image).chain.layers[0].encryption!.key!
    const all = (): number[] => [...spec.key, ...(spec.essivKey ?? [])]
    t.ok(all().some((byte) => byte > 0))
    t.notOk((await readBytes(image)).equals(Buffer.alloc(image.virtualSize)))
    await image.close()
    t.ok(all().every((byte) => byte === 0))
  }
})
