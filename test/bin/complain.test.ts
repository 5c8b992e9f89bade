/**
 * Standard error: lines that are lines, and a wait for whoever reads them.
 */
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { complain, drained } from '../../bin/complain.js'
import { settling, turns } from '../fixtures/turns.js'

/** Puts a stream that takes so many bytes in the place of standard error. */
function replaced(t: Test, highWaterMark: number): PassThrough {
  const stream = new PassThrough({ highWaterMark })
  const own = Object.getOwnPropertyDescriptor(process, 'stderr')!
  Object.defineProperty(process, 'stderr', { value: stream, configurable: true })
  t.teardown(() => Object.defineProperty(process, 'stderr', own))
  return stream
}

t.test('one line, whatever the message holds', async (t) => {
  const stream = replaced(t, 1000)
  complain('a\n  b\u001b[31mc')
  t.equal(String(stream.read()), 'qcow2-to-raw: a b\ufffd[31mc\n')
})

t.test('waits until what was said is read, and all who wait go on together', async (t) => {
  const stream = replaced(t, 10)
  const { signal } = new AbortController()
  t.equal(drained(signal), undefined, 'nothing to wait for')
  complain('more than ten bytes')
  const waiting = drained(signal)!
  t.equal(drained(signal), waiting)
  const hasEnded = settling(waiting)
  await turns(10)
  t.equal(hasEnded(), false)
  stream.resume()
  await waiting
  t.equal(drained(signal), undefined)
  t.equal(stream.listenerCount('drain'), 0)
})

t.test('an abort ends the waiting, and there is none after it', async (t) => {
  replaced(t, 10)
  const controller = new AbortController()
  complain('more than ten bytes')
  const waiting = drained(controller.signal)!
  controller.abort()
  await waiting
  t.equal(drained(controller.signal), undefined)
})

t.test('so does the end of whoever reads', async (t) => {
  const stream = replaced(t, 10)
  complain('more than ten bytes')
  const waiting = drained(new AbortController().signal)!
  stream.destroy()
  await waiting
  t.pass('it has ended')
})
