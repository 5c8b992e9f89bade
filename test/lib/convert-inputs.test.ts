// Images that are no files: Blobs, and streams, which are copied first; read in every way, as every part of a chain.
import { once } from 'node:events'
import { Blob, File } from 'node:buffer'
import { createReadStream as createFileStream, existsSync, openAsBlob, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Duplex, PassThrough, Readable } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import {
  convert,
  createReadStream,
  Qcow2AccessError,
  Qcow2FormatError,
  Qcow2Image,
  Qcow2SourceError,
  Qcow2UsageError,
  type Qcow2Input,
  type Qcow2SpoolProgress,
} from '../../lib/index.js'
import { bytesOf, bytesOfChunks, chunksOf, closing } from '../fixtures/consume.js'
import { luksImage, PASSPHRASE } from '../fixtures/encrypted-image.js'
import { causeCode, expectError, rejection } from '../fixtures/expect-error.js'
import { buildImage } from '../fixtures/image-builder.js'
import { mixedDisk } from '../fixtures/mixed-disk.js'
import { cannotCount, openDescriptors } from '../fixtures/open-descriptors.js'
import { opened, readBytes, readDisk } from '../fixtures/opened-image.js'
import { filled, pattern } from '../fixtures/patterns.js'
import { compressedDisk } from '../fixtures/thread-worthy.js'
import { turns, until } from '../fixtures/turns.js'
import { startedThreads } from '../fixtures/worker-threads.js'

const disk = mixedDisk()

/** In pieces of a length that nothing else has. */
async function* inPieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let from = 0; from < bytes.length; from += 7777) {
    yield await Promise.resolve(bytes.subarray(from, from + 7777))
  }
}

/** An image inside another one. */
const nested = (bytes: Buffer): Buffer => {
  const clusters = []
  for (let from = 0; from < bytes.length; from += 65536) {
    clusters.push([from / 65536, { kind: 'compressed', bytes: bytes.subarray(from, from + 65536) }] as const)
  }
  return buildImage({ virtualSize: bytes.length, clusters }).bytes
}

/** From the image's bytes, or the path of a file that has them. */
const KINDS: Readonly<Record<string, (bytes: Buffer, path: string) => Qcow2Input | Promise<Qcow2Input>>> = {
  'a Blob': (bytes) => new Blob([bytes]),
  'a File': (bytes) => new File([bytes.subarray(0, 5), bytes.subarray(5)], 'disk.qcow2'),
  'a Blob over a file': (_bytes, path) => openAsBlob(path),
  'a stream of a file': (_bytes, path) => createFileStream(path),
  'a stream of Node': (bytes) => Readable.from(inPieces(bytes)),
  'a stream that is written to': (bytes) => new PassThrough().end(bytes),
  'a stream of the web': (bytes) => new Blob([bytes]).stream(),
  'the body of an answer': (bytes) => new Response(bytes).body!,
  'a generator': inPieces,
  'the disk inside another image': (bytes) => createReadStream(nested(bytes)),
}

for (const [kind, make] of Object.entries(KINDS)) {
  t.test(`reads and converts an image from ${kind}`, async (t) => {
    const folder = t.testdir({ spool: {}, image: disk.bytes })
    const input = async (): Promise<Qcow2Input> => make(disk.bytes, join(folder, 'image'))
    const image = await opened(t, await input())
    t.ok((await readBytes(image)).equals(disk.guest), 'by Qcow2Image.read')
    await image.close()
    t.ok((await bytesOf(createReadStream(await input()))).equals(disk.guest), 'as a stream')
    const chunks = await chunksOf(createReadStream(await input(), { objectMode: true }))
    t.ok(bytesOfChunks(chunks).equals(disk.guest), 'as a stream of chunks')

    const spoolDirectory = join(folder, 'spool')
    await convert(await input(), join(folder, 'out'), { spoolDirectory })
    t.ok(readFileSync(join(folder, 'out')).equals(disk.guest), 'into a file')
    t.same(readdirSync(spoolDirectory), [])
    if (cannotCount === false) t.same(openDescriptors(spoolDirectory), [])
  })
}

t.test('threads decode what comes from a Blob or a stream', async (t) => {
  for (const compression of ['zlib', 'zstd'] as const) {
    const { bytes, guest } = compressedDisk(compression)
    for (const make of [() => new Blob([bytes]), () => inPieces(bytes)]) {
      const before = startedThreads()
      const path = join(t.testdir(), 'out')
      await convert(make(), path, { threads: 2 })
      t.ok(readFileSync(path).equals(guest), compression)
      t.ok(startedThreads() > before, 'by threads, in the memory that they share')
    }
  }
})

t.test('a Blob has the sectors that are decrypted', async (t) => {
  const { bytes, guest } = luksImage({
    virtualSize: 300_000,
    clusters: [[2, { kind: 'data', bytes: pattern(1, 65536) }]],
  })
  t.ok((await readDisk(new Blob([bytes]), { passphrase: PASSPHRASE })).equals(guest))
  t.ok((await readDisk(inPieces(bytes), { passphrase: PASSPHRASE })).equals(guest))
  const image = await opened(t, inPieces(bytes))
  const error = await rejection(t, image.read(new Uint8Array(5), 0))
  expectError(t, error, Qcow2AccessError, 'ERR_QCOW2_PASSPHRASE_REQUIRED', { layer: 'image from a stream' })
})

t.test('backing files and data files come as streams and Blobs, too', async (t) => {
  const base = buildImage({
    clusterBits: 9,
    virtualSize: 2048,
    clusters: [[1, { kind: 'data', bytes: filled(1, 512) }]],
  })
  const overlay = buildImage({
    clusterBits: 9,
    virtualSize: 2048,
    clusters: [[2, { kind: 'data', bytes: filled(2, 512) }]],
    backingFile: { name: 'base', format: 'qcow2' },
    dataFile: { name: 'data' },
  })
  const expected = Buffer.concat([filled(0, 512), filled(1, 512), filled(2, 512), filled(0, 512)])
  for (const [image, backingFile, dataFile] of [
    [inPieces(overlay.bytes), inPieces(base.bytes), inPieces(overlay.dataFile)],
    [new Blob([overlay.bytes]), new Blob([base.bytes]), new Blob([overlay.dataFile])],
    [new Blob([overlay.bytes]), Readable.from([base.bytes]), new File([overlay.dataFile], 'data')],
  ] as const) {
    const told: Qcow2SpoolProgress[] = []
    const options = { backingFile, dataFile, onSpool: (progress: Qcow2SpoolProgress) => void told.push(progress) }
    t.ok((await readDisk(image, options)).equals(expected))
    const begun = told.filter(({ bytesDone }) => bytesDone === 0).length
    t.equal(begun, [image, backingFile, dataFile].filter((input) => !(input instanceof Blob)).length)
  }
})

t.test('what a stream names is not looked for anywhere', async (t) => {
  const folder = t.testdir({ base: filled(1, 512) })
  const { bytes } = buildImage({ clusterBits: 9, backingFile: { name: 'base', format: 'raw' } })
  const before = process.cwd()
  process.chdir(folder)
  t.teardown(() => {
    process.chdir(before)
  })
  for (const input of [inPieces(bytes), new Blob([bytes]), new File([bytes], join(folder, 'image'))]) {
    const error = await rejection(t, Qcow2Image.open(input))
    expectError(t, error, Qcow2AccessError, 'ERR_QCOW2_REFERENCE_REFUSED', { field: 'backingFile', actual: 'base' })
  }
})

/** Fails after the first of its bytes. */
async function* failing(bytes: Uint8Array, error: Error): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(bytes.subarray(0, 1000))
  throw error
}

t.test('a stream that fails, or is no image, leaves nothing behind', async (t) => {
  const folder = t.testdir({ spool: {} })
  const spoolDirectory = join(folder, 'spool')
  const lost = new Error('lost')
  const cases = [
    [() => failing(disk.bytes, lost), Qcow2SourceError, 'ERR_QCOW2_READ_FAILED'],
    [() => Readable.from(failing(disk.bytes, lost)), Qcow2SourceError, 'ERR_QCOW2_READ_FAILED'],
    [() => new PassThrough().end(pattern(1, 5000)), Qcow2FormatError, 'ERR_QCOW2_BAD_MAGIC'],
    [() => Readable.from([]), Qcow2FormatError, 'ERR_QCOW2_BAD_MAGIC'],
    [() => inPieces(disk.bytes.subarray(0, 70_000)), Qcow2FormatError, 'ERR_QCOW2_TRUNCATED'],
    [() => Readable.from(['text']), Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT'],
  ] as const
  for (const [make, errorClass, code] of cases) {
    const [input, again] = [make(), make()]
    const error = await rejection(t, convert(input, join(folder, 'out'), { spoolDirectory }))
    expectError(t, error, errorClass, code)
    if (code === 'ERR_QCOW2_READ_FAILED') t.equal((error as Error).cause, lost)
    if (input instanceof Readable) {
      t.ok(input.destroyed)
      await turns()
    }
    const [emitted] = await closing(createReadStream(again, { spoolDirectory }).resume())
    expectError(t, emitted, errorClass, code)
    t.same(readdirSync(folder), ['spool'])
    t.same(readdirSync(spoolDirectory), [])
    if (cannotCount === false) t.same(openDescriptors(folder), [])
  }
})

t.test('a stream that fails before anybody reads it ends the conversion, not the process', async (t) => {
  const folder = t.testdir({ 'a.qcow2': disk.bytes, old: 'old' })
  const missing = (): Readable => createFileStream(join(folder, 'none'))
  for (const convertIt of [
    () => convert(missing(), join(folder, 'out')),
    () => Qcow2Image.open(missing()),
    () => Qcow2Image.open(buildImage({ backingFile: { name: 'b' } }).bytes, { backingFile: missing() }),
    () => Qcow2Image.open(buildImage({ dataFile: { name: 'd' } }).bytes, { dataFile: missing() }),
  ]) {
    const error = await rejection(t, convertIt())
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { layer: 'image from a stream' })
    t.equal(causeCode(error), 'ENOENT')
  }
  // Each of these fails of something else before.
  for (const [convertIt, code] of [
    [() => convert(missing(), join(folder, 'old')), 'ERR_QCOW2_OUTPUT_EXISTS'],
    [() => convert(missing(), join(folder, 'out'), { spoolDirectory: join(folder, 'x') }), 'ERR_QCOW2_SPOOL_FAILED'],
    [() => convert(new Uint8Array(9), join(folder, 'out'), { backingFile: missing() }), 'ERR_QCOW2_BAD_MAGIC'],
    [() => Qcow2Image.open(new Uint8Array(9), { dataFile: missing() }), 'ERR_QCOW2_BAD_MAGIC'],
  ] as const) {
    t.match(await rejection(t, convertIt()), { code })
    await turns(20)
  }
  const stream = missing()
  const [error] = await closing(createReadStream(stream).resume())
  t.equal(causeCode(error), 'ENOENT')
  t.same(readdirSync(folder), ['a.qcow2', 'old'])
})

t.test('without a folder for the copy a stream is let go of', async (t) => {
  const folder = t.testdir()
  const stream = new Readable({ read: () => undefined })
  const error = await rejection(t, convert(stream, join(folder, 'out'), { spoolDirectory: join(folder, 'none') }))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_SPOOL_FAILED', { field: 'spoolDirectory' })
  t.equal(causeCode(error), 'ENOENT')
  t.ok(stream.destroyed)
})

t.test('what onSpool throws ends the opening', async (t) => {
  const folder = t.testdir({ spool: {} })
  for (const error of [new TypeError('mine'), 'no error']) {
    const stream = Readable.from(inPieces(disk.bytes))
    const onSpool = ({ bytesDone }: Qcow2SpoolProgress): void => {
      if (bytesDone > 10_000) throw error as Error
    }
    const options = { spoolDirectory: join(folder, 'spool'), onSpool }
    t.equal(await rejection(t, convert(stream, join(folder, 'out'), options)), error)
    t.ok(stream.destroyed)
    t.same(readdirSync(folder), ['spool'])
    t.same(readdirSync(join(folder, 'spool')), [])
  }
})

/** Streams that have begun, and never go on. */
const STUCK: Readonly<Record<string, () => { input: Qcow2Input; isGone: () => boolean }>> = {
  'a stream of Node': () => {
    const input = new PassThrough()
    input.write(disk.bytes.subarray(0, 1000))
    return { input, isGone: () => input.destroyed }
  },
  'a stream of the web': () => {
    let isGone = false
    const input = new ReadableStream<Uint8Array>({
      start: (controller) => {
        controller.enqueue(disk.bytes.subarray(0, 1000))
      },
      cancel: () => {
        isGone = true
      },
    })
    return { input, isGone: () => isGone }
  },
}

for (const [kind, make] of Object.entries(STUCK)) {
  t.test(`an abort ends the wait for ${kind}`, async (t) => {
    const folder = t.testdir({ spool: {} })
    const spoolDirectory = join(folder, 'spool')
    const reason = new Error('enough')
    const ways: ((input: Qcow2Input, signal: AbortSignal, onSpool: () => void) => Promise<unknown>)[] = [
      (input, signal, onSpool) => convert(input, join(folder, 'out'), { signal, onSpool, spoolDirectory }),
      (input, signal, onSpool) => Qcow2Image.open(input, { signal, onSpool, spoolDirectory }),
      (input, signal, onSpool) => {
        const stream = createReadStream(input, { signal, onSpool, spoolDirectory }).resume()
        return closing(stream).then(([error]) => {
          throw error
        })
      },
    ]
    for (const way of ways) {
      const { input, isGone } = make()
      const controller = new AbortController()
      let calls = 0
      const ending = rejection(
        t,
        way(input, controller.signal, () => (calls += 1)),
      )
      await until(() => calls === 2)
      controller.abort(reason)
      t.equal(await ending, reason)
      await turns()
      t.ok(isGone())
      t.same(readdirSync(folder), ['spool'])
      t.same(readdirSync(spoolDirectory), [])
      if (cannotCount === false) t.same(openDescriptors(folder), [])
    }
  })

  t.test(`destroying what reads ${kind} ends the wait for it`, async (t) => {
    const { input, isGone } = make()
    let calls = 0
    const stream = createReadStream(input, { onSpool: () => (calls += 1) }).resume()
    await until(() => calls === 2)
    stream.destroy()
    await once(stream, 'close')
    await turns()
    t.ok(isGone())
  })
}

t.test('the copy is there until the image is closed, and no longer', { skip: cannotCount }, async (t) => {
  const spoolDirectory = t.testdir()
  const image = await Qcow2Image.open(inPieces(disk.bytes), { spoolDirectory })
  t.equal(openDescriptors(spoolDirectory).length, 1)
  t.same(readdirSync(spoolDirectory), [])
  t.same(image.backingChain[0]?.file, 'image from a stream')
  await image.close()
  t.equal(openDescriptors(spoolDirectory).length, 0)

  const stream = createReadStream(inPieces(disk.bytes), { spoolDirectory })
  await once(stream, 'readable')
  t.equal(openDescriptors(spoolDirectory).length, 1)
  stream.destroy()
  await once(stream, 'close')
  t.equal(openDescriptors(spoolDirectory).length, 0)
})

t.test('an abort while the disk is written leaves nothing of the copy', async (t) => {
  const folder = t.testdir({ spool: {} })
  const controller = new AbortController()
  const reason = new Error('enough')
  const options = {
    spoolDirectory: join(folder, 'spool'),
    signal: controller.signal,
    onProgress: () => {
      controller.abort(reason)
    },
  }
  t.equal(await rejection(t, convert(inPieces(disk.bytes), join(folder, 'out'), options)), reason)
  t.notOk(existsSync(join(folder, 'out')))
  t.same(readdirSync(join(folder, 'spool')), [])
  if (cannotCount === false) t.same(openDescriptors(folder), [])
})

t.test('a stream is read as slowly as it comes', async (t) => {
  const slowly = Duplex.from(async function* () {
    for await (const piece of inPieces(disk.bytes)) {
      await setImmediate()
      yield piece
    }
  })
  t.ok((await readDisk(slowly as AsyncIterable<Uint8Array>)).equals(disk.guest))
})
