// Damaged images: whatever is changed in one, reading it gives data or a Qcow2Error, and the next image still opens.
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { convert, createReadStream, Qcow2Error, Qcow2Image, type Qcow2Source } from '../../lib/index.js'
import { closing } from '../fixtures/consume.js'
import { buildImage } from '../fixtures/image-builder.js'
import { pattern } from '../fixtures/patterns.js'
import { lonelyImage, randomImage, runs } from '../fixtures/random-images.js'
import { RecordingSource } from '../fixtures/recording-source.js'

type Mutation = (bytes: Buffer) => Buffer

const LARGEST_READ = 65_536

/** A place in an image: mostly near its beginning, where header and tables are. */
const place = fc.oneof(
  fc.nat(111),
  fc.nat(111),
  fc.nat(4095),
  fc.nat(40_000),
  fc.nat(2 ** 20).map((at) => at * 7),
)

const bits = fc.oneof(
  fc.constantFrom(0n, 1n, 0xffn, 2n ** 62n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 32n, 2n ** 56n),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
)

const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  // A byte, a bit, a word on its boundary.
  fc.tuple(place, fc.nat(255)).map(([at, value]): Mutation => edit(at, 1, (bytes) => bytes.writeUInt8(value))),
  fc
    .tuple(place, fc.nat(7))
    .map(([at, bit]): Mutation => edit(at, 1, (bytes) => bytes.writeUInt8((bytes[0] ?? 0) ^ (1 << bit)))),
  fc
    .tuple(place, bits)
    .map(([at, value]): Mutation => edit(at - (at % 8), 8, (bytes) => bytes.writeBigUInt64BE(value))),
  fc
    .tuple(place, fc.nat(0xffff_ffff))
    .map(([at, value]): Mutation => edit(at - (at % 4), 4, (bytes) => bytes.writeUInt32BE(value))),
  // The end is missing, or something else follows.
  fc.nat(1000).map(
    (part): Mutation =>
      (bytes) =>
        bytes.subarray(0, Math.floor((bytes.length * part) / 1000)),
  ),
  fc.nat(5000).map(
    (length): Mutation =>
      (bytes) =>
        Buffer.concat([bytes, pattern(length, length)]),
  ),
  // One part lies where another should.
  fc.tuple(place, place, fc.constantFrom(8, 64, 512)).map(([from, to, length]): Mutation => (bytes) => {
    const copy = Buffer.from(bytes)
    bytes.copy(copy, to % (bytes.length + 1), from % (bytes.length + 1), (from % (bytes.length + 1)) + length)
    return copy
  }),
)

function edit(at: number, length: number, write: (bytes: Buffer) => void): Mutation {
  return (bytes) => {
    if (at + length > bytes.length) return bytes
    const copy = Buffer.from(bytes)
    write(copy.subarray(at, at + length))
    return copy
  }
}

const mutations = fc.array(mutation, { minLength: 1, maxLength: 4 })

/** What is done may fail, but only as it should. */
async function tolerating(work: () => Promise<unknown>): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (!(error instanceof Qcow2Error)) throw error
    if (/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(error.message))
      throw new Error(`unprintable: ${error.message}`, { cause: error })
  }
}

/** Reads here and there, streams a part, lists some extents, checks. */
async function exercise(input: Qcow2Source, options: object, starts: readonly number[]): Promise<void> {
  await using image = await Qcow2Image.open(input, options)
  const { virtualSize } = image
  await tolerating(async () => {
    const { findings, findingCount, leaks, corruptions, checkErrors, allocatedClusters } = await image.check()
    if (findingCount !== leaks + corruptions + checkErrors || findings.length > findingCount)
      throw new Error('miscounted')
    const numbers = [leaks, corruptions, checkErrors, allocatedClusters]
    if (!numbers.every((number) => Number.isSafeInteger(number) && number >= 0)) throw new Error(numbers.join())
    const unprintable = findings.find(({ message }) => /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(message))
    if (unprintable !== undefined) throw new Error(`unprintable: ${unprintable.message}`)
  })
  for (const part of starts) {
    const start = Math.floor((virtualSize / 1000) * part)
    await tolerating(async () => {
      const count = await image.read(Buffer.alloc(LARGEST_READ), start)
      const expected = Math.min(LARGEST_READ, Math.max(0, virtualSize - start))
      if (count !== expected) throw new Error(`read ${count} bytes at ${start} of ${virtualSize}`)
    })
    await tolerating(async () => {
      const stream = createReadStream(image, { start, end: start + 2 * LARGEST_READ, highWaterMark: 10_000 }).resume()
      const [error] = await closing(stream)
      if (error !== undefined) throw error as Error
      const expected = Math.min(2 * LARGEST_READ + 1, Math.max(0, virtualSize - start))
      if (stream.bytesRead !== expected) throw new Error(`streamed ${stream.bytesRead} bytes from ${start}`)
    })
    await tolerating(async () => {
      let count = 0
      let at = start
      for await (const { offset, length } of image.extents({ offset: start, length: 2 ** 30 })) {
        if (offset !== at || length < 1) throw new Error(`an extent of ${length} at ${offset}, not at ${at}`)
        at += length
        if (++count === 200) break
      }
    })
  }
}

const good = buildImage({ clusterBits: 9, clusters: [[3, { kind: 'compressed', bytes: pattern(1, 500) }]] })

async function expectGoodOne(): Promise<void> {
  await using image = await Qcow2Image.open(good.bytes)
  const bytes = Buffer.alloc(2048)
  await image.read(bytes, 0)
  if (!bytes.equals(good.guest)) throw new Error('the next image is read wrongly')
}

t.test('a damaged image gives data or a Qcow2Error', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      randomImage,
      mutations,
      fc.array(fc.nat(1001), { minLength: 1, maxLength: 3 }),
      async (random, changes, starts) => {
        const bytes = changes.reduce((bytes, change) => change(bytes), random.image.bytes)
        const source = new RecordingSource(bytes)
        const options = { backingFile: random.base, backingFormat: random.baseFormat }
        await tolerating(() => exercise(source, options, [0, ...starts]))
        if (source.closeCount !== 1) throw new Error(`closed ${source.closeCount} times`)
        if (source.readsAfterClose > 0 || source.underWay > 0) throw new Error('reads outlived the image')
        await expectGoodOne()
      },
    ),
    runs(600),
  )
  t.pass('no counterexample')
})

t.test('a damaged base gives data or a Qcow2Error', async (t) => {
  const overlay = buildImage({
    clusterBits: 12,
    virtualSize: 500_000,
    clusters: [[7, { kind: 'compressed', bytes: pattern(1, 4096) }]],
    backingFile: { name: 'base', format: 'qcow2' },
  })
  await fc.assert(
    fc.asyncProperty(lonelyImage, mutations, fc.nat(1001), async (base, changes, start) => {
      const bytes = changes.reduce((bytes, change) => change(bytes), base.bytes)
      const source = new RecordingSource(bytes)
      const top = new RecordingSource(overlay.bytes)
      await tolerating(() => exercise(top, { backingFile: source }, [0, start]))
      if (source.closeCount !== 1 || top.closeCount !== 1) throw new Error('not closed once')
      if (source.readsAfterClose + top.readsAfterClose > 0) throw new Error('reads outlived the image')
    }),
    runs(200),
  )
  t.pass('no counterexample')
})

t.test('a damaged image makes a conversion fail without an output, or succeed', async (t) => {
  const folder = t.testdir()
  await fc.assert(
    fc.asyncProperty(lonelyImage, mutations, fc.integer({ min: 1, max: 10_000 }), async (image, changes, round) => {
      const bytes = changes.reduce((bytes, change) => change(bytes), image.bytes)
      const name = `out-${round}`
      let length = -1
      await tolerating(async () => {
        const result = await convert(bytes, join(folder, name), { end: 2 ** 20, force: true })
        length = result.length
      })
      const found = readdirSync(folder)
      if (found.some((other) => other.endsWith('.part'))) throw new Error(`left over: ${found.join()}`)
      if (length >= 0 && statSync(join(folder, name)).size !== length) throw new Error('the length is wrong')
    }),
    runs(100),
  )
  t.pass('no counterexample')
})

t.test('an image cut anywhere gives data or a Qcow2Error, and never zeros for a missing cluster', async (t) => {
  const clusters = Array.from({ length: 12 }, (_, i) => [i, { kind: 'data', bytes: pattern(i + 1, 512) }] as const)
  const image = buildImage({ clusterBits: 9, clusters })
  for (let length = 0; length <= image.bytes.length; length += 32) {
    const cut = image.bytes.subarray(0, length)
    for (let index = 0; index < 12; index++) {
      const bytes = Buffer.alloc(512)
      await tolerating(async () => {
        await using opened = await Qcow2Image.open(cut)
        await opened.read(bytes, index * 512)
        const offset = image.layout.clusterOffsets.get(index) ?? 0
        const there = Math.max(0, Math.min(512, length - offset))
        const expected = Buffer.alloc(512)
        image.guest.copy(expected, 0, index * 512, index * 512 + there)
        if (there === 0 || !bytes.equals(expected)) throw new Error(`cluster ${index} of ${length} bytes`)
      })
    }
  }
  t.pass('no wrong bytes')
})
