// A sparse file that cannot be written: the error says where, nothing is finished, and nothing goes on behind it.
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { Qcow2SinkError } from '../../../lib/index.js'
import { SparseWriteStream } from '../../../lib/sink/sparse-write-stream.js'
import { expectError } from '../../fixtures/expect-error.js'
import { FakeHandle, type FakeHandleOptions } from '../../fixtures/fake-handle.js'
import { dataChunk, feed, zeroChunk, type TestChunk } from '../../fixtures/guest-chunks.js'
import { patchFs, systemError } from '../../fixtures/patched-fs.js'
import { pattern } from '../../fixtures/patterns.js'
import { Gate, turns, until } from '../../fixtures/turns.js'

const LENGTH = 10 * 16_384

function setUp(
  options: FakeHandleOptions,
  isSparse = true,
): { fake: FakeHandle; sink: SparseWriteStream; chunks: TestChunk[]; hasFinished: () => boolean } {
  const fake = new FakeHandle(options)
  const sink = new SparseWriteStream({
    handle: fake.handle,
    path: 'some/out',
    guestStart: 0,
    length: LENGTH,
    isSparse,
    isBlocking: false,
  })
  const chunks = Array.from({ length: 10 }, (_, i) =>
    dataChunk(i * 16_384, Buffer.concat([pattern(i, 4096), Buffer.alloc(4096), pattern(i, 8192)])),
  )
  let hasFinished = false
  sink.on('finish', () => (hasFinished = true))
  return { fake, sink, chunks, hasFinished: () => hasFinished }
}

t.test('fails with the error of the n-th write, for every n', async (t) => {
  for (const isSparse of [true, false]) {
    const whole = setUp({}, isSparse)
    t.same(await feed(whole.sink, whole.chunks), [])
    const count = whole.fake.writes.length
    t.ok(count >= 10)
    for (let n = 1; n <= count; n++) {
      const cause = systemError('ENOSPC')
      const { fake, sink, chunks, hasFinished } = setUp(
        {
          beforeWrite: async (index) => {
            await turns(index % 3)
            if (index === n) throw cause
          },
        },
        isSparse,
      )
      const errors = await feed(sink, chunks)
      t.equal(errors.length, 1, `write ${n} of ${count}`)
      expectError(t, errors[0], Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', {
        layer: 'some/out',
        hostOffset: fake.writes[n - 1]?.position,
        cause,
      })
      t.equal(hasFinished(), false)
      t.same(fake.truncations, whole.fake.truncations, 'the length was set at the beginning')
      t.equal(fake.underWay, 0, 'no write is under way once it is closed')
    }
  }
})

t.test('says where a write failed that came short before', async (t) => {
  const cause = systemError('EFBIG')
  const { sink, chunks } = setUp({
    mostBytes: 1000,
    beforeWrite: (n) => {
      if (n === 3) throw cause
    },
  })
  const [error] = await feed(sink, chunks.slice(0, 1))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { hostOffset: 2000, cause })
})

t.test('fails when the system takes no byte, rather than try for ever', async (t) => {
  const { fake, sink, chunks } = setUp({ mostBytes: 0 })
  const [error] = await feed(sink, chunks.slice(0, 1))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { hostOffset: 0 })
  t.equal(fake.writes.length, 1)
})

t.test('does not give back the memory of a write that failed', async (t) => {
  const { sink, chunks } = setUp({
    beforeWrite: (_n, position) => {
      if (position === 0) throw systemError('EIO')
    },
  })
  await feed(sink, chunks)
  t.equal(chunks[0]?.released, 0)
})

t.test('fails when zeros that must be written cannot be', async (t) => {
  const cause = systemError('ENOSPC')
  const { sink, hasFinished } = setUp(
    {
      beforeWrite: (n) => {
        if (n === 2) throw cause
      },
    },
    false,
  )
  const errors = await feed(sink, [zeroChunk(0, 3 * 2 ** 20)])
  t.equal(errors.length, 1)
  expectError(t, errors[0], Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: 'some/out', hostOffset: 2 ** 20, cause })
  t.equal(hasFinished(), false)
})

t.test('fails when the length cannot be set', async (t) => {
  const cause = systemError('EFBIG')
  const { sink, chunks, hasFinished } = setUp({ truncateError: cause })
  const errors = await feed(sink, chunks)
  t.equal(errors.length, 1)
  expectError(t, errors[0], Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: 'some/out', cause })
  t.equal(hasFinished(), false)
})

t.test('fails when the very last write fails after all chunks were taken', async (t) => {
  const gate = new Gate()
  const { fake, sink, chunks, hasFinished } = setUp({ beforeWrite: () => gate.opened })
  const done = feed(sink, chunks.slice(0, 1))
  await until(() => fake.underWay === 1)
  await turns(5)
  const cause = systemError('EIO')
  gate.fail(cause)
  const errors = await done
  t.equal(errors.length, 1)
  expectError(t, errors[0], Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { hostOffset: 0, cause })
  t.equal(hasFinished(), false)
})

t.test('when destroyed, waits for the writes under way before it closes, and begins no other', async (t) => {
  const gate = new Gate()
  const { fake, sink, chunks } = setUp({ beforeWrite: () => gate.opened })
  for (const chunk of chunks.slice(0, 3)) sink.write(chunk)
  await until(() => fake.underWay >= 1)
  const begun = fake.writes.length
  const reason = new Error('enough')
  const errors: unknown[] = []
  sink.on('error', (error) => errors.push(error))
  sink.destroy(reason)
  await turns(20)
  t.equal(sink.closed, false)
  gate.open()
  await until(() => sink.closed)
  t.equal(fake.underWay, 0)
  t.same(errors, [reason])
  t.ok(fake.writes.length <= begun * 2, 'a chunk that was begun may be ended')
})

t.test('when destroyed amid a long run of zeros, stops writing them and closes after the write', async (t) => {
  const gate = new Gate()
  const { fake, sink } = setUp({ beforeWrite: () => gate.opened }, false)
  sink.write(zeroChunk(0, 2 ** 50))
  await until(() => fake.underWay === 1)
  sink.destroy()
  await turns(20)
  t.equal(sink.closed, false, 'a write is under way')
  gate.open()
  await until(() => sink.closed)
  await turns(20)
  t.equal(fake.writes.length, 1)
  t.equal(fake.underWay, 0)
})

t.test('fails with the error of a write that blocks, and writes nothing more', async (t) => {
  t.testdir()
  for (const isSparse of [true, false]) {
    for (const [n, position] of [
      [1, 0],
      [4, isSparse ? 24_576 : 3 * 16_384],
    ] as const) {
      const handle = await open(join(t.testdirName, `out-${isSparse}-${n}`), 'wx')
      t.teardown(() => handle.close())
      const cause = systemError('ENOSPC')
      let writes = 0
      await t.test(`write ${n}`, async (t) => {
        patchFs(t, {
          writeSync: (_fd: number, _bytes: Uint8Array, _at: number, length: number) => {
            writes += 1
            if (writes === n) throw cause
            return length
          },
        })
        const { chunks } = setUp({})
        const sink = new SparseWriteStream({
          handle,
          path: 'some/out',
          guestStart: 0,
          length: LENGTH,
          isSparse,
          isBlocking: true,
        })
        const errors = await feed(sink, chunks)
        t.equal(errors.length, 1)
        expectError(t, errors[0], Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', {
          layer: 'some/out',
          hostOffset: position,
          cause,
        })
        t.equal(writes, n)
      })
    }
  }
})

t.test('when destroyed amid a long run of zeros that are written while the thread waits, stops', async (t) => {
  t.testdir()
  const handle = await open(join(t.testdirName, 'out'), 'wx')
  t.teardown(() => handle.close())
  const length = 64 * 2 ** 20
  const sink = new SparseWriteStream({
    handle,
    path: 'out',
    guestStart: 0,
    length,
    isSparse: false,
    isBlocking: true,
  })
  sink.write(zeroChunk(0, length))
  await until(() => sink.bytesWritten > 0)
  sink.destroy()
  await until(() => sink.closed)
  t.ok(sink.bytesWritten < length, `${sink.bytesWritten} bytes were written`)
})
