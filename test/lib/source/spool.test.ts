/**
 * The temporary copy: every byte of it, a name that is gone at once, and nothing left of it or of its input on any way out.
 */
import { getEventListeners } from 'node:events'
import { chmodSync, readdirSync, statSync } from 'node:fs'
import promises, { type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t, { type Test } from 'tap'
import { Qcow2SourceError, Qcow2UnsupportedError, Qcow2UsageError } from '../../../lib/errors.js'
import type { HostFile } from '../../../lib/source/source.js'
import { spool, type Qcow2SpoolProgress, type SpooledInput, type SpoolOptions } from '../../../lib/source/spool.js'
import { causeCode, expectError, rejection } from '../../fixtures/expect-error.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { patchHandles, patchPromises, systemError } from '../../fixtures/patched-fs.js'
import { pattern } from '../../fixtures/patterns.js'
import { Gate, settling, turns, until } from '../../fixtures/turns.js'

const LABEL = 'a stream'
const lost = new Error('lost')
const noDescriptors = cannotCount !== false
const isRoot = process.getuid?.() === 0

/** Chunks that remember how often they were asked for, and whether the asking was given up. */
class Chunks implements AsyncIterable<unknown>, AsyncIterator<unknown> {
  nextCount = 0
  returnCount = 0

  /** @param chunks What is a promise is waited for; what is an Error is thrown. */
  constructor(private readonly chunks: readonly unknown[]) {}

  [Symbol.asyncIterator](): this {
    return this
  }

  async next(): Promise<IteratorResult<unknown>> {
    const value = await this.chunks[this.nextCount++]
    if (value instanceof Error) throw value
    return value === undefined ? { done: true, value } : { done: false, value }
  }

  return(): Promise<IteratorResult<unknown>> {
    this.returnCount++
    // As a generator does that waits for something that never comes.
    return new Gate<never>().opened
  }
}

function spooled(
  directory: string,
  chunks: AsyncIterable<unknown>,
  options: Partial<SpoolOptions> = {},
  input: Partial<SpooledInput> = {},
): Promise<HostFile> {
  return spool(
    { chunks, label: LABEL, reason: 'stream', ...input },
    { directory, mostBytes: Number.MAX_SAFE_INTEGER, ...options },
  )
}

/** That no file is left in the folder, with or without a name. */
function isEmpty(t: Test, directory: string): void {
  t.same(readdirSync(directory), [], 'there is no file')
  if (!noDescriptors) t.same(openDescriptors(directory), [], 'and none open')
}

t.test('copies chunks of any length, to be read at random', async (t) => {
  const directory = t.testdir()
  const content = pattern(1, 200_000)
  const shared = new Uint8Array(new SharedArrayBuffer(1000)).fill(7)
  const parts: Uint8Array[] = []
  let from = 0
  for (const length of [1, 0, 70_000, 3, 0, 99_996, 30_000]) {
    parts.push(content.subarray(from, (from += length)))
  }
  const chunks = new Chunks([...parts, Uint8Array.from(parts[2]!), shared, undefined])
  const whole = Buffer.concat([content, parts[2]!, shared])
  const file = await spooled(directory, chunks)
  t.match(file, { size: whole.length, label: LABEL, path: undefined, identity: undefined, fetched: undefined })
  const bytes = Buffer.alloc(whole.length + 10, 0xee)
  await file.read(bytes, 0)
  t.ok(bytes.equals(Buffer.concat([whole, Buffer.alloc(10)])))
  await Promise.all(
    [0, 69_999, 200_000, whole.length - 5].map(async (offset) => {
      const part = Buffer.alloc(5)
      await file.read(part, offset)
      t.ok(part.equals(whole.subarray(offset, offset + 5)))
    }),
  )
  t.equal(chunks.returnCount, 0, 'what has come to its end is left alone')
  await file.close()
  isEmpty(t, directory)
})

t.test('copies nothing', async (t) => {
  const directory = t.testdir()
  const file = await spooled(directory, new Chunks([undefined]))
  t.equal(file.size, 0)
  await file.close()
  isEmpty(t, directory)
})

t.test('is done with a chunk when it asks for the next one', async (t) => {
  const bytes = new Uint8Array(1000)
  const file = await spooled(
    t.testdir(),
    (async function* () {
      for (let i = 1; i <= 3; i++) yield await Promise.resolve(bytes.fill(i))
    })(),
  )
  const found = Buffer.alloc(3000)
  await file.read(found, 0)
  t.ok(found.equals(Buffer.concat([1, 2, 3].map((byte) => Buffer.alloc(1000, byte)))))
  await file.close()
})

t.test('copies several inputs at once', async (t) => {
  const directory = t.testdir()
  const files = await Promise.all(
    Array.from({ length: 20 }, (_, i) => spooled(directory, new Chunks([pattern(i, 100), undefined]))),
  )
  for (const [i, file] of files.entries()) {
    const bytes = Buffer.alloc(100)
    await file.read(bytes, 0)
    t.ok(bytes.equals(pattern(i, 100)))
    await file.close()
  }
  isEmpty(t, directory)
})

t.test('takes iterators that give their results at once', async (t) => {
  const results = [{ done: false, value: pattern(1, 5) }, { done: true }]
  const chunks = {
    [Symbol.asyncIterator]: () => ({ next: () => results.shift() }),
  } as unknown as AsyncIterable<unknown>
  const file = await spooled(t.testdir(), chunks)
  t.equal(file.size, 5)
  await file.close()
})

t.test('tells when it begins, and of each chunk that has been copied', async (t) => {
  const told: Qcow2SpoolProgress[] = []
  const chunks = new Chunks([pattern(1, 5), pattern(1, 0), pattern(1, 7), undefined])
  const onProgress = (progress: Qcow2SpoolProgress): void => {
    told.push({ ...progress })
  }
  const file = await spooled(t.testdir(), chunks, { onProgress })
  const common = { reason: 'stream', bytesTotal: undefined }
  t.match(
    told,
    [0, 5, 5, 12].map((bytesDone) => ({ ...common, bytesDone, bytesPerSecond: Number, secondsLeft: undefined })),
  )
  t.equal(told[0]!.bytesPerSecond, 0)
  t.ok(told[3]!.bytesPerSecond > 0)
  await file.close()
})

t.test('says of what comes from a server how much there is, and that it came as a whole', async (t) => {
  const told: Qcow2SpoolProgress[] = []
  const onProgress = (progress: Qcow2SpoolProgress): void => {
    told.push({ ...progress })
  }
  const input = { reason: 'no-ranges', bytesTotal: 5 } as const
  const file = await spooled(t.testdir(), new Chunks([pattern(1, 5), undefined]), { onProgress, mostBytes: 5 }, input)
  t.match(told, [
    { ...input, bytesDone: 0, bytesPerSecond: 0, secondsLeft: undefined },
    { ...input, bytesDone: 5, bytesPerSecond: Number, secondsLeft: 0 },
  ])
  t.equal(told.length, 2)
  t.equal(file.fetched, 'as-a-whole')
  await file.close()
})

t.test('copies as much as it may', async (t) => {
  const directory = t.testdir()
  for (const parts of [[10], [4, 6], [10, 0], [0, 3, 3, 4]]) {
    const chunks = new Chunks([...parts.map((length) => pattern(1, length)), undefined])
    const file = await spooled(directory, chunks, { mostBytes: 10 })
    t.equal(file.size, 10)
    await file.close()
  }
  const file = await spooled(directory, new Chunks([pattern(1, 0), undefined]), { mostBytes: 0 })
  await file.close()
})

t.test('refuses one byte more', async (t) => {
  const directory = t.testdir()
  for (const [mostBytes, parts, actual] of [
    [10, [11], 11],
    [10, [10, 1], 11],
    [10, [4, 2 ** 20], 2 ** 20 + 4],
    [0, [1], 1],
  ] as const) {
    const chunks = new Chunks(parts.map((length) => pattern(1, length)))
    const error = await rejection(t, spooled(directory, chunks, { mostBytes }))
    expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_SIZE', {
      layer: LABEL,
      field: 'limits.spoolBytes',
      actual,
    })
    t.match((error as Error).message, new RegExp(`longer than ${mostBytes} bytes.*limits\\.spoolBytes`))
    t.equal(chunks.nextCount, parts.length, 'at once')
    t.equal(chunks.returnCount, 1)
    isEmpty(t, directory)
  }
})

t.test('refuses what says itself that it is too much, before any of it has come', async (t) => {
  const directory = t.testdir()
  const chunks = new Chunks([pattern(1, 1), undefined])
  const error = await rejection(t, spooled(directory, chunks, { mostBytes: 10 }, { bytesTotal: 11 }))
  expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_SIZE', { layer: LABEL, actual: 11 })
  t.equal(chunks.nextCount, 0)
  t.equal(chunks.returnCount, 1)
  isEmpty(t, directory)
})

t.test('refuses chunks that are no bytes', async (t) => {
  const directory = t.testdir()
  for (const [chunk, found] of [
    ['text', 'string'],
    [5, 'number'],
    [null, 'object'],
    [{}, 'object'],
    [[1, 2], 'object'],
    [new ArrayBuffer(5), 'object'],
    [new Uint16Array(5), 'object'],
    [() => 1, 'function'],
  ] as const) {
    const chunks = new Chunks([pattern(1, 5), chunk, pattern(1, 5)])
    const error = await rejection(t, spooled(directory, chunks))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { layer: LABEL, field: 'input' })
    t.match((error as Error).message, `found a stream of ${found}, allowed are Uint8Arrays`)
    t.equal(chunks.nextCount, 2)
    t.equal(chunks.returnCount, 1)
    isEmpty(t, directory)
  }
})

t.test('passes on what the iterator throws', async (t) => {
  const directory = t.testdir()
  for (const chunks of [new Chunks([lost]), new Chunks([pattern(1, 5), lost])]) {
    t.equal(await rejection(t, spooled(directory, chunks)), lost)
    isEmpty(t, directory)
  }
  const throwing = (): never => {
    throw lost
  }
  for (const iterator of [throwing, () => ({ next: throwing })]) {
    t.equal(await rejection(t, spooled(directory, { [Symbol.asyncIterator]: iterator })), lost)
    isEmpty(t, directory)
  }
})

t.test('passes on what the iterator throws, whatever its return does then', async (t) => {
  const directory = t.testdir()
  for (const ending of [
    () => Promise.reject(new Error('not this one')),
    () => {
      throw new Error('not this one')
    },
    () => 5,
  ]) {
    const next = (): Promise<never> => Promise.reject(lost)
    const chunks = { [Symbol.asyncIterator]: () => ({ next, return: ending as never }) }
    t.equal(await rejection(t, spooled(directory, chunks)), lost)
    isEmpty(t, directory)
  }
  await turns(2)
})

t.test('passes on what onProgress throws', async (t) => {
  const directory = t.testdir()
  for (const bytes of [0, 5, 10]) {
    const chunks = new Chunks([pattern(1, 5), pattern(1, 5), pattern(1, 5)])
    const onProgress = ({ bytesDone }: Qcow2SpoolProgress): void => {
      if (bytesDone === bytes) throw lost
    }
    t.equal(await rejection(t, spooled(directory, chunks, { onProgress })), lost)
    t.equal(chunks.returnCount, 1)
    isEmpty(t, directory)
  }
})

for (const reason of [new Error('enough'), 'a reason that is no error']) {
  t.test(`does nothing once the signal is aborted with ${typeof reason}`, async (t) => {
    const directory = t.testdir()
    const chunks = new Chunks([pattern(1, 5), undefined])
    let isTold = false
    const onProgress = (): void => {
      isTold = true
    }
    const signal = AbortSignal.abort(reason)
    t.equal(await rejection(t, spooled(directory, chunks, { signal, onProgress })), reason)
    t.notOk(isTold)
    t.equal(chunks.nextCount, 0)
    t.equal(chunks.returnCount, 1)
    isEmpty(t, directory)
  })

  t.test(`an abort with ${typeof reason} ends the wait for a chunk that never comes`, async (t) => {
    const directory = t.testdir()
    for (const before of [[], [pattern(1, 5)], [pattern(1, 5), pattern(1, 5)]]) {
      const chunks = new Chunks([...before, new Gate().opened])
      const controller = new AbortController()
      const copying = rejection(t, spooled(directory, chunks, { signal: controller.signal }))
      await until(() => chunks.nextCount === before.length + 1)
      t.equal(getEventListeners(controller.signal, 'abort').length, 1)
      controller.abort(reason)
      t.equal(await copying, reason)
      t.equal(chunks.returnCount, 1)
      t.equal(getEventListeners(controller.signal, 'abort').length, 0)
      isEmpty(t, directory)
    }
  })
}

t.test('an abort while a chunk is written lets that be written, and asks for no other', async (t) => {
  const directory = t.testdir()
  const controller = new AbortController()
  const written = new Gate()
  let isWriting = false
  await patchHandles(
    t,
    'write',
    (original) =>
      async function (...parameters) {
        isWriting = true
        await written.opened
        return original.call(this, ...parameters)
      },
  )
  const chunks = new Chunks([pattern(1, 5), pattern(1, 5), undefined])
  const copying = rejection(t, spooled(directory, chunks, { signal: controller.signal }))
  await until(() => isWriting)
  controller.abort(lost)
  const hasSettled = settling(copying)
  await turns(3)
  t.notOk(hasSettled(), 'the handle is in use')
  written.open()
  t.equal(await copying, lost)
  t.equal(chunks.nextCount, 1)
  t.equal(chunks.returnCount, 1)
  isEmpty(t, directory)
})

t.test('a chunk that fails after the abort is nobody’s any more', async (t) => {
  const chunk = new Gate<Uint8Array>()
  const chunks = new Chunks([chunk.opened])
  const controller = new AbortController()
  const copying = rejection(t, spooled(t.testdir(), chunks, { signal: controller.signal }))
  await until(() => chunks.nextCount === 1)
  controller.abort(lost)
  t.equal(await copying, lost)
  chunk.fail(new Error('an error that nobody catches would end this test'))
  await turns(2)
})

t.test('leaves nothing at the signal when all has gone well', async (t) => {
  const { signal } = new AbortController()
  const file = await spooled(t.testdir(), new Chunks([pattern(1, 5), pattern(1, 5), undefined]), { signal })
  t.equal(getEventListeners(signal, 'abort').length, 0)
  await file.close()
})

t.test('has no name, and is nobody else’s to read, while it is written and read', { skip: cannotCount }, async (t) => {
  const directory = t.testdir()
  let seen = 0
  const look = (): void => {
    const fds = openDescriptors(directory)
    t.equal(fds.length, 1)
    t.same(readdirSync(directory), [])
    const { mode, nlink } = statSync(`/proc/self/fd/${fds[0]!}`)
    t.equal(mode & 0o777, 0o600)
    t.equal(nlink, 0)
    seen++
  }
  const before = process.umask(0)
  t.teardown(() => process.umask(before))
  const chunks = new Chunks([pattern(1, 5), pattern(2, 5), undefined])
  const file = await spooled(directory, chunks, { onProgress: look })
  t.equal(seen, 3)
  await file.read(new Uint8Array(5), 0)
  look()
  await file.close()
  isEmpty(t, directory)
})

t.test('stands in the system’s folder if no other is named', { skip: cannotCount }, async (t) => {
  const directory = t.testdir()
  const before = process.env['TMPDIR']
  process.env['TMPDIR'] = directory
  t.teardown(() => {
    if (before === undefined) delete process.env['TMPDIR']
    else process.env['TMPDIR'] = before
  })
  const file = await spool(
    { chunks: new Chunks([pattern(1, 5), undefined]), label: LABEL, reason: 'stream' },
    { mostBytes: 5 },
  )
  t.equal(openDescriptors(directory).length, 1)
  await file.close()
})

/** Asserts that the copy fails because of its folder. */
async function failsIn(t: Test, directory: string, doing: string, code: string, shown = directory): Promise<void> {
  const chunks = new Chunks([pattern(1, 5), pattern(2, 5), undefined])
  const error = await rejection(t, spooled(directory, chunks))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_SPOOL_FAILED', {
    layer: LABEL,
    field: 'spoolDirectory',
    actual: directory,
  })
  t.equal(causeCode(error), code)
  const { message } = error as Error
  t.ok(message.startsWith(`"${LABEL}": ${doing} the temporary copy in ${JSON.stringify(shown)}: ${code}: `), message)
  t.match(message, /; the option spoolDirectory names another folder$/)
  t.equal(chunks.returnCount, 1)
}

t.test('says so if there is no such folder', async (t) => {
  const folder = t.testdir({ file: '' })
  await failsIn(t, join(folder, 'none'), 'creating', 'ENOENT')
  await failsIn(t, join(folder, 'file'), 'creating', 'ENOTDIR')
  const nasty = join(folder, '\u001b[31m\n')
  await failsIn(t, nasty, 'creating', 'ENOENT', nasty)
  t.same(readdirSync(folder), ['file'])
})

t.test('says so if the folder cannot be written to', { skip: isRoot && 'root may do everything' }, async (t) => {
  const directory = t.testdir()
  chmodSync(directory, 0o500)
  t.teardown(() => {
    chmodSync(directory, 0o700)
  })
  await failsIn(t, directory, 'creating', 'EACCES')
})

t.test('says so if the file cannot be created', async (t) => {
  const directory = t.testdir()
  patchPromises(t, { open: () => Promise.reject(systemError('EACCES')) })
  await failsIn(t, directory, 'creating', 'EACCES')
})

t.test('says so if the name cannot be taken away, and keeps nothing open', async (t) => {
  const directory = t.testdir()
  patchPromises(t, { unlink: () => Promise.reject(systemError('EPERM')) })
  await failsIn(t, directory, 'creating', 'EPERM')
  t.match(readdirSync(directory), [/^\.qcow2-\w+-\w+-\w+\.spool$/])
  if (!noDescriptors) t.same(openDescriptors(directory), [])
})

t.test('says so if it cannot be written, at once or after a while', async (t) => {
  for (const good of [0, 1]) {
    await t.test(`${good} chunks are written`, async (t) => {
      const directory = t.testdir()
      let writes = 0
      await patchHandles(
        t,
        'write',
        (original) =>
          function (...parameters) {
            return writes++ < good ? original.call(this, ...parameters) : Promise.reject(systemError('ENOSPC'))
          },
      )
      await failsIn(t, directory, 'writing', 'ENOSPC')
      isEmpty(t, directory)
    })
  }
})

t.test('writes on where the system has stopped', async (t) => {
  await patchHandles(
    t,
    'write',
    (original) =>
      function (...[bytes, from, length, place]) {
        return original.call(this, bytes, from, Math.min(length as number, 7), place)
      },
  )
  const content = pattern(1, 100)
  const file = await spooled(t.testdir(), new Chunks([content.subarray(0, 40), content.subarray(40), undefined]))
  const bytes = Buffer.alloc(100)
  await file.read(bytes, 0)
  t.ok(bytes.equals(content))
  await file.close()
})

t.test('writes a chunk of gigabytes in parts that Node takes', async (t) => {
  const writes: unknown[] = []
  await patchHandles(
    t,
    'write',
    () =>
      function (_bytes, from, bytesWritten, place) {
        writes.push([from, bytesWritten, place])
        return Promise.resolve({ bytesWritten })
      },
  )
  // Nobody touches its memory.
  const file = await spooled(t.testdir(), new Chunks([new Uint8Array(2 ** 31 + 5), undefined]))
  await file.close()
  t.same(writes, [
    [0, 2 ** 30, 0],
    [2 ** 30, 2 ** 30, 2 ** 30],
    [2 ** 31, 5, 2 ** 31],
  ])
})

t.test('of several errors the first one counts', async (t) => {
  const directory = t.testdir()
  const { open } = promises
  let isClosed = false
  patchPromises(t, {
    open: async (...parameters: Parameters<typeof open>): Promise<FileHandle> => {
      const handle = await open(...parameters)
      const close = handle.close.bind(handle)
      return Object.assign(handle, {
        stat: () => Promise.reject(lost),
        close: async () => {
          await close()
          isClosed = true
          throw systemError('EIO')
        },
      })
    },
  })
  t.equal(await rejection(t, spooled(directory, new Chunks([undefined]))), lost)
  t.ok(isClosed)
  isEmpty(t, directory)
})

t.test('keeps no chunk that it has written', async (t) => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const COUNT = 40
  const made: WeakRef<Uint8Array>[] = []
  const make = (): Uint8Array => {
    const chunk = new Uint8Array(1000)
    made.push(new WeakRef(chunk))
    return chunk
  }
  let alive = -1
  const chunks = {
    [Symbol.asyncIterator]: () => ({
      async next(): Promise<IteratorResult<unknown>> {
        // What was looked at in this turn of the event loop cannot be collected in it.
        await turns(2)
        if (made.length < COUNT) return { done: false, value: make() }
        collect()
        alive = made.filter((chunk) => chunk.deref() !== undefined).length
        return { done: true, value: undefined }
      },
    }),
  }
  const { signal } = new AbortController()
  const file = await spooled(t.testdir(), chunks, { signal })
  t.equal(file.size, COUNT * 1000)
  t.ok(alive >= 0 && alive <= 3, `${alive} of ${COUNT} chunks are still there`)
  await file.close()
})
