// Pipes, devices and descriptors: written in order, waited for, refused with reasons; what was handed in stays open.
import fs, {
  closeSync,
  constants,
  createReadStream,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { Qcow2SinkError } from '../../../lib/index.js'
import { openSequential } from '../../../lib/sink/sequential-output.js'
import { bytesOf } from '../../fixtures/consume.js'
import { causeCode, expectError, rejection } from '../../fixtures/expect-error.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { makeFifo } from '../../fixtures/fifo.js'
import { patchFs, systemError } from '../../fixtures/patched-fs.js'
import { pattern } from '../../fixtures/patterns.js'
import { Gate, turns } from '../../fixtures/turns.js'

const noFifo = process.platform === 'win32' ? 'Windows has no FIFOs' : false
const noFull = existsSync('/dev/full') ? false : 'there is no /dev/full'
const noTerminal = existsSync('/dev/ptmx') ? false : 'there is no /dev/ptmx'

t.test('waits for the reader of a FIFO, however late it comes', { skip: noFifo }, async (t) => {
  const path = makeFifo(t)
  const opening = openSequential(path, 0)
  let isOpen = false
  void opening.then(() => (isOpen = true))
  await turns(100)
  t.equal(isOpen, false)
  const read = bytesOf(createReadStream(path))
  const output = await opening
  const bytes = pattern(1, 300_000)
  await output.write(bytes.subarray(0, 100_000))
  await output.write(bytes.subarray(100_000))
  await output.close()
  t.ok((await read).equals(bytes), 'the reader sees the end')
  if (cannotCount === false) t.same(openDescriptors(path), [])
})

t.test('stops waiting for a reader when it is aborted, with the reason', { skip: noFifo }, async (t) => {
  const path = makeFifo(t)
  const reason = new Error('nobody comes')
  for (const abortAfter of [0, 1, 100]) {
    const controller = new AbortController()
    const opening = rejection(t, openSequential(path, 0, { signal: controller.signal }))
    await turns(abortAfter)
    controller.abort(reason)
    t.equal(await opening, reason)
  }
  const waiting = rejection(t, openSequential(path, 0, { signal: AbortSignal.abort(reason) }))
  t.equal(await waiting, reason)
  if (cannotCount === false) t.same(openDescriptors(path), [])
})

t.test('fails with EPIPE when the reader of a FIFO goes away', { skip: noFifo }, async (t) => {
  const path = makeFifo(t)
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const output = await openSequential(path, 0)
  await output.write(pattern(1, 1000))
  closeSync(reader)
  const error = await rejection(t, output.write(pattern(2, 500)))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: path, hostOffset: 1000 })
  t.equal(causeCode(error), 'EPIPE')
  await output.close()
  if (cannotCount === false) t.same(openDescriptors(path), [])
})

t.test('can be closed while a pipe takes nothing', { skip: noFifo }, async (t) => {
  const path = makeFifo(t)
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  t.teardown(() => closeSync(reader))
  const output = await openSequential(path, 0)
  const stuck = rejection(t, output.write(Buffer.alloc(4 * 2 ** 20)))
  await turns(20)
  await output.close()
  expectError(t, await stuck, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: path })
  if (cannotCount === false) t.same(openDescriptors(path), [reader])
})

t.test('says that a device is full', { skip: noFull }, async (t) => {
  const output = await openSequential('/dev/full', 0)
  const error = await rejection(t, output.write(pattern(1, 100)))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: '/dev/full', hostOffset: 0 })
  t.equal(causeCode(error), 'ENOSPC')
  await output.close()
  if (cannotCount === false) t.same(openDescriptors('/dev/full'), [])
})

t.test('writes to a terminal that is not a standard one', { skip: noTerminal }, async (t) => {
  const output = await openSequential('/dev/ptmx', 0)
  await t.resolves(output.write(Buffer.from('x')))
  await output.close()
  if (cannotCount === false) t.same(openDescriptors('/dev/ptmx'), [])
})

t.test('writes to a file from where its descriptor stands, and leaves it open', async (t) => {
  const path = join(t.testdir({ out: 'head and what follows' }), 'out')
  const fd = openSync(path, 'r+')
  t.teardown(() => closeSync(fd))
  writeSync(fd, 'HEAD')
  const output = await openSequential(fd, 0)
  await output.write(Buffer.from(' was'))
  await output.write(Buffer.from(' me'))
  await output.close()
  t.ok(fstatSync(fd).isFile(), 'it is open')
  t.equal(readFileSync(path, 'utf8'), 'HEAD was meat follows')
})

t.test('writes to a pipe that is handed in, and leaves it open', { skip: noFifo }, async (t) => {
  const path = makeFifo(t)
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  const read = bytesOf(createReadStream(path))
  for (const round of [1, 2]) {
    const output = await openSequential(fd, 0)
    await output.write(pattern(round, 200_000))
    await output.close()
    t.ok(fstatSync(fd).isFIFO(), 'it is open')
  }
  closeSync(fd)
  t.ok((await read).equals(Buffer.concat([pattern(1, 200_000), pattern(2, 200_000)])))
})

/** Replaces `fs.write` by one that the test answers. */
function patchWrite(t: Test, answer: (length: number) => number | Promise<number>): void {
  const write = async (fd: number, bytes: Uint8Array, offset: number, length: number): Promise<object> => {
    const bytesWritten = await answer(length)
    fs.writeSync(fd, bytes, offset, bytesWritten)
    return { bytesWritten, buffer: bytes }
  }
  patchFs(t, { write: Object.assign(() => {}, { [promisify.custom]: write }) })
}

t.test('goes on where a write came short, and says where it failed', async (t) => {
  const path = join(t.testdir({ out: '' }), 'out')
  const fd = openSync(path, 'r+')
  t.teardown(() => closeSync(fd))
  const cause = systemError('EIO')
  let count = 0
  patchWrite(t, async (length) => {
    if (++count === 4) throw cause
    return Math.min(length, 10)
  })
  const output = await openSequential(fd, 0)
  await output.write(pattern(1, 15))
  t.ok(readFileSync(path).equals(pattern(1, 15)))
  const error = await rejection(t, output.write(pattern(2, 15)))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', {
    layer: `file descriptor ${fd}`,
    hostOffset: 25,
    cause,
  })
  await output.close()
})

t.test('is closed only when the write under way has ended, for whoever owns the descriptor may close it', async (t) => {
  const fd = openSync(join(t.testdir({ out: '' }), 'out'), 'r+')
  t.teardown(() => closeSync(fd))
  const gate = new Gate()
  patchWrite(t, async (length) => {
    await gate.opened
    return length
  })
  const output = await openSequential(fd, 0)
  const events: string[] = []
  const written = output.write(pattern(1, 100)).then(() => events.push('written'))
  const closed = output.close().then(() => events.push('closed'))
  await turns(20)
  gate.open()
  await Promise.all([written, closed])
  t.same(events, ['written', 'closed'])
})

t.test('cannot be opened where there is nothing, or no right to', async (t) => {
  const folder = t.testdir()
  const missing = join(folder, 'missing')
  const error = await rejection(t, openSequential(missing, 0))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: missing })
  t.equal(causeCode(error), 'ENOENT')
  const closed = openSync(folder, 'r')
  closeSync(closed)
  const other = await rejection(t, openSequential(closed, 0))
  expectError(t, other, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: `file descriptor ${closed}` })
  t.equal(causeCode(other), 'EBADF')
})

t.test('says so when closing fails, and closes once, however often it is told to', { skip: noFull }, async (t) => {
  const cause = systemError('EIO')
  let count = 0
  const { close } = fs
  patchFs(t, {
    close: (fd: number, callback: (error: Error) => void) => {
      count += 1
      close(fd, () => callback(cause))
    },
  })
  const output = await openSequential('/dev/null', 0)
  await output.write(pattern(1, 10))
  for (let i = 0; i < 2; i++) {
    const error = await rejection(t, output.close())
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: '/dev/null', cause })
  }
  t.equal(count, 1)
})

t.test('closes what it opened if it then cannot be used', async (t) => {
  const path = join(t.testdir({ out: '' }), 'out')
  const cause = systemError('EIO')
  patchFs(t, { fstat: Object.assign(() => {}, { [promisify.custom]: () => Promise.reject(cause) }) })
  const error = await rejection(t, openSequential(path, 0))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: path, cause })
  if (cannotCount === false) t.same(openDescriptors(path), [])
})
