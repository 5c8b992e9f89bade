/**
 * Streams of a caller's own: every chunk as it is, errors that say whose they are, and nothing kept open by whoever leaves.
 */
import { once } from 'node:events'
import { closeSync, createReadStream, openSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import t from 'tap'
import { Qcow2FormatError, Qcow2SourceError } from '../../../lib/errors.js'
import { CallerStream, holdErrors } from '../../../lib/source/caller-stream.js'
import { createReadStream as createDiskStream } from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { pattern } from '../../fixtures/patterns.js'
import { turns } from '../../fixtures/turns.js'

const lost = new Error('lost')
const ignore = (): void => undefined
const never = new Promise<never>(ignore)

/** A stream of Node's that never has anything. */
const silent = (): Readable => new Readable({ read: ignore })

async function chunksOf(stream: AsyncIterable<unknown>): Promise<unknown[]> {
  const chunks: unknown[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return chunks
}

const CHUNKS = [pattern(1, 3), pattern(2, 0), new Uint8Array([1, 2]), 'text', { an: 'object' }]

async function* generated(): AsyncGenerator {
  for (const chunk of CHUNKS) yield await Promise.resolve(chunk)
}

const web = (): ReadableStream =>
  new ReadableStream({
    start(controller) {
      for (const chunk of CHUNKS) controller.enqueue(chunk)
      controller.close()
    },
  })

for (const [kind, make] of [
  ['a stream of Node', () => Readable.from(CHUNKS)],
  ['a stream of the web', web],
  ['a generator', generated],
] as const) {
  t.test(`hands on each chunk of ${kind} as it is`, async (t) => {
    const found = await chunksOf(new CallerStream(make()))
    t.equal(found.length, CHUNKS.length)
    found.forEach((chunk, i) => t.equal(chunk, CHUNKS[i]))
  })
}

t.test('calls standard input by its name', async (t) => {
  t.equal(new CallerStream(Object.assign(silent(), { fd: 0 })).label, 'standard input')
  for (const stream of [Object.assign(silent(), { fd: 1 }), silent(), web(), generated()]) {
    t.equal(new CallerStream(stream).label, 'image from a stream')
  }
})

t.test('tells errors of the stream, with their cause', async (t) => {
  const locked = web()
  locked.getReader()
  const failing: Readable = new Readable({ read: () => failing.destroy(lost) })
  const streams: [title: string, stream: AsyncIterable<unknown>, cause?: Error][] = [
    ['destroyed before', silent().on('error', ignore).destroy(lost), lost],
    ['destroyed when it is read', failing, lost],
    ['pulled', new ReadableStream({ pull: () => Promise.reject(lost) }), lost],
    ['locked', locked],
    ['thrown', { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(lost) }) }, lost],
    [
      'thrown at once',
      {
        [Symbol.asyncIterator]: () => {
          throw lost
        },
      },
      lost,
    ],
  ]
  for (const [title, stream, cause] of streams) {
    await t.test(title, async (t) => {
      const reading = new CallerStream(stream)
      const error = await rejection(t, reading.next())
      expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { layer: 'image from a stream' })
      t.match((error as Error).message, /^"image from a stream": reading the stream: /)
      t.ok((error as Error).cause instanceof Error)
      if (cause !== undefined) t.equal((error as Error).cause, cause)
      await reading.return().catch(ignore)
    })
  }
})

t.test('says so if a stream ends before its end', async (t) => {
  const stream = silent()
  const reading = new CallerStream(stream)
  const waiting = rejection(t, reading.next())
  stream.destroy()
  expectError(t, await waiting, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED')
  const error = await rejection(t, new CallerStream(stream).next())
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED')
  t.match((error as Error).message, /[Pp]remature close/)
})

t.test('passes an error of this package on as it is', async (t) => {
  const outer = createDiskStream(new Uint8Array(1000))
  const error = await rejection(t, new CallerStream(outer).next())
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_MAGIC', { layer: 'image in memory' })
})

for (const isRead of [false, true]) {
  const when = isRead ? 'while a chunk is waited for' : 'before anything was read'

  t.test(`whoever leaves ${when} destroys a stream of Node`, async (t) => {
    const stream = silent()
    const reading = new CallerStream(stream)
    const waiting = isRead ? reading.next().catch((error: unknown) => error) : undefined
    t.same(await reading.return(), { done: true, value: undefined })
    t.ok(stream.destroyed)
    await waiting
  })

  t.test(`whoever leaves ${when} cancels a stream of the web`, async (t) => {
    let cancelCount = 0
    const stream = new ReadableStream({
      pull: () => never,
      cancel: () => {
        cancelCount++
      },
    })
    const reading = new CallerStream(stream)
    const waiting = isRead ? reading.next() : undefined
    await reading.return()
    t.equal(cancelCount, 1)
    if (waiting !== undefined) t.equal((await waiting).done, true)
  })
}

t.test('whoever leaves closes the file that is read', { skip: cannotCount }, async (t) => {
  const path = join(t.testdir({ image: pattern(1, 300_000) }), 'image')
  const stream = createReadStream(path)
  const reading = new CallerStream(stream)
  await reading.next()
  t.equal(openDescriptors(path).length, 1)
  await reading.return()
  if (!stream.closed) await once(stream, 'close')
  t.equal(openDescriptors(path).length, 0)
})

t.test('whoever leaves lets a generator clean up', async (t) => {
  let isClean = false
  const reading = new CallerStream(
    (async function* () {
      try {
        yield await Promise.resolve(1)
        yield 2
      } finally {
        isClean = true
      }
    })(),
  )
  t.same(await reading.next(), { done: false, value: 1 })
  await reading.return()
  t.ok(isClean)
  t.same(await reading.next(), { done: true, value: undefined })
})

t.test('takes an iterator that knows no way to leave', async (t) => {
  const reading = new CallerStream({ [Symbol.asyncIterator]: () => ({ next: () => never }) })
  t.same(await reading.return(), { done: true, value: undefined })
})

t.test('errors of streams that are held wait for whoever reads', async (t) => {
  const stream = silent()
  const missing = createReadStream(join(t.testdir(), 'none'))
  holdErrors(stream, missing)
  stream.destroy(lost)
  await turns(3)
  // Without a listener this would be an error that nobody catches.
  t.ok(stream.errored === lost && stream.closed)
  const error = await rejection(t, new CallerStream(stream).next())
  t.equal((error as Error).cause, lost)
  t.match(await rejection(t, new CallerStream(missing).next()), { cause: { code: 'ENOENT' } })
})

t.test('holds nothing but streams', async (t) => {
  const heard: string[] = []
  const on = (event: string): void => void heard.push(event)
  holdErrors(undefined, null, 'a', 5, {}, web(), generated(), { on }, { on: 1, destroy: ignore }, { on, destroy: 1 })
  t.same(heard, [])
  holdErrors({ on, destroy: ignore })
  t.same(heard, ['error'])
})

t.test('a descriptor that was opened before is not closed by reading it', async (t) => {
  const path = join(t.testdir({ image: 'image' }), 'image')
  const fd = openSync(path, 'r')
  t.teardown(() => {
    closeSync(fd)
  })
  const found = await chunksOf(new CallerStream(createReadStream('', { fd, autoClose: false })))
  t.equal(Buffer.concat(found as Buffer[]).toString(), 'image')
})
