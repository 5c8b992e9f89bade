/**
 * The real client reads from a server that plays S3: all bytes come, from one version of the object, and nothing stays behind.
 */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { openS3 } from '../../examples/s3-source.js'
import { convert, createReadStream, Qcow2Image, Qcow2SourceError, type Qcow2Source } from '../../lib/index.js'
import { expectError, rejection } from '../fixtures/expect-error.js'
import { mixedDisk } from '../fixtures/mixed-disk.js'
import { pattern } from '../fixtures/patterns.js'
import { BUCKET, KEY, S3Server, type S3Options, type S3Request } from '../fixtures/s3-server.js'
import { sampleBytes } from '../fixtures/sample-images.js'
import { readDisk } from '../fixtures/opened-image.js'
import { Gate } from '../fixtures/turns.js'

const sample = sampleBytes('sample.qcow2')
const content = pattern(1, 10_000)
const { signal } = new AbortController()

/** Opens the gate, and keeps whoever waits for this. */
function neverAfter(gate: Gate): Promise<void> {
  gate.open()
  return new Gate().opened
}

/** A source over an object, and the server that sends it. */
async function opened(
  t: Test,
  bytes: Uint8Array,
  options?: S3Options,
): Promise<{ source: Qcow2Source; server: S3Server }> {
  const { server, client } = await S3Server.start(t, bytes, options)
  return { source: await openS3(client, BUCKET, KEY), server }
}

t.test('a whole disk comes as from the file', async (t) => {
  const expected = await readDisk(sample)
  const { source, server } = await opened(t, sample)
  t.equal(source.size, sample.length)
  t.ok((await buffer(createReadStream(source))).equals(expected), 'createReadStream')
  t.ok(server.requests.length > 1)
  for (const { ifMatch, authorization } of server.requests) {
    t.equal(ifMatch, '"1"', 'of the version that was opened')
    t.match(authorization, /^AWS4-HMAC-SHA256 .*range/, 'signed, the range too')
  }

  const { source: another } = await opened(t, sample)
  const output = join(t.testdir(), 'disk.img')
  await convert(another, output)
  t.ok(readFileSync(output).equals(expected), 'convert')
})

t.test('only what is read is asked for', async (t) => {
  const { bytes, guest } = mixedDisk()
  const { source, server } = await opened(t, bytes)
  await using image = await Qcow2Image.open(source)
  const sector = new Uint8Array(512)
  await image.read(sector, 1000)
  t.ok(guest.subarray(1000, 1512).equals(sector))
  const fetched = server.requests.reduce((sum, { range: [first, last] }) => sum + last + 1 - first, 0)
  t.ok(fetched < bytes.length / 4, `${fetched} of ${bytes.length} bytes`)
})

t.test('several reads are under way at once', async (t) => {
  const { bytes, guest } = mixedDisk()
  const both = new Gate()
  let isWaiting = false
  const { source, server } = await opened(t, bytes, {
    beforeAnswer: async () => {
      if (isWaiting) {
        if (server.underWay >= 4) both.open()
        await both.opened
      }
    },
  })
  await using image = await Qcow2Image.open(source)
  const parts = [0, 1, 2, 3].map((index) => ({ offset: index * 300_000, part: new Uint8Array(5000) }))
  await image.read(parts[0]!.part, 0)
  isWaiting = true
  await Promise.all(parts.map(({ offset, part }) => image.read(part, offset)))
  for (const { offset, part } of parts) {
    t.ok(guest.subarray(offset, offset + 5000).equals(part), `at ${offset}`)
  }
  t.ok(server.mostUnderWay >= 4, `${server.mostUnderWay} requests`)
})

t.test('reads end at the end of the object', async (t) => {
  const { source, server } = await opened(t, content)
  const target = new Uint8Array(5000)
  t.equal(await source.read(target, 9000, signal), 1000)
  t.ok(content.subarray(9000).equals(target.subarray(0, 1000)))
  t.equal(await source.read(target, 10_000, signal), 0)
  t.equal(await source.read(target, 20_000, signal), 0)
  t.equal(await source.read(new Uint8Array(0), 0, signal), 0)
  t.equal(server.requests.length, 1)
})

t.test('an object that is replaced meanwhile is an error, not a mixture', async (t) => {
  const { bytes } = mixedDisk()
  const { source, server } = await opened(t, bytes)
  const image = await Qcow2Image.open(source)
  await image.read(new Uint8Array(1000), 0)
  server.object.etag = '"2"'
  const error = await rejection(t, image.read(new Uint8Array(1000), 1_000_000))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED')
  const { cause } = error as { cause: { name?: unknown; $metadata?: { httpStatusCode?: unknown } } }
  t.equal(cause.name, 'PreconditionFailed')
  t.equal(cause.$metadata?.httpStatusCode, 412)
  await image.close()
})

t.test('where the connection breaks off, the rest is asked for', async (t) => {
  const { bytes, guest } = mixedDisk()
  let count = 0
  const { source, server } = await opened(t, bytes, {
    // A third of what was asked for, of every second answer.
    cutsAfter: ({ range: [first, last] }) => (++count % 2 === 0 ? Math.ceil((last - first) / 3) : undefined),
  })
  t.ok((await readDisk(source)).equals(guest))
  const areWhole = await Promise.all(server.requests.map(({ ended }) => ended))
  t.ok(areWhole.includes(false), `${areWhole.filter((isWhole) => !isWhole).length} answers broke off`)
})

t.test('an answer that breaks off before its first byte is an error', async (t) => {
  const { source } = await opened(t, content, { cutsAfter: () => 0 })
  const error = await rejection(t, source.read(new Uint8Array(100), 0, signal))
  t.equal((error as { code?: unknown }).code, 'ECONNRESET')
})

t.test('bytes that are not those of their checksum are an error', async (t) => {
  const { source } = await opened(t, pattern(1, 2 ** 22), { headers: { 'x-amz-checksum-crc32': 'AAAAAA==' } })
  // Of the larger one, most has been handed over by the time that the checksum is known.
  for (const length of [100, 2 ** 22]) {
    await t.rejects(source.read(new Uint8Array(length), 0, signal), /^Checksum mismatch/)
  }
})

t.test('a store that sends the whole object is refused, and the rest of it not waited for', async (t) => {
  const { source, server } = await opened(t, content, {
    ignoresRanges: true,
    cutsAfter: () => 5000,
    onCut: () => undefined,
  })
  for (const offset of [0, 50]) {
    await t.rejects(source.read(new Uint8Array(100), offset, signal), {
      message: `asked for bytes ${offset}-${offset + 99}, the store sends the whole object`,
    })
  }
  t.strictSame(await Promise.all(server.requests.map(({ ended }) => ended)), [false, false])
})

t.test('a range that is not the one asked for is refused', async (t) => {
  const { source, server } = await opened(t, content)
  // As if it had been cut without getting another ETag.
  server.object.bytes = content.subarray(0, 5000)
  await t.rejects(source.read(new Uint8Array(100), 4950, signal), {
    message: 'asked for bytes 4950-5049, the store sends bytes 4950-4999/5000',
  })
})

for (const [moment, hook] of [
  ['before an answer has come', 'beforeAnswer'],
  ['in the middle of an answer', 'onCut'],
] as const) {
  t.test(`destroying a stream ${moment} ends the request`, async (t) => {
    const reached = new Gate()
    const isLarge = ({ range: [first, last] }: S3Request): boolean => last - first > 200_000
    const { source, server } = await opened(t, mixedDisk().bytes, {
      ...(hook === 'beforeAnswer'
        ? { beforeAnswer: (request) => (isLarge(request) ? neverAfter(reached) : undefined) }
        : {
            cutsAfter: (request) => (isLarge(request) ? 150_000 : undefined),
            onCut: () => {
              reached.open()
            },
          }),
    })
    const stream = createReadStream(source)
    stream.resume()
    await reached.opened
    stream.destroy()
    await once(stream, 'close')
    t.strictSame(await Promise.all(server.requests.filter(isLarge).map(({ ended }) => ended)), [false])
    t.equal(server.underWay, 0)
  })
}

t.test('an object that is not there cannot be opened', async (t) => {
  const { client } = await S3Server.start(t, content)
  await t.rejects(openS3(client, BUCKET, 'another'), { name: 'NotFound' })
})

t.test('an object without an ETag is refused, as nobody could tell that it was replaced', async (t) => {
  const { server, client } = await S3Server.start(t, content)
  server.object.etag = undefined
  await t.rejects(openS3(client, BUCKET, KEY), { message: `s3://${BUCKET}/${KEY}: the store tells no ETag` })
})
