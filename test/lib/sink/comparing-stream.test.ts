// Reading an output back: what is equal passes, whatever is not is found where it is, and no read outlives the stream.
import { once } from 'node:events'
import { ftruncateSync, type Stats } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Qcow2SinkError, type GuestChunk } from '../../../lib/index.js'
import { ComparingStream, type WrittenOutput } from '../../../lib/sink/comparing-stream.js'
import { openHoleMap } from '../../../lib/source/holes.js'
import { expectError } from '../../fixtures/expect-error.js'
import { dataChunk, feed, zeroChunk } from '../../fixtures/guest-chunks.js'
import { systemError } from '../../fixtures/patched-fs.js'
import { pattern } from '../../fixtures/patterns.js'
import { Gate, settling, turns, until } from '../../fixtures/turns.js'

const MIB = 2 ** 20

/** A file of so many bytes, all zeros but for the parts, which are written at their offsets. */
async function fileOf(t: Test, length: number, parts: readonly [number, Uint8Array][]): Promise<FileHandle> {
  const handle = await open(join(t.testdir(), 'out'), 'wx+')
  t.teardown(() => handle.close())
  ftruncateSync(handle.fd, length)
  for (const [offset, bytes] of parts) await handle.write(bytes, 0, bytes.length, offset)
  return handle
}

/** The part of a handle that is needed; any of it can be replaced. */
function wrap(handle: FileHandle, replaced: Partial<Record<'read' | 'stat' | 'sync', unknown>> = {}): Handle {
  return {
    fd: handle.fd,
    read: handle.read.bind(handle),
    stat: handle.stat.bind(handle),
    sync: handle.sync.bind(handle),
    ...replaced,
  } as unknown as Handle
}

type Handle = WrittenOutput['handle']

/** What comparing fails with; undefined if all is equal. */
async function compare(
  handle: Handle,
  length: number,
  chunks: readonly GuestChunk[],
  guestStart = 0,
): Promise<unknown> {
  const errors = await feed(new ComparingStream({ handle, path: 'out', guestStart, length }), chunks)
  t.ok(errors.length <= 1)
  return errors[0]
}

t.test('passes what is equal, and gives it back', async (t) => {
  const [first, second] = [pattern(1, 9 * MIB), pattern(2, 1000)]
  const length = 9 * MIB + 70_000 + 1000 + 5 * MIB
  const handle = await fileOf(t, length, [
    [0, first],
    [9 * MIB + 70_000, second],
    // Written zeros are as good as holes.
    [length - 2 * MIB, Buffer.alloc(MIB)],
  ])
  for (const guestStart of [0, 2 ** 45 + 12_345]) {
    const chunks = [
      dataChunk(guestStart, first),
      zeroChunk(guestStart + 9 * MIB, 70_000),
      dataChunk(guestStart + 9 * MIB + 70_000, second),
      zeroChunk(guestStart + length - 5 * MIB, 5 * MIB),
    ]
    t.equal(await compare(wrap(handle), length, chunks, guestStart), undefined)
    t.same(
      chunks.map((chunk) => chunk.kind === 'data' && chunk.released),
      [1, false, 1, false],
    )
  }
  const empty = await fileOf(t, 0, [])
  t.equal(await compare(wrap(empty), 0, []), undefined)
})

t.test('passes what comes back in small pieces', async (t) => {
  const bytes = pattern(1, 10_000)
  const handle = await fileOf(t, 20_000, [[0, bytes]])
  let reads = 0
  const read = (buffer: Uint8Array, offset: number, length: number, position: number): Promise<unknown> => {
    reads += 1
    return handle.read(buffer, offset, Math.min(length, 999), position)
  }
  t.equal(await compare(wrap(handle, { read }), 20_000, [dataChunk(0, bytes), zeroChunk(10_000, 10_000)]), undefined)
  t.equal(reads, 22)
})

t.test('reads no holes, if the file system tells of them', async (t) => {
  const TIB = 2 ** 40
  const bytes = pattern(1, 65_536)
  const handle = await fileOf(t, 3 * TIB, [[TIB, bytes]])
  const { blocks } = await handle.stat()
  if ((await openHoleMap(handle.fd, 3 * TIB - blocks * 512)) === undefined) {
    t.comment('nobody can be asked for holes here')
    return
  }
  let bytesRead = 0
  const read = (buffer: Uint8Array, offset: number, length: number, position: number): Promise<unknown> => {
    bytesRead += length
    return handle.read(buffer, offset, length, position)
  }
  const chunks = [zeroChunk(0, TIB), dataChunk(TIB, bytes), zeroChunk(TIB + 65_536, 2 * TIB - 65_536)]
  t.equal(await compare(wrap(handle, { read }), 3 * TIB, chunks), undefined)
  t.equal(bytesRead, 65_536)
  // What is no hole any more is read.
  await handle.write(Buffer.from([7]), 0, 1, 2 * TIB + 5)
  const error = await compare(wrap(handle, { read }), 3 * TIB, chunks)
  const offset = 2 * TIB + 5
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_VERIFY_FAILED', {
    hostOffset: offset,
    guestOffset: offset,
    actual: 7,
  })
})

t.test('finds the first byte that differs, wherever it is', async (t) => {
  const bytes = pattern(1, 6 * MIB)
  const [start, dataAt, length] = [4096 * 5, MIB, 12 * MIB]
  const handle = await fileOf(t, length, [[dataAt, bytes]])
  const places = [0, MIB - 1, MIB, MIB + 1, 5 * MIB - 1, 5 * MIB, 7 * MIB - 1, 7 * MIB, 11 * MIB - 1, length - 1]
  for (const [index, at] of places.entries()) {
    const chunks = [
      zeroChunk(start, dataAt),
      dataChunk(start + dataAt, bytes),
      zeroChunk(start + dataAt + bytes.length, length - dataAt - bytes.length),
    ]
    const right = Buffer.alloc(1)
    await handle.read(right, 0, 1, at)
    const wrong = right[0]! ^ (1 << (index % 8))
    await handle.write(Buffer.from([wrong]), 0, 1, at)
    // One more, later: the first one counts.
    const later = Buffer.alloc(1)
    if (at < length - 1) {
      await handle.read(later, 0, 1, length - 1)
      await handle.write(Buffer.from([1]), 0, 1, length - 1)
    }
    const error = await compare(wrap(handle), length, chunks, start)
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_VERIFY_FAILED', {
      layer: 'out',
      hostOffset: at,
      guestOffset: start + at,
      actual: wrong,
    })
    const [offset, guestOffset] = [at, start + at].map((value) => `0x${value.toString(16)}`)
    const [found, wanted] = [wrong, right[0]!].map((value) => `0x${value.toString(16)}`)
    t.equal(
      (error as Error).message,
      `"out": read back after it was written, the byte at offset ${offset}, guest offset ${guestOffset}, is ${found}, not ${wanted}`,
    )
    t.equal(chunks[1]?.kind === 'data' && chunks[1].released, at >= 7 * MIB ? 1 : 0)
    await handle.write(right, 0, 1, at)
    if (at < length - 1) await handle.write(later, 0, 1, length - 1)
  }
})

t.test('finds a file that is too long or too short', async (t) => {
  const bytes = pattern(1, 5000)
  for (const actual of [4999, 5001, 0]) {
    const handle = await fileOf(t, 0, [[0, bytes]])
    ftruncateSync(handle.fd, actual)
    const error = await compare(wrap(handle), 5000, [dataChunk(0, bytes)])
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_VERIFY_FAILED', { layer: 'out', actual })
    t.match((error as Error).message, `the file is ${actual} bytes long, not 5000`)
  }
})

t.test('finds a file that becomes too short meanwhile', async (t) => {
  const handle = await fileOf(t, 9000, [])
  const sync = async (): Promise<void> => undefined
  const stat = async (): Promise<Stats> => {
    const stats = await handle.stat()
    ftruncateSync(handle.fd, 7000)
    return stats
  }
  const error = await compare(wrap(handle, { sync, stat }), 9000, [zeroChunk(500, 9000)], 500)
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_VERIFY_FAILED', { hostOffset: 7000, guestOffset: 7500 })
  t.match((error as Error).message, /it ends at offset 0x1b58, 2000 bytes too early$/)
})

t.test('asks for no length of what is no file', async (t) => {
  const bytes = pattern(1, 5000)
  const handle = await fileOf(t, 2 ** 30, [[0, bytes]])
  const stat = async (): Promise<unknown> => ({ isFile: () => false, size: 0, blocks: 0 })
  t.equal(await compare(wrap(handle, { stat }), 6000, [dataChunk(0, bytes), zeroChunk(5000, 1000)]), undefined)
})

t.test('fails if the output cannot be read, or is not on its disk', async (t) => {
  const handle = await fileOf(t, 5000, [])
  const cause = systemError('EIO')
  const fail = (): Promise<never> => Promise.reject(cause)
  const chunks = [zeroChunk(100, 5000)]
  const unread = await compare(wrap(handle, { read: fail }), 5000, chunks, 100)
  expectError(t, unread, Qcow2SinkError, 'ERR_QCOW2_VERIFY_FAILED', { hostOffset: 0, guestOffset: 100, cause })
  t.match((unread as Error).message, /reading back 5000 bytes at offset 0x0: EIO/)
  for (const replaced of [{ sync: fail }, { stat: fail }]) {
    const error = await compare(wrap(handle, replaced), 5000, chunks, 100)
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: 'out', cause })
  }
})

t.test('stops when it is destroyed, after the read that is under way', async (t) => {
  const handle = await fileOf(t, 2 ** 30, [])
  for (const chunk of [zeroChunk(0, 2 ** 30), dataChunk(0, Buffer.alloc(9 * MIB))]) {
    const gate = new Gate()
    let reads = 0
    const read = async (buffer: Uint8Array, offset: number, length: number, position: number): Promise<unknown> => {
      reads += 1
      await gate.opened
      return handle.read(buffer, offset, length, position)
    }
    // Without a hole map.
    const stat = async (): Promise<unknown> => ({ isFile: () => false })
    const output = { handle: wrap(handle, { read, stat }), path: 'out', guestStart: 0, length: 2 ** 30 }
    const stream = new ComparingStream(output)
    const errors: unknown[] = []
    stream.on('error', (error) => errors.push(error))
    const closed = once(stream, 'close')
    const isClosed = settling(closed)
    stream.write(chunk)
    await until(() => reads === 1)
    stream.destroy()
    await turns(5)
    t.notOk(isClosed())
    gate.open()
    await closed
    t.equal(reads, 1)
    t.same(errors, [])
  }
})
