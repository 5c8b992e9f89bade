// The sparse file: data at their place, holes for zeros, the exact length; memory is given back once it is written.
import { openSync, closeSync, fstatSync, fsyncSync, ftruncateSync, readFileSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { GuestChunk } from '../../../lib/index.js'
import { SparseWriteStream, type SparseTarget } from '../../../lib/sink/sparse-write-stream.js'
import { FakeHandle } from '../../fixtures/fake-handle.js'
import { dataChunk, feed, zeroChunk } from '../../fixtures/guest-chunks.js'
import { pattern } from '../../fixtures/patterns.js'
import { Gate, settling, turns, until } from '../../fixtures/turns.js'

const MIB = 2 ** 20

function sinkOver(fake: FakeHandle, length: number, options: Partial<SparseTarget> = {}): SparseWriteStream {
  return new SparseWriteStream({
    handle: fake.handle,
    path: 'out',
    guestStart: 0,
    isSparse: true,
    isBlocking: false,
    length,
    ...options,
  })
}

/** Blocks of a real file after `write`, which is given its descriptor. */
function blocksAfter(t: Test, write: (fd: number) => void): number {
  const fd = openSync(join(t.testdirName, `reference-${Math.random()}`), 'wx')
  write(fd)
  fsyncSync(fd)
  const { blocks } = fstatSync(fd)
  closeSync(fd)
  return blocks
}

t.test('writes data where they belong, and leaves holes for zeros in and between chunks', async (t) => {
  const bytes = Buffer.concat([pattern(1, 5000), Buffer.alloc(20_000), pattern(2, 3000)])
  const chunks = [zeroChunk(0, 100_000), dataChunk(100_000, bytes), zeroChunk(128_000, 3 * MIB)]
  const fake = new FakeHandle()
  const sink = sinkOver(fake, 128_000 + 3 * MIB)
  t.same(await feed(sink, chunks), [])
  const expected = Buffer.alloc(128_000 + 3 * MIB)
  expected.set(bytes, 100_000)
  t.ok(fake.contents.equals(expected))
  t.ok(
    fake.writes.every(({ position, length }) => position + length <= 128_000),
    'nothing is written for the holes around',
  )
  const written = fake.writes.reduce((sum, { length }) => sum + length, 0)
  t.ok(written < 5000 + 3000 + 4 * 4096, `${written} bytes are written for 8000 bytes of data`)
  t.equal(sink.bytesWritten, written)
  t.same(fake.truncations, [128_000 + 3 * MIB])
})

t.test('begins the file at the guest offset that it is told', async (t) => {
  const fake = new FakeHandle()
  const start = 2 ** 45 + 12_345
  const bytes = pattern(3, 9000)
  t.same(await feed(sinkOver(fake, 10_000, { guestStart: start }), [dataChunk(start + 1000, bytes)]), [])
  t.ok(fake.contents.subarray(1000).equals(bytes))
})

t.test('makes an empty file, and one that is a hole', async (t) => {
  for (const length of [0, 2 ** 50]) {
    const truncations: number[] = []
    const handle = new FakeHandle()
    handle.truncate = async (to: number) => void truncations.push(to)
    const sink = sinkOver(handle, length)
    t.same(await feed(sink, length === 0 ? [] : [zeroChunk(0, length)]), [])
    t.same(handle.writes, [])
    t.same(truncations, [length])
    t.equal(sink.bytesWritten, 0)
  }
})

t.test('writes every byte if holes are not wanted, zeros of any length included', async (t) => {
  const length = 4096 + 2 * MIB + 12_345 + 8192
  const chunks: GuestChunk[] = [
    dataChunk(0, Buffer.alloc(4096)),
    zeroChunk(4096, 2 * MIB + 12_345),
    dataChunk(4096 + 2 * MIB + 12_345, Buffer.concat([Buffer.alloc(4096), pattern(1, 4096)])),
  ]
  const fake = new FakeHandle()
  const sink = sinkOver(fake, length, { isSparse: false })
  t.same(await feed(sink, chunks), [])
  const covered = new Uint8Array(length)
  for (const { position, length } of fake.writes) covered.fill(1, position, position + length)
  t.ok(
    covered.every((byte) => byte === 1),
    'no byte is left to a hole',
  )
  t.ok(fake.contents.equals(Buffer.concat([Buffer.alloc(length - 4096), pattern(1, 4096)])))
  t.equal(sink.bytesWritten, length)
})

t.test(
  'leaves the length of what has one alone, and writes its zeros in pieces from one piece of memory',
  async (t) => {
    const pieces = new Set<ArrayBufferLike>()
    const lengths: number[] = []
    const handle = new FakeHandle()
    handle.write = async (bytes, _at, length) => {
      pieces.add(bytes.buffer)
      lengths.push(length)
      return { bytesWritten: length, buffer: bytes }
    }
    const sink = sinkOver(handle, 0, { length: undefined, isSparse: false })
    t.same(await feed(sink, [zeroChunk(0, 20 * MIB), zeroChunk(20 * MIB, 5), zeroChunk(20 * MIB + 5, 3 * MIB)]), [])
    t.same(handle.truncations, [])
    t.equal(pieces.size, 1)
    t.ok(
      lengths.every((length) => length <= MIB),
      'no piece is longer than 1 MiB',
    )
    t.equal(sink.bytesWritten, 23 * MIB + 5)
  },
)

t.test('passes over the zeros of what has a length, if they are there already', async (t) => {
  const fake = new FakeHandle()
  fake.contents = Buffer.alloc(10 * 4096, 0xff)
  const bytes = Buffer.concat([pattern(1, 4096), Buffer.alloc(4096), pattern(2, 4096)])
  const sink = sinkOver(fake, 0, { length: undefined })
  t.same(await feed(sink, [zeroChunk(0, 4096), dataChunk(4096, bytes), zeroChunk(4 * 4096, 3 * 4096)]), [])
  const old = Buffer.alloc(4096, 0xff)
  t.ok(
    fake.contents.equals(Buffer.concat([old, pattern(1, 4096), old, pattern(2, 4096), Buffer.alloc(6 * 4096, 0xff)])),
  )
  t.equal(sink.bytesWritten, 8192)
})

t.test('goes on where a write came short', async (t) => {
  for (const mostBytes of [1, 1000, 4096]) {
    const bytes = Buffer.concat([pattern(1, 6000), Buffer.alloc(9000), pattern(2, 3)])
    const fake = new FakeHandle({ mostBytes })
    t.same(await feed(sinkOver(fake, bytes.length), [dataChunk(0, bytes)]), [])
    t.ok(fake.contents.equals(bytes), `${mostBytes} bytes at a time`)
  }
})

t.test('no write reaches over a multiple of 1 MiB', async (t) => {
  const bytes = pattern(1, 3 * MIB + 4096)
  const fake = new FakeHandle()
  t.same(await feed(sinkOver(fake, 4 * MIB), [dataChunk(MIB / 2, bytes)]), [])
  t.same(
    fake.writes.map(({ position, length }) => [position / MIB, length / MIB]),
    [
      [0.5, 0.5],
      [1, 1],
      [2, 1],
      [3, 0.5 + 4096 / MIB],
    ],
  )
  t.ok(fake.contents.subarray(MIB / 2, MIB / 2 + bytes.length).equals(bytes))
})

t.test('writes while the thread waits if it may, and lets others work between chunks', async (t) => {
  t.testdir()
  for (const isSparse of [true, false]) {
    const path = join(t.testdirName, `blocking-${isSparse}`)
    const handle = await open(path, 'wx')
    t.teardown(() => handle.close())
    const bytes = Buffer.concat([pattern(1, MIB + 5000), Buffer.alloc(20_000), pattern(2, 3000)])
    const chunks = Array.from({ length: 8 }, (_, i) => dataChunk(i * 2 * MIB, bytes))
    const sink = sinkOver(new FakeHandle(), 19 * MIB, { handle, isSparse, isBlocking: true })
    const zeros = [zeroChunk(16 * MIB, 3 * MIB)]
    let turnsSeen = 0
    const done = feed(sink, [...chunks, ...zeros])
    const isDone = settling(done)
    for (; !isDone(); turnsSeen++) {
      const before = sink.bytesWritten
      await turns()
      t.ok(sink.bytesWritten - before <= bytes.length, 'one chunk at most in a turn')
    }
    t.same(await done, [])
    t.ok(turnsSeen >= chunks.length, `${turnsSeen} turns of the event loop`)
    const expected = Buffer.alloc(19 * MIB)
    for (const { guestOffset } of chunks) expected.set(bytes, guestOffset)
    t.ok(readFileSync(path).equals(expected))
    t.same(
      chunks.map(({ released }) => released),
      chunks.map(() => 1),
    )
  }
})

t.test('gives memory back once, and only when it is written', async (t) => {
  const gates: Gate[] = []
  const fake = new FakeHandle({
    beforeWrite: async () => {
      const gate = new Gate()
      gates.push(gate)
      await gate.opened
    },
  })
  const chunks = Array.from({ length: 12 }, (_, i) => dataChunk(i * 8192, pattern(i, 8192)))
  const sink = sinkOver(fake, 12 * 8192)
  const done = feed(sink, chunks)
  const isDone = settling(done)
  let opened = 0
  for (; !isDone(); opened++) {
    await until(() => gates.length > opened || isDone())
    await turns(5)
    t.ok(chunks.filter(({ released }) => released > 0).length <= opened, `${opened} are written`)
    gates[opened]?.open()
  }
  t.same(await done, [])
  t.same(
    chunks.map(({ released }) => released),
    chunks.map(() => 1),
  )
  t.ok(fake.mostUnderWay > 1, 'several writes were under way at once')
  t.ok(fake.mostUnderWay <= 8, `${fake.mostUnderWay} at once`)
  t.ok(fake.contents.equals(Buffer.concat(chunks.map(({ bytes }) => bytes))))
})

t.test('gives memory back that it did not need to write', async (t) => {
  const chunk = dataChunk(0, Buffer.alloc(65_536))
  const fake = new FakeHandle()
  t.same(await feed(sinkOver(fake, 65_536), [chunk]), [])
  t.equal(chunk.released, 1)
  t.same(fake.writes, [])
})

t.test('finishes only when all is written', async (t) => {
  const gate = new Gate()
  const fake = new FakeHandle({ beforeWrite: () => gate.opened })
  const sink = sinkOver(fake, 4096)
  let isFinished = false
  sink.on('finish', () => (isFinished = true))
  const done = feed(sink, [dataChunk(0, pattern(1, 4096))])
  await until(() => fake.underWay === 1)
  await turns(20)
  t.equal(isFinished, false)
  t.same(fake.truncations, [4096], 'the length is set before anything is written')
  gate.open()
  t.same(await done, [])
  t.equal(isFinished, true)
})

t.test('takes no more blocks of a real file than writing its data alone', async (t) => {
  t.testdir()
  // Blocks of 4 KiB that are data at every third place, and chunks that begin anywhere.
  const disk = Buffer.alloc(3 * MIB)
  for (let at = 0; at < disk.length; at += 3 * 4096) disk.set(pattern(at, 4096), at)
  const handle = await open(join(t.testdirName, 'out'), 'wx')
  t.teardown(() => handle.close())
  const sink = new SparseWriteStream({
    handle,
    path: 'out',
    guestStart: 0,
    length: 64 * MIB,
    isSparse: true,
    isBlocking: false,
  })
  const cuts = [0, 4096, 70_000, 70_001, 1_048_576, 2_000_000, disk.length]
  const chunks = cuts.slice(1).map((end, i) => dataChunk(cuts[i] ?? 0, disk.subarray(cuts[i], end)))
  t.same(await feed(sink, [...chunks, zeroChunk(disk.length, 61 * MIB)]), [])
  await handle.sync()
  const { blocks, size } = await handle.stat()
  const least = blocksAfter(t, (fd) => {
    for (let at = 0; at < disk.length; at += 3 * 4096) writeSync(fd, disk, at, 4096, at)
    ftruncateSync(fd, 64 * MIB)
  })
  t.equal(size, 64 * MIB)
  // What a file system adds to keep track of the parts depends on the order in which they were written.
  t.ok(blocks <= least + 64, `${blocks} blocks, ${least} at least`)
  const full = blocksAfter(t, (fd) => writeSync(fd, disk))
  if (least < full) t.ok(blocks < full, 'fewer than without holes')
  else t.comment('this file system makes no holes')
  t.ok(readFileSync(join(t.testdirName, 'out')).subarray(0, disk.length).equals(disk))
})
