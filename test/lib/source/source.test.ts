/**
 * The host file on top of a source: exact reads whatever the source does, errors that say where, an orderly end.
 */
import t from 'tap'
import { Qcow2SourceError, Qcow2UsageError } from '../../../lib/errors.js'
import { openSource } from '../../../lib/source/open-source.js'
import { HostFile, type Qcow2Source } from '../../../lib/source/source.js'
import { causeCode, expectError, rejection } from '../../fixtures/expect-error.js'
import { pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { Gate, turns } from '../../fixtures/turns.js'

const sourceThat = (read: Qcow2Source['read'], size = 1000): Qcow2Source => ({
  size,
  read,
  close: () => Promise.resolve(),
})

t.test('asks again after a short read, for what is missing', async (t) => {
  const bytes = pattern(1, 1000)
  const source = new RecordingSource(bytes, { mostBytes: 300 })
  const file = await openSource(source)
  const target = Buffer.alloc(700)
  await file.read(target, 100)
  t.strictSame(target, bytes.subarray(100, 800))
  t.strictSame(source.reads, [
    { offset: 100, length: 700 },
    { offset: 400, length: 400 },
    { offset: 700, length: 100 },
  ])
})

t.test('never asks for bytes past the size', async (t) => {
  const source = new RecordingSource(pattern(1, 1000))
  const file = await openSource(source)
  await file.read(Buffer.alloc(600), 500)
  await file.read(Buffer.alloc(600), 1000)
  await file.read(Buffer.alloc(0), 10)
  t.strictSame(source.reads, [{ offset: 500, length: 500 }])
})

t.test('refuses what a source may not return, with the place', async (t) => {
  const returned: [value: unknown, says: RegExp][] = [
    [0, /the file ended, though its size is 1000/],
    [-1, /the source returned -1/],
    [101, /the source returned 101/],
    [1.5, /the source returned 1.5/],
    [NaN, /the source returned NaN/],
    [Infinity, /the source returned Infinity/],
    [undefined, /the source returned undefined/],
    [null, /the source returned null/],
    ['10', /the source returned 10/],
    [10n, /the source returned 10/],
    [{ bytesRead: 10 }, /the source returned \[object Object\]/],
  ]
  for (const [value, says] of returned) {
    const file = await openSource(sourceThat(() => Promise.resolve(value as number)))
    const error = await rejection(t, file.read(Buffer.alloc(100), 0x1f0))
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', {
      layer: 'image from a source',
      hostOffset: 0x1f0,
      cause: undefined,
    })
    t.match((error as Error).message, /reading 100 bytes at host offset 0x1f0: /)
    t.match((error as Error).message, says)
  }
})

t.test('reports a file that has shrunk at the offset where it ended', async (t) => {
  const source = new RecordingSource(pattern(1, 300))
  const file = await openSource({
    size: 1000,
    read: (target: Uint8Array, offset: number) => source.read(target, offset),
    close: () => Promise.resolve(),
  })
  const error = await rejection(t, file.read(Buffer.alloc(200), 200))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { hostOffset: 300 })
})

t.test('carries the cause of a failing read, thrown, rejected or odd', async (t) => {
  const cause = Object.assign(new Error('EIO: i/o error\n\u001b[31mread'), { code: 'EIO' })
  const failing: Qcow2Source['read'][] = [
    () => Promise.reject(cause),
    () => {
      throw cause
    },
  ]
  for (const read of failing) {
    const file = await openSource(sourceThat(read))
    const error = await rejection(t, file.read(Buffer.alloc(10), 5))
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', {
      layer: 'image from a source',
      hostOffset: 5,
      cause,
    })
    t.equal(causeCode(error), 'EIO')
    t.match((error as Error).message, /: EIO: i\/o error\\n/)
  }
  for (const cause of [null, 'a word', 7] as unknown[]) {
    const file = await openSource(sourceThat(() => Promise.reject(cause)))
    const error = await rejection(t, file.read(Buffer.alloc(10), 5))
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { hostOffset: 5, cause })
  }
})

t.test('goes on after a read that failed', async (t) => {
  const bytes = pattern(1, 100)
  const source = new RecordingSource(bytes, {
    beforeRead: (n) => {
      if (n === 1) throw new Error('just once')
    },
  })
  const file = await openSource(source)
  const target = Buffer.alloc(100)
  await t.rejects(file.read(target, 0), { code: 'ERR_QCOW2_READ_FAILED' })
  await file.read(target, 0)
  t.strictSame(target, bytes)
  await file.close()
  t.equal(source.closeCount, 1)
})

t.test('refuses a size that cannot be', async (t) => {
  for (const size of [-1, 0.5, NaN, Infinity, 2 ** 53, 10n, '10', undefined, null]) {
    const source = { ...sourceThat(() => Promise.resolve(0)), size: size as number }
    expectError(t, await rejection(t, openSource(source)), Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', {
      layer: 'image from a source',
      field: 'size',
      actual: size,
    })
  }
  const file = await openSource(sourceThat(() => Promise.resolve(0), 2 ** 53 - 1))
  t.equal(file.size, 2 ** 53 - 1)
})

t.test('asks for the size once', async (t) => {
  let asked = 0
  const file = await openSource({
    get size() {
      asked += 1
      return asked * 100
    },
    read: (target: Uint8Array) => Promise.resolve(target.fill(7).length),
    close: () => Promise.resolve(),
  })
  t.equal(file.size, 100)
  const target = Buffer.alloc(110)
  await file.read(target, 0)
  t.strictSame(target, Buffer.concat([Buffer.alloc(100, 7), Buffer.alloc(10)]))
  t.equal(asked, 1)
})

t.test('closes the source when the reads under way have ended, also those that need several steps', async (t) => {
  const gate = new Gate()
  const source = new RecordingSource(pattern(1, 100), { mostBytes: 60, beforeRead: () => gate.opened })
  const file = await openSource(source)
  const target = Buffer.alloc(100)
  const reading = file.read(target, 0)
  const closing = Promise.all([file.close(), file.close()])
  await turns(5)
  t.equal(source.closeCount, 0, 'a read is under way')
  const late = await rejection(t, file.read(Buffer.alloc(1), 0))
  expectError(t, late, Qcow2UsageError, 'ERR_QCOW2_CLOSED', { layer: 'image from a source' })
  gate.open()
  await reading
  t.strictSame(target, pattern(1, 100), 'it ends as if nothing had been closed')
  await closing
  t.strictSame([source.closeCount, source.readsAfterClose], [1, 0])
})

t.test('closes although a read under way fails', async (t) => {
  const gate = new Gate()
  const source = new RecordingSource(pattern(1, 100), { beforeRead: () => gate.opened })
  const file = await openSource(source)
  const reading = rejection(t, file.read(Buffer.alloc(10), 0))
  const closing = file.close()
  gate.fail(new Error('gone'))
  expectError(t, await reading, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { hostOffset: 0 })
  await closing
  t.equal(source.closeCount, 1)
})

t.test('reports a source that cannot be closed, each time it is asked', async (t) => {
  const cause = new Error('EIO: close')
  let closeCount = 0
  const close: Qcow2Source['close'] = () => {
    closeCount += 1
    throw cause
  }
  const file = new HostFile({ size: 0, read: () => Promise.resolve(0), close }, { label: 'odd\u202ename\n' })
  for (let i = 0; i < 2; i++) {
    const error = await rejection(t, file.close())
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { layer: 'odd\u202ename\n', cause })
    t.match((error as Error).message, /^"odd\\u202ename\\n": closing: EIO: close$/)
  }
  t.equal(closeCount, 1)
})

t.test('closes a source that it refuses', async (t) => {
  const source = Object.assign(new RecordingSource(pattern(1, 10)), { size: -1 })
  await t.rejects(openSource(source), { code: 'ERR_QCOW2_BAD_ARGUMENT' })
  t.equal(source.closeCount, 1, 'as it does when opening the image fails for another reason')
})
