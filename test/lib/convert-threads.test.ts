// Conversions of images that are decoded in threads: the same file as without them, and nothing left when one ends early.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { convert, Qcow2FormatError, Qcow2UsageError } from '../../lib/index.js'
import { expectError, rejection } from '../fixtures/expect-error.js'
import { patchHandles, systemError } from '../fixtures/patched-fs.js'
import { cannotCountThreads, CLUSTER, compressedDisk, threadCount } from '../fixtures/thread-worthy.js'
import { startedThreads } from '../fixtures/worker-threads.js'
import { turns, until } from '../fixtures/turns.js'

const disk = compressedDisk('zlib')
const { guest } = disk

t.test('writes the same bytes, whole or in part, with holes or without', async (t) => {
  const out = join(t.testdir(), 'out')
  await convert(disk.bytes, out, { threads: 2 })
  t.ok(readFileSync(out).equals(guest), 'zlib')
  t.equal(startedThreads(), 2)
  const zstd = compressedDisk('zstd')
  await convert(zstd.bytes, out, { threads: 3, start: 12_345, end: 24_000_000, force: true, sparse: false })
  t.ok(readFileSync(out).equals(zstd.guest.subarray(12_345, 24_000_001)), 'zstd')
  const started = startedThreads()
  t.ok(started > 2 && started <= 5, `${started} threads`)
  await convert(zstd.bytes, out, { threads: 2, end: 4_000_000, force: true })
  t.ok(readFileSync(out).equals(zstd.guest.subarray(0, 4_000_001)), 'a part that is not worth threads')
  t.equal(startedThreads(), started)
})

t.test('writes the same bytes when writes are slower than decoding', async (t) => {
  await patchHandles(
    t,
    'write',
    (original) =>
      async function (...parameters) {
        await turns(30)
        return original.apply(this, parameters)
      },
  )
  // Long enough for memory to be used again while earlier runs are still written from theirs.
  const long = compressedDisk('zlib', undefined, 1024)
  const out = join(t.testdir(), 'out')
  await convert(long.bytes, out, { threads: 2 })
  t.ok(readFileSync(out).equals(long.guest))
})

t.test('leaves no output and no thread when it ends early', { skip: cannotCountThreads }, async (t) => {
  const folder = t.testdir()
  const out = join(folder, 'out')
  await convert(disk.bytes, out, { threads: 0 })
  const threadsBefore = threadCount()
  const damaged = compressedDisk('zlib', 350)
  // The first chunk, one by which threads have come, and one that they have decoded.
  for (const n of [1, 3, 5]) {
    const controller = new AbortController()
    const { signal } = controller
    const reason = new Error(`chunk ${n}`)
    let count = 0
    const onProgress = (): void => {
      if (++count === n) controller.abort(reason)
    }
    t.equal(await rejection(t, convert(disk.bytes, out, { threads: 2, force: true, signal, onProgress })), reason)
    const failed = await rejection(t, convert(damaged.bytes, out, { threads: 2, force: true }))
    expectError(t, failed, Qcow2FormatError, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER', { guestOffset: 350 * CLUSTER })
    t.same(readdirSync(folder), ['out'])
    t.ok(readFileSync(out).equals(guest), 'the old output is as it was')
    await until(() => threadCount() <= threadsBefore)
  }
})

t.test('rejects with the error of a write, be it the first or the last', async (t) => {
  const folder = t.testdir()
  let count = 0
  let failing = Infinity
  const cause = systemError('ENOSPC')
  await patchHandles(
    t,
    'write',
    (original) =>
      function (...parameters) {
        return ++count === failing ? Promise.reject(cause) : original.apply(this, parameters)
      },
  )
  await convert(disk.bytes, join(folder, 'whole'), { threads: 2 })
  const total = count
  for (const n of [1, total]) {
    failing = n
    count = 0
    const error = await rejection(t, convert(disk.bytes, join(folder, 'out'), { threads: 2 }))
    t.equal((error as Error).cause, cause, `write ${n} of ${total}`)
    t.same(readdirSync(folder), ['whole'])
  }
})

t.test('refuses a number of threads that is none', async (t) => {
  const error = await rejection(t, convert(disk.bytes, join(t.testdir(), 'out'), { threads: -1 }))
  expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'threads', actual: -1 })
})
