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

t.test('stops amid zeros when it is destroyed', async (t) => {
  const gate = new Gate()
  let count = 0
  const sink = new SequentialWriteStream(() => {
    count += 1
    return gate.opened
  })
  sink.write(zeroChunk(0, 2 ** 50))
  await until(() => count === 1)
  sink.destroy()
  gate.open()
  await turns(20)
  t.equal(sink.closed, true)
  t.equal(count, 1)
})
