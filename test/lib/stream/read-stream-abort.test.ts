// The signal: whenever it fires, the stream fails with its reason, closes what it opened, and lets go of the signal.
import { getEventListeners } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createReadStream, Qcow2Image, type Qcow2ReadStream } from '../../../lib/index.js'
import { bytesOf, closing } from '../../fixtures/consume.js'
import { mixedDisk } from '../../fixtures/mixed-disk.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { turns } from '../../fixtures/turns.js'

const disk = mixedDisk()

const moments: Readonly<Record<string, (stream: Qcow2ReadStream, abort: () => void) => void>> = {
  'right after the call': (_stream, abort) => abort(),
  'on the next tick': (_stream, abort) => process.nextTick(abort),
  'while it opens': (_stream, abort) => setImmediate(abort),
  'at open': (stream, abort) => stream.on('open', abort),
  'at ready': (stream, abort) => stream.on('ready', abort),
  'at the first chunk': (stream, abort) => stream.once('data', abort),
  'while it is paused': (stream, abort) => {
    stream.once('data', () => {
      stream.pause()
      setImmediate(abort)
    })
  },
}

for (const [moment, arrange] of Object.entries(moments)) {
  t.test(`aborted ${moment}, a stream fails with the reason`, async (t) => {
    const controller = new AbortController()
    const reason = new Error('not wanted any more')
    const source = new RecordingSource(disk.bytes, { beforeRead: () => turns(2) })
    const stream = createReadStream(source, { signal: controller.signal, highWaterMark: 10_000 })
    arrange(stream, () => controller.abort(reason))
    const errors = await closing(stream.resume())
    t.equal(errors.length, 1)
    t.equal(errors[0], reason)
    t.equal(source.readsAfterClose, 0)
    t.equal(source.underWay, 0)
    t.same(getEventListeners(controller.signal, 'abort'), [], 'nobody listens to the signal any more')
  })
}

t.test('aborted before the call, a stream fails with the reason and leaves nothing open', async (t) => {
  const path = join(t.testdir(), 'disk.qcow2')
  writeFileSync(path, disk.bytes)
  const reason = new Error('too late')
  const signal = AbortSignal.abort(reason)
  for (const input of [path, disk.bytes, `${path}.missing`]) {
    const stream = createReadStream(input, { signal })
    stream.on('data', () => t.fail('no chunk'))
    const errors = await closing(stream)
    t.equal(errors.length, 1)
    t.equal(errors[0], reason, 'the reason itself, whatever opening comes to')
  }
  t.same(getEventListeners(signal, 'abort'), [])
  if (cannotCount === false) t.same(openDescriptors(path), [])
  else t.comment(cannotCount)
})

t.test('aborted in the middle of any read, a stream closes its source after the read', async (t) => {
  const whole = new RecordingSource(disk.bytes)
  await bytesOf(createReadStream(whole))
  for (let n = 1; n <= whole.reads.length; n++) {
    const controller = new AbortController()
    const source = new RecordingSource(disk.bytes, {
      beforeRead: (index) => {
        if (index === n) controller.abort(new Error(`read ${n}`))
      },
    })
    const errors = await closing(createReadStream(source, { signal: controller.signal }).resume())
    t.equal(errors[0], controller.signal.reason, `read ${n}`)
    t.equal(errors.length, 1)
    t.same({ closed: source.closeCount, late: source.readsAfterClose }, { closed: 1, late: 0 })
  }
})

t.test('aborted after the end, nothing happens', async (t) => {
  const controller = new AbortController()
  const stream = createReadStream(disk.bytes, { signal: controller.signal })
  t.ok((await bytesOf(stream)).equals(disk.guest))
  t.same(await closing(stream), [])
  t.same(getEventListeners(controller.signal, 'abort'), [])
  controller.abort(new Error('late'))
  t.equal(stream.errored, null)
})

t.test('leaves the image that was handed in open when aborted', async (t) => {
  await using image = await Qcow2Image.open(disk.bytes)
  const controller = new AbortController()
  const stream = createReadStream(image, { signal: controller.signal, highWaterMark: 1000 })
  stream.once('data', () => controller.abort())
  const errors = await closing(stream)
  t.match(errors, [{ name: 'AbortError' }])
  t.equal(errors[0], controller.signal.reason)
  t.ok((await bytesOf(createReadStream(image))).equals(disk.guest))
})

t.test('wraps a reason that is no error, so that the stream has one', async (t) => {
  for (const reason of ['a word', 7, null]) {
    const controller = new AbortController()
    const stream = createReadStream(disk.bytes, { signal: controller.signal })
    stream.on('open', () => controller.abort(reason))
    const errors = await closing(stream.resume())
    t.equal(errors.length, 1)
    t.ok(errors[0] instanceof Error)
    t.equal((errors[0] as Error).cause, reason)
  }
})
