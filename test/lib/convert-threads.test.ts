// Conversions of images that are decoded in threads: the same file as without them, and nothing left when one ends early.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { convert, Qcow2FormatError, Qcow2SourceError, Qcow2UsageError } from '../../lib/index.js'
import { expectError, rejection } from '../fixtures/expect-error.js'
import { cannotCount, openDescriptors } from '../fixtures/open-descriptors.js'
import { patchHandles, systemError } from '../fixtures/patched-fs.js'
import { RecordingSource } from '../fixtures/recording-source.js'
import { CLUSTER, compressedDisk } from '../fixtures/thread-worthy.js'
import { runningThreads, startedThreads } from '../fixtures/worker-threads.js'
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

for (const blocking of [false, true]) {
  const how = blocking ? ', blocking' : ''
  t.test(`leaves no output, no thread and no open file when it ends early${how}`, { skip: cannotCount }, async (t) => {
    const folder = t.testdir({ images: { whole: '', damaged: '' } })
    const [whole, damaged, out] = ['images/whole', 'images/damaged', 'out'].map((name) => join(folder, name))
    writeFileSync(whole!, disk.bytes)
    writeFileSync(damaged!, compressedDisk('zlib', 350).bytes)
    await convert(whole!, out!, { threads: 0 })
    /** Nothing is there but what was before; threads, if some were started, have ended. */
    const nothingIsLeft = async (): Promise<void> => {
      t.same(readdirSync(folder).sort(), ['images', 'out'])
      t.ok(readFileSync(out!).equals(guest), 'the old output is as it was')
      t.same(openDescriptors(folder), [])
      await until(() => runningThreads() === 0)
    }
    // The first chunk, one by which threads have come, and one that they have decoded.
    for (const n of [1, 3, 5]) {
      const controller = new AbortController()
      const { signal } = controller
      const reason = new Error(`chunk ${n}`)
      let count = 0
      const onProgress = (): void => {
        if (++count === n) controller.abort(reason)
      }
      const threadsBefore = startedThreads()
      const options = { threads: 2, force: true, blocking }
      t.equal(await rejection(t, convert(whole!, out!, { ...options, signal, onProgress })), reason)
      t.ok(n < 5 || startedThreads() > threadsBefore, 'threads had started')
      await nothingIsLeft()
    }
    const threadsBefore = startedThreads()
    const failed = await rejection(t, convert(damaged!, out!, { threads: 2, force: true, blocking }))
    expectError(t, failed, Qcow2FormatError, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER', { guestOffset: 350 * CLUSTER })
    t.ok(startedThreads() > threadsBefore)
    await nothingIsLeft()
  })
}

t.test('a read that fails while threads decode leaves nothing either', async (t) => {
  const folder = t.testdir()
  const whole = new RecordingSource(disk.bytes)
  await convert(whole, join(folder, 'whole'), { threads: 2 })
  const threadsBefore = startedThreads()
  const source = new RecordingSource(disk.bytes, {
    beforeRead: (n) => {
      if (n === whole.reads.length - 1) throw new Error('EIO')
    },
  })
  const failed = await rejection(t, convert(source, join(folder, 'out'), { threads: 2 }))
  expectError(t, failed, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { layer: 'image from a source' })
  t.ok(startedThreads() > threadsBefore)
  t.equal(runningThreads(), 0)
  t.same(readdirSync(folder), ['whole'])
  t.same([source.closeCount, source.readsAfterClose], [1, 0])
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
    await until(() => runningThreads() === 0)
    t.equal(runningThreads(), 0)
  }
})

t.test('refuses a number of threads that is none', async (t) => {
  const error = await rejection(t, convert(disk.bytes, join(t.testdir(), 'out'), { threads: -1 }))
  expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'threads', actual: -1 })
})
