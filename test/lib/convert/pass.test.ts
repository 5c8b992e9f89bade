// One pass: whichever part fails, all of them are closed before it is told, and the image stays open.
import { PassThrough, Transform, Writable } from 'node:stream'
import t from 'tap'
import { runPass } from '../../../lib/convert/pass.js'
import { Qcow2Image, Qcow2SourceError, type GuestChunk } from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { dataDisk } from '../../fixtures/mixed-disk.js'
import { systemError } from '../../fixtures/patched-fs.js'
import { RecordingSource } from '../../fixtures/recording-source.js'

const { bytes, guest } = dataDisk(3, 21)

/** Copies what it gets; `hurt` is asked before each chunk for the error to fail with. */
function collector(hurt: (n: number) => Error | undefined = () => undefined): Writable & { parts: Buffer[] } {
  const parts: Buffer[] = []
  let count = 0
  const sink = new Writable({
    objectMode: true,
    highWaterMark: 1,
    write: (chunk: GuestChunk, _encoding, callback) => {
      const error = hurt(++count)
      if (error === undefined && chunk.kind === 'data') {
        parts.push(Buffer.from(chunk.bytes))
        chunk.release()
      }
      callback(error)
    },
  })
  return Object.assign(sink, { parts })
}

const passing = (): Transform => new PassThrough({ objectMode: true, highWaterMark: 1 })

t.test('moves the disk, or a part of it, again and again', async (t) => {
  const source = new RecordingSource(bytes)
  const image = await Qcow2Image.open(source)
  for (const isShared of [true, false, undefined]) {
    const options = { start: 5, end: 5_000_000, ...(isShared !== undefined && { isShared }) }
    const sink = collector()
    await runPass(image, passing(), sink, options)
    t.ok(Buffer.concat(sink.parts).equals(guest.subarray(5, 5_000_001)))
    t.ok(sink.closed)
  }
  t.equal(source.closeCount, 0)
  await image.close()
})

t.test('fails with the first error of any part, when all are closed', async (t) => {
  const fault = new Error('a fault')
  for (const who of ['source', 'between', 'sink', 'signal']) {
    const controller = new AbortController()
    let isOpen = false
    const cause = systemError('EIO')
    const source = new RecordingSource(bytes, {
      beforeRead: () => {
        if (isOpen && who === 'source') throw cause
      },
    })
    const image = await Qcow2Image.open(source)
    isOpen = true
    const sink = collector(() => {
      if (who === 'signal') controller.abort(fault)
      return who === 'sink' ? fault : undefined
    })
    const between = passing()
    between.on('pipe', () => {
      if (who === 'between') between.destroy(fault)
    })
    const error = await rejection(t, runPass(image, between, sink, { signal: controller.signal }))
    if (who === 'source') expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { cause })
    else t.equal(error, fault, who)
    t.ok(sink.closed && between.closed)
    t.equal(source.underWay, 0)
    t.equal(source.closeCount, 0)
    await image.close()
  }
})
