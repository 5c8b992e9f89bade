// Writing in order what cannot seek: every byte, one write at a time, memory given back when it is taken.
import t from 'tap'
import { SequentialWriteStream } from '../../../lib/sink/sequential-write-stream.js'
import { dataChunk, feed, zeroChunk } from '../../fixtures/guest-chunks.js'
import { pattern } from '../../fixtures/patterns.js'
import { Gate, turns, until } from '../../fixtures/turns.js'

t.test('writes data and zeros one after another', async (t) => {
  const parts: Buffer[] = []
  let underWay = 0
  let most = 0
  const sink = new SequentialWriteStream(async (bytes) => {
    most = Math.max(most, ++underWay)
    await turns(1)
    parts.push(Buffer.from(bytes))
    underWay -= 1
  })
  const zeros = 2 * 2 ** 20 + 5
  const chunks = [
    dataChunk(7, pattern(1, 1000)),
    zeroChunk(1007, zeros),
    dataChunk(1007 + zeros, pattern(2, 3000)),
    zeroChunk(4007 + zeros, 2 ** 20),
  ]
  t.same(await feed(sink, chunks), [])
  const expected = Buffer.concat([pattern(1, 1000), Buffer.alloc(zeros), pattern(2, 3000), Buffer.alloc(2 ** 20)])
  t.ok(Buffer.concat(parts).equals(expected))
  t.equal(most, 1, 'never two at once')
  t.equal(sink.bytesWritten, expected.length)
  t.ok(
    parts.every(({ length }) => length > 0),
    'no empty writes',
  )
})

t.test('gives memory back once, when it is written', async (t) => {
  const gate = new Gate()
  const sink = new SequentialWriteStream(() => gate.opened)
  const chunk = dataChunk(0, pattern(1, 100))
  const done = feed(sink, [chunk])
  await turns(10)
  t.equal(chunk.released, 0)
  gate.open()
  t.same(await done, [])
  t.equal(chunk.released, 1)
})

t.test('fails with the error of the n-th write, for every n, and writes nothing behind it', async (t) => {
  const chunks = [dataChunk(0, pattern(1, 10)), zeroChunk(10, 3 * 2 ** 20), dataChunk(10 + 3 * 2 ** 20, pattern(2, 10))]
  for (let n = 1; n <= 5; n++) {
    const error = new Error(`write ${n}`)
    let count = 0
    const sink = new SequentialWriteStream(async () => {
      if (++count === n) throw error
    })
    let hasFinished = false
    sink.on('finish', () => (hasFinished = true))
    const errors = await feed(sink, chunks)
    t.equal(errors.length, 1)
    t.equal(errors[0], error)
    t.equal(count, n)
    t.equal(hasFinished, false)
  }
})

t.test('keeps the memory of a write that failed', async (t) => {
  const chunk = dataChunk(0, pattern(1, 10))
  const sink = new SequentialWriteStream(() => Promise.reject(new Error('no')))
  await feed(sink, [chunk])
  t.equal(chunk.released, 0)
})

for (const [what, chunk, mover] of [
  ['zeros', zeroChunk(0, 2 ** 50), undefined],
  ['data', dataChunk(0, pattern(1, 3 * 131_072)), { works: true, moveZeros: () => 0, moveBytes: () => 0 }],
] as const) {
  t.test(`stops amid ${what} when it is destroyed`, async (t) => {
    const gate = new Gate()
    let count = 0
    const write = (): Promise<void> => {
      count += 1
      return gate.opened
    }
    const sink = new SequentialWriteStream(write, mover)
    sink.write(chunk)
    await until(() => count === 1)
    sink.destroy()
    gate.open()
    await turns(20)
    t.equal(sink.closed, true)
    t.equal(count, 1)
  })
}

t.test('moves what it can, and writes a little where no more can be moved', async (t) => {
  const done: string[] = []
  const written: Buffer[] = []
  const room = [100_000, 0, 0, 7, 2 ** 20, 2 ** 20, 50_000, 0, 3]
  const move = (most: number): number => {
    const moved = Math.min(most, room.shift() ?? 0)
    if (moved > 0) done.push(`move ${moved}`)
    return moved
  }
  const sink = new SequentialWriteStream(
    async (bytes) => {
      written.push(Buffer.from(bytes))
      done.push(`write ${bytes.length}`)
    },
    {
      works: true,
      moveZeros: (most) => {
        const moved = move(most)
        written.push(Buffer.alloc(moved))
        return moved
      },
      moveBytes: (bytes) => {
        const moved = move(bytes.length)
        written.push(Buffer.from(bytes.subarray(0, moved)))
        return moved
      },
    },
  )
  const length = 100_000 + 2 * 65_536 + 7 + 1000
  const data = [pattern(1, 1000), pattern(2, 50_000 + 131_072 + 3 + 131_072 + 5)]
  const chunks = [
    zeroChunk(0, length),
    dataChunk(length, data[0]!),
    dataChunk(length + 1000, data[1]!),
    zeroChunk(length + 1000 + data[1]!.length, 10),
  ]
  t.same(await feed(sink, chunks), [])
  t.same(done, [
    ...['move 100000', 'write 65536', 'write 65536', 'move 7', 'move 1000'],
    'move 1000',
    ...['move 50000', 'write 131072', 'move 3', 'write 131072', 'write 5'],
    'write 10',
  ])
  t.ok(Buffer.concat(written).equals(Buffer.concat([Buffer.alloc(length), ...data, Buffer.alloc(10)])))
  t.equal(sink.bytesWritten, length + 1000 + data[1]!.length + 10)
})

t.test('writes whole pieces once its mover does not work any more', async (t) => {
  const lengths: number[] = []
  const mover = { works: true, moveZeros: () => 0, moveBytes: () => 0 }
  const sink = new SequentialWriteStream(async ({ length }) => {
    lengths.push(length)
    mover.works = false
  }, mover)
  t.same(await feed(sink, [dataChunk(0, pattern(1, 2 ** 21)), zeroChunk(2 ** 21, 3 * 2 ** 20)]), [])
  t.same(lengths, [131_072, 2 ** 21 - 131_072, 2 ** 20, 2 ** 20, 2 ** 20])
})

t.test('stops amid zeros that it moves when it is destroyed', async (t) => {
  const sink = new SequentialWriteStream(() => Promise.reject(new Error('nothing is written')), {
    works: true,
    moveZeros: (most) => Math.min(most, 4096),
    moveBytes: () => 0,
  })
  sink.write(zeroChunk(0, 2 ** 50))
  await until(() => sink.bytesWritten > 10 * 4096)
  sink.destroy()
  await until(() => sink.closed)
  const { bytesWritten } = sink
  await turns(20)
  t.ok(sink.bytesWritten <= bytesWritten + 4096, 'the piece under way at most')
})

t.test('lets timers have their turn, though all data can be moved at once', async (t) => {
  const sink = new SequentialWriteStream(() => Promise.reject(new Error('nothing is written')), {
    works: true,
    moveZeros: () => 0,
    moveBytes: ({ length }) => length,
  })
  const later = AbortSignal.timeout(10)
  for (let count = 0; count < 100_000 && !later.aborted; count++) {
    await new Promise<void>((resolve) => {
      sink.write(dataChunk(0, pattern(1, 10)), () => {
        resolve()
      })
    })
  }
  t.equal(later.aborted, true)
})
