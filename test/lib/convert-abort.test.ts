// Ending a conversion: at any moment it rejects with the signal's reason, and leaves no trace but the old target.
import { execFileSync } from 'node:child_process'
import { getEventListeners } from 'node:events'
import { closeSync, constants, openSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { convert, type Qcow2ConvertOptions, type Qcow2Input } from '../../lib/index.js'
import { rejection } from '../fixtures/expect-error.js'
import { dataDisk, mixedDisk } from '../fixtures/mixed-disk.js'
import { cannotCount, openDescriptors } from '../fixtures/open-descriptors.js'
import { patchHandles } from '../fixtures/patched-fs.js'
import { RecordingSource } from '../fixtures/recording-source.js'
import { Gate, turns, until } from '../fixtures/turns.js'

const disk = mixedDisk()
const noFifo = process.platform === 'win32' ? 'Windows has no FIFOs' : false

/** Converts over an existing target, aborted by whatever calls `abort`; asserts that nothing is left. */
async function expectAborted(
  t: Test,
  folder: string,
  start: (abort: () => void) => { input: Qcow2Input; options?: Qcow2ConvertOptions },
): Promise<void> {
  const controller = new AbortController()
  const reason = new Error('changed my mind')
  const { input, options } = start(() => controller.abort(reason))
  const { signal } = controller
  const error = await rejection(t, convert(input, join(folder, 'out'), { force: true, ...options, signal }))
  t.equal(error, reason)
  t.same(readdirSync(folder), ['out'])
  t.ok(readFileSync(join(folder, 'out')).equals(Buffer.from('old')))
  t.same(getEventListeners(signal, 'abort'), [])
  if (cannotCount === false) t.same(openDescriptors(folder), [])
}

t.test('aborted in any read', async (t) => {
  const folder = t.testdir({ out: 'old' })
  const whole = new RecordingSource(disk.bytes)
  await convert(whole, '/dev/null')
  for (let n = 1; n <= whole.reads.length; n++) {
    let source: RecordingSource | undefined
    await expectAborted(t, folder, (abort) => {
      source = new RecordingSource(disk.bytes, {
        beforeRead: async (index) => {
          if (index === n) abort()
          await turns(1)
        },
      })
      return { input: source }
    })
    t.same({ closed: source?.closeCount, late: source?.readsAfterClose }, { closed: 1, late: 0 }, `read ${n}`)
  }
})

t.test('aborted at any progress', async (t) => {
  const folder = t.testdir({ out: 'old' })
  let total = 0
  await convert(disk.bytes, '/dev/null', { onProgress: () => (total += 1) })
  t.ok(total > 2)
  // At the last one everything is read, but not yet written.
  for (let n = 1; n <= total; n++) {
    for (const sparse of [true, false]) {
      let count = 0
      await expectAborted(t, folder, (abort) => ({
        input: disk.bytes,
        options: { sparse, onProgress: () => (++count === n ? abort() : undefined) },
      }))
    }
  }
})

t.test('aborted in any write, and waits for it', async (t) => {
  const folder = t.testdir({ out: 'old' })
  let count = 0
  let underWay = 0
  let abort: (() => void) | undefined
  let n = Infinity
  await patchHandles(
    t,
    'write',
    (original) =>
      async function (...parameters) {
        underWay += 1
        if (++count === n) abort?.()
        await turns(40)
        try {
          return await original.apply(this, parameters)
        } finally {
          underWay -= 1
        }
      },
  )
  for (const sparse of [true, false]) {
    n = Infinity
    count = 0
    await convert(disk.bytes, join(folder, 'out'), { sparse, force: true })
    const total = count
    const old = t.testdir({ out: 'old' })
    for (n = 1; n <= total; n++) {
      count = 0
      await expectAborted(t, old, (now) => {
        abort = now
        return { input: disk.bytes, options: { sparse } }
      })
      t.equal(underWay, 0, `write ${n} of ${total}`)
    }
  }
})

t.test('aborted before the call, touches neither input nor output', async (t) => {
  const folder = t.testdir({ out: 'old' })
  for (const reason of [new Error('no'), 'a word', 7]) {
    const source = new RecordingSource(disk.bytes)
    const signal = AbortSignal.abort(reason)
    t.equal(await rejection(t, convert(source, join(folder, 'out'), { force: true, signal })), reason)
    t.equal(source.reads.length, 0)
  }
  t.same(readdirSync(folder), ['out'])
})

t.test('rejects with the reason itself, also if that is no error', async (t) => {
  for (const reason of ['a word', 7, { some: 'object' }]) {
    const controller = new AbortController()
    const { signal } = controller
    const conversion = convert(disk.bytes, '/dev/null', { signal, onProgress: () => controller.abort(reason) })
    t.equal(await rejection(t, conversion), reason)
  }
  const controller = new AbortController()
  const { signal } = controller
  const error = await rejection(t, convert(disk.bytes, '/dev/null', { signal, onProgress: () => controller.abort() }))
  t.match(error, { name: 'AbortError' })
})

t.test('aborted afterwards, changes nothing', async (t) => {
  const controller = new AbortController()
  const path = join(t.testdir(), 'out')
  await convert(disk.bytes, path, { signal: controller.signal })
  t.same(getEventListeners(controller.signal, 'abort'), [])
  controller.abort()
  await turns(5)
  t.ok(readFileSync(path).equals(disk.guest))
})

t.test('aborted while a FIFO has no reader', { skip: noFifo }, async (t) => {
  const fifo = join(t.testdir(), 'fifo')
  execFileSync('mkfifo', [fifo])
  const controller = new AbortController()
  const source = new RecordingSource(disk.bytes)
  const conversion = rejection(t, convert(source, fifo, { signal: controller.signal }))
  await until(() => source.reads.length > 0)
  await turns(50)
  const reason = new Error('nobody comes')
  controller.abort(reason)
  t.equal(await conversion, reason)
  t.equal(source.closeCount, 1)
})

t.test('aborted while the reader of a FIFO does not read', { skip: noFifo }, async (t) => {
  const fifo = join(t.testdir(), 'fifo')
  execFileSync('mkfifo', [fifo])
  const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK)
  t.teardown(() => closeSync(reader))
  const controller = new AbortController()
  const reason = new Error('too slow')
  const source = new RecordingSource(dataDisk(64).bytes)
  const started = new Gate()
  const { signal } = controller
  const conversion = rejection(t, convert(source, fifo, { signal, onProgress: () => started.open() }))
  await started.opened
  await turns(50)
  controller.abort(reason)
  t.equal(await conversion, reason)
  t.equal(source.closeCount, 1)
  if (cannotCount === false) t.same(openDescriptors(fifo), [reader])
})
