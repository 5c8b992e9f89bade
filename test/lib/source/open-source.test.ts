/**
 * What every kind of input promises alike, and what is no input at all.
 */
import { Blob, File } from 'node:buffer'
import { createReadStream, openAsBlob, readdirSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { Readable } from 'node:stream'
import { pathToFileURL } from 'node:url'
import t, { type Test } from 'tap'
import { Qcow2SourceError, Qcow2UnsupportedError, Qcow2UsageError } from '../../../lib/errors.js'
import { openSource, type Qcow2Input, type SourceOptions } from '../../../lib/source/open-source.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { until } from '../../fixtures/turns.js'

interface Case {
  readonly input: Qcow2Input
  readonly label: string
  readonly path?: string
  /** Asserts what must be true once the host file is closed. */
  readonly whenClosed?: () => Promise<void> | void
}

const SIZE = 3000
const DIRTY = 0xee

const pathOfFile = (t: Test, bytes: Uint8Array): string => {
  const path = join(t.testdir(), 'disk 100% #1?.bin')
  writeFileSync(path, bytes)
  return path
}

const KINDS: Readonly<Record<string, (t: Test, bytes: Buffer) => Case | Promise<Case>>> = {
  'an absolute path': (t, bytes) => {
    const path = pathOfFile(t, bytes)
    return { input: path, label: path, path }
  },
  'a relative path': (t, bytes) => {
    const path = relative(process.cwd(), pathOfFile(t, bytes))
    return { input: path, label: path, path }
  },
  'a file: URL': (t, bytes) => {
    const path = pathOfFile(t, bytes)
    return { input: pathToFileURL(path), label: path, path }
  },
  'a Uint8Array': (_t, bytes) => ({ input: Uint8Array.from(bytes), label: 'image in memory' }),
  'a Buffer that is a part of another': (_t, bytes) => {
    const whole = Buffer.alloc(bytes.length + 20, DIRTY)
    bytes.copy(whole, 10)
    return { input: whole.subarray(10, 10 + bytes.length), label: 'image in memory' }
  },
  'a FileHandle': async (t, bytes) => {
    const handle = await open(pathOfFile(t, bytes))
    t.teardown(() => handle.close())
    return {
      input: handle,
      label: `file descriptor ${handle.fd}`,
      whenClosed: async () => {
        t.equal((await handle.stat()).size, bytes.length, 'the handle stays open')
        t.equal((await handle.read(Buffer.alloc(1))).bytesRead, Math.min(1, bytes.length))
        t.equal((await handle.readFile()).length, Math.max(0, bytes.length - 1), 'its position was not moved')
      },
    }
  },
  'a source of the caller': (t, bytes) => {
    const input = new RecordingSource(bytes)
    return {
      input,
      label: 'image from a source',
      whenClosed: () => {
        t.equal(input.closeCount, 1, 'it is closed once')
        t.equal(input.readsAfterClose, 0, 'and not read after that')
      },
    }
  },
  'a source of the caller that reads a little at a time': (_t, bytes) => ({
    input: new RecordingSource(bytes, { mostBytes: 7 }),
    label: 'image from a source',
  }),
  'a Blob': (_t, bytes) => ({
    input: new Blob([bytes.subarray(0, 1000), bytes.subarray(1000)]),
    label: 'image in a Blob',
  }),
  'a Blob over a file': async (t, bytes) => ({
    input: await openAsBlob(pathOfFile(t, bytes)),
    label: 'image in a Blob',
  }),
  'a File': (_t, bytes) => ({ input: new File([bytes], 'disk "1".qcow2'), label: 'disk "1".qcow2' }),
  'a File without a name': (_t, bytes) => ({ input: new File([bytes], ''), label: 'image in a Blob' }),
  'a stream of a file': (t, bytes) => {
    const input = createReadStream(pathOfFile(t, bytes), { highWaterMark: 1000 })
    return {
      input,
      label: 'image from a stream',
      whenClosed: () => {
        t.ok(input.closed, 'the stream is closed')
      },
    }
  },
  'a stream in object mode': (_t, bytes) => ({
    input: Readable.from([bytes.subarray(0, 1), Uint8Array.from(bytes.subarray(1))]),
    label: 'image from a stream',
  }),
  'a stream of the web': (_t, bytes) => ({
    input: new Blob([bytes]).stream(),
    label: 'image from a stream',
  }),
  'a generator': (_t, bytes) => ({
    input: (async function* () {
      for (let from = 0; from < bytes.length; from += 700) {
        yield await Promise.resolve(bytes.subarray(from, from + 700))
      }
    })(),
    label: 'image from a stream',
  }),
}

for (const [kind, prepare] of Object.entries(KINDS)) {
  t.test(`${kind} as input`, async (t) => {
    const bytes = pattern(1, SIZE)
    const { input, label, path, whenClosed } = await prepare(t, bytes)
    const file = await openSource(input)
    t.strictSame({ size: file.size, label: file.label, path: file.path }, { size: SIZE, label, path })
    t.equal(file.quoted, JSON.stringify(label), 'the label can be quoted')

    const ranges: [offset: number, length: number][] = [
      [0, SIZE],
      [0, 1],
      [1, 511],
      [SIZE - 1, 1],
      [17, 0],
      [SIZE - 10, 30],
      [SIZE, 5],
      [SIZE + 1000, 5],
      [2 ** 52, 5],
    ]
    const read = async ([offset, length]: [number, number]): Promise<void> => {
      const whole = Buffer.alloc(length + 16, DIRTY)
      await file.read(whole.subarray(8, 8 + length), offset)
      const expected = Buffer.alloc(length)
      bytes.subarray(offset).copy(expected)
      t.strictSame(whole.subarray(8, 8 + length), expected, `${length} bytes at ${offset}, zeros past the end`)
      t.ok(
        [...whole.subarray(0, 8), ...whole.subarray(8 + length)].every((byte) => byte === DIRTY),
        'nothing is written beside them',
      )
    }
    for (const range of ranges) await read(range)
    await Promise.all(ranges.map(read))

    await Promise.all([file.close(), file.close()])
    await file.close()
    await whenClosed?.()
    expectError(t, await rejection(t, file.read(Buffer.alloc(1), 0)), Qcow2UsageError, 'ERR_QCOW2_CLOSED', {
      layer: label,
    })
  })

  t.test(`${kind} without a single byte as input`, async (t) => {
    const { input, whenClosed } = await prepare(t, Buffer.alloc(0))
    const file = await openSource(input)
    t.equal(file.size, 0)
    const target = Buffer.alloc(5, DIRTY)
    await file.read(target, 0)
    t.strictSame(target, Buffer.alloc(5))
    await file.close()
    await whenClosed?.()
  })
}

t.test('one file has one identity, however it is opened, and each opening a number of its own', async (t) => {
  const path = pathOfFile(t, pattern(1, 10))
  const handle = await open(path)
  t.teardown(() => handle.close())
  const files = await Promise.all([path, pathToFileURL(path), handle].map((input) => openSource(input)))
  t.equal(new Set(files.map(({ identity }) => identity)).size, 1)
  t.match(files[0]?.identity, /^\d+:\d+$/)
  t.equal(new Set(files.map(({ id }) => id)).size, files.length)
  await Promise.all(files.map((file) => file.close()))

  const bytes = pattern(1, 10)
  for (const input of [bytes, new RecordingSource(bytes), new Blob([bytes]), createReadStream(path)]) {
    const file = await openSource(input)
    t.equal(file.identity, undefined, 'what is no file has none')
    await file.close()
  }
})

t.test('refuses what cannot be read from', async (t) => {
  const source = { size: 1, read: () => Promise.resolve(0), close: () => Promise.resolve() }
  const inputs: [input: unknown, found: RegExp][] = [
    ['', /found the path ""/],
    ['a\0b', /found the path "a\\u0000b"/],
    ['http://localhost/disk.qcow2', /found a path that begins as an address, which is handed in as a URL: new URL\(/],
    ['HTTPS://localhost', /found a path that begins as an address, which is handed in as a URL: new URL\(/],
    [new URL('data:,x'), /found a URL with the protocol "data:"/],
    [new URL('ftp://localhost/disk.qcow2'), /found a URL with the protocol "ftp:"/],
    [new URL('file:///a%2Fb'), /found the URL "file:\/\/\/a%2Fb"/],
    [new URL('file:///a%00b'), /found .*a(%00|\\u0000)b"/],
    [undefined, /found undefined/],
    [null, /found object/],
    [42, /found number/],
    [() => source, /found function/],
    [{}, /found object/],
    [[], /found object/],
    [[pattern(1, 5)], /found object/],
    [new Response(pattern(1, 5)), /found object/],
    [new ArrayBuffer(8), /found object/],
    [{ fd: 3 }, /found object/],
    [{ fd: 3, stat: 1 }, /found object/],
    [{ fd: '3', stat: () => undefined }, /found object/],
    [{ ...source, read: undefined }, /found object/],
    [{ ...source, close: undefined }, /found object/],
    [{ read: source.read, close: source.close }, /found object/],
    [{ size: 1, close: source.close }, /found object/],
    [{ size: 1, read: source.read }, /found object/],
  ]
  for (const [input, found] of inputs) {
    const error = await rejection(t, openSource(input as Qcow2Input))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'input' })
    t.match((error as Error).message, found)
    t.match(
      (error as Error).message,
      /allowed are a path, a URL \(file:, http:, https:\), a Uint8Array, a Blob, a FileHandle, a source .* and a stream/,
    )
  }
})

t.test('takes a path that only looks a little like an address', async (t) => {
  for (const name of ['http:', 'http:/x', './http://x', 'xhttp://y', 'http', 'ftp://x']) {
    const error = await rejection(t, openSource(name))
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED', { layer: name })
  }
})

t.test('copies a stream as it is told', async (t) => {
  const directory = t.testdir()
  const seen: unknown[] = []
  const options: SourceOptions = {
    spoolDirectory: directory,
    spoolBytes: 10,
    onSpool: (progress) => {
      seen.push({ ...progress })
      if (cannotCount === false) t.equal(openDescriptors(directory).length, 1)
    },
  }
  const file = await openSource(Readable.from([pattern(1, 10)]), options)
  await file.close()
  t.match(
    seen,
    [0, 10].map((bytesDone) => ({ reason: 'stream', bytesDone, bytesTotal: undefined })),
  )
  const error = await rejection(t, openSource(Readable.from([pattern(1, 11)]), options))
  expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_SIZE', { layer: 'image from a stream' })
  t.same(readdirSync(directory), [])
})

t.test('a signal ends the copying of a stream that never ends', async (t) => {
  const controller = new AbortController()
  const stream = new Readable({ read: () => undefined })
  const opening = rejection(t, openSource(stream, { signal: controller.signal, spoolDirectory: t.testdir() }))
  await until(() => stream.listenerCount('readable') > 0)
  const reason = new Error('enough')
  controller.abort(reason)
  t.equal(await opening, reason)
  t.ok(stream.destroyed)
})
