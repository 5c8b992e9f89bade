// destroy() at any moment: what the stream opened is closed, what was handed in open stays open, nothing is read later.
import { writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { createReadStream, Qcow2Image, type Qcow2Input, type Qcow2ReadStream } from '../../../lib/index.js'
import { bytesOf, closing } from '../../fixtures/consume.js'
import { dataDisk, mixedDisk } from '../../fixtures/mixed-disk.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { Gate, turns, until, untilQuiet } from '../../fixtures/turns.js'

const disk = mixedDisk()
const { guest } = disk

/** How many reads it takes to stream the whole disk. */
async function countReads(): Promise<number> {
  const source = new RecordingSource(disk.bytes)
  t.ok((await bytesOf(createReadStream(source))).equals(guest))
  return source.reads.length
}

/** Moments at which a stream can be destroyed, by what is done with a fresh one. */
const moments: Readonly<Record<string, (stream: Qcow2ReadStream, destroy: () => void) => void>> = {
  'at once': (_stream, destroy) => destroy(),
  'at once, while somebody listens': (stream, destroy) => {
    stream.resume()
    destroy()
  },
  'on the next tick': (_stream, destroy) => process.nextTick(destroy),
  'while it opens': (_stream, destroy) => setImmediate(destroy),
  'at open': (stream, destroy) => stream.on('open', destroy),
  'at ready': (stream, destroy) => stream.on('ready', destroy),
  'right after ready': (stream, destroy) => stream.on('ready', () => setImmediate(destroy)),
  'at the first chunk': (stream, destroy) => stream.on('data', destroy),
  'right after the first chunk': (stream, destroy) => stream.on('data', () => setImmediate(destroy)),
  'when a chunk waits': (stream, destroy) => stream.on('readable', destroy),
  'at the end': (stream, destroy) => stream.resume().on('end', destroy),
  'right after the end': (stream, destroy) => stream.resume().on('end', () => setImmediate(destroy)),
  'after it closed': (stream, destroy) => stream.resume().on('close', destroy),
}

for (const [moment, arrange] of Object.entries(moments)) {
  t.test(`destroyed ${moment}, a stream closes the file that it opened`, { skip: cannotCount }, async (t) => {
    const path = join(t.testdir(), 'disk.qcow2')
    writeFileSync(path, disk.bytes)
    const stream = createReadStream(path, { highWaterMark: 100_000 })
    arrange(stream, () => void stream.destroy())
    t.same(await closing(stream), [], 'destroying is no error')
    t.same(openDescriptors(path), [])
    t.equal(stream.destroyed, true)
  })

  t.test(`destroyed ${moment}, a stream leaves open what was handed in open`, async (t) => {
    const path = join(t.testdir(), 'disk.qcow2')
    writeFileSync(path, disk.bytes)
    const handle = await open(path)
    t.teardown(() => handle.close())
    const image = await Qcow2Image.open(handle)
    t.teardown(() => image.close())
    for (const input of [handle, image]) {
      const stream = createReadStream(input, { highWaterMark: 100_000 })
      arrange(stream, () => void stream.destroy())
      t.same(await closing(stream), [])
    }
    t.ok((await handle.stat()).isFile())
    t.ok((await bytesOf(createReadStream(image))).equals(guest), 'the image can be streamed again')
  })
}

t.test('destroyed in the middle of any read, closes the source once and when no read is under way', async (t) => {
  const count = await countReads()
  t.ok(count >= 8)
  for (let n = 1; n <= count; n++) {
    const source: RecordingSource = new RecordingSource(disk.bytes, {
      beforeRead: async (index) => {
        if (index === n) stream.destroy()
        await turns(3)
      },
    })
    const stream = createReadStream(source).resume()
    t.same(await closing(stream), [])
    t.same(
      { closed: source.closeCount, late: source.readsAfterClose, underWay: source.underWay },
      { closed: 1, late: 0, underWay: 0 },
      `read ${n} of ${count}`,
    )
  }
})

t.test('waits for a read that hangs before it says closed', async (t) => {
  const gate = new Gate()
  const source = new RecordingSource(disk.bytes, { beforeRead: (n) => (n === 5 ? gate.opened : undefined) })
  const stream = createReadStream(source).resume()
  await until(() => source.reads.length >= 5)
  stream.destroy()
  await turns(50)
  t.equal(stream.closed, false)
  t.equal(source.closeCount, 0)
  gate.open()
  t.same(await closing(stream), [])
  t.equal(source.closeCount, 1)
})

t.test('waits for its reads of an image that was handed in, for they write into its memory', async (t) => {
  const large = dataDisk(256)
  for (const order of ['first to last', 'last to first']) {
    const gates: Gate[] = []
    const source = new RecordingSource(large.bytes, {
      beforeRead: (_n, _offset, length) => {
        // Runs of data, not tables.
        if (length < 500_000) return
        const gate = new Gate()
        gates.push(gate)
        return gate.opened
      },
    })
    const image = await Qcow2Image.open(source)
    const stream = createReadStream(image).resume()
    await untilQuiet(() => gates.length)
    t.ok(gates.length > 1)
    stream.destroy()
    for (const gate of order === 'last to first' ? gates.reverse() : gates) {
      await turns(10)
      t.equal(stream.closed, false, order)
      gate.open()
    }
    t.same(await closing(stream), [])
    t.equal(source.underWay, 0)
    await image.close()
  }
})

t.test('emits the error that it was destroyed with, whenever that was', async (t) => {
  const reason = new Error('enough')
  const withError = async (t: Test, input: Qcow2Input, moment: string): Promise<void> => {
    const stream = createReadStream(input, { highWaterMark: 100_000 })
    moments[moment]?.(stream, () => void stream.destroy(reason))
    const errors = await closing(stream)
    t.equal(errors.length, 1, moment)
    t.equal(errors[0], reason, moment)
  }
  for (const moment of ['at once', 'on the next tick', 'while it opens', 'at open', 'at ready', 'at the first chunk']) {
    await withError(t, disk.bytes, moment)
  }
  // Opening fails as well, but that is no longer what matters.
  for (const moment of ['at once', 'on the next tick']) {
    await withError(t, join(t.testdir(), 'missing.qcow2'), moment)
  }
})

t.test('emits no chunk and no end once it was destroyed', async (t) => {
  const stream = createReadStream(disk.bytes, { highWaterMark: 10_000 })
  let after = 0
  let count = 0
  stream.on('data', () => {
    if (stream.destroyed) after += 1
    if (++count === 7) stream.destroy()
  })
  stream.on('end', () => t.fail('no end'))
  t.same(await closing(stream), [])
  t.equal(count, 7)
  t.equal(after, 0)
  t.equal(stream.bytesRead >= 70_000, true)
})

t.test('can be disposed of', async (t) => {
  const source = new RecordingSource(disk.bytes)
  const stream = createReadStream(source)
  const errors: unknown[] = []
  stream.on('error', (error) => errors.push(error))
  await until(() => stream.virtualSize !== undefined)
  await stream[Symbol.asyncDispose]()
  t.equal(stream.closed, true)
  t.equal(source.closeCount, 1)
  t.match(errors, [{ name: 'AbortError' }], 'as every Readable says it')
})

t.test('fails, and does not hang, when its image is closed meanwhile', async (t) => {
  for (const when of ['open', 'data'] as const) {
    const image = await Qcow2Image.open(disk.bytes)
    const stream = createReadStream(image, { highWaterMark: 1000 })
    stream.once(when, () => void image.close())
    stream.resume()
    const errors = await closing(stream)
    // What was read ahead already may be all there is.
    t.ok(errors.length === 0 || errors.length === 1)
    for (const error of errors) t.match(error, { code: 'ERR_QCOW2_CLOSED' }, when)
  }
  const image = await Qcow2Image.open(disk.bytes)
  await image.close()
  const errors = await closing(createReadStream(image).resume())
  t.match(errors, [{ code: 'ERR_QCOW2_CLOSED' }], 'a closed image cannot be streamed')
})
