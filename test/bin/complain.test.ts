/**
 * Standard error: lines that are lines, and a wait for whoever reads them.
 */
import t from 'tap'
import { complainer, drained } from '../../bin/complain.js'
import { replacedStderr, textIn } from '../fixtures/replaced-stderr.js'
import { settling, turns } from '../fixtures/turns.js'

const complain = complainer('qcow2-to-raw')

t.test('one line that begins with the name, whatever the message holds', async (t) => {
  const stream = replacedStderr(t, 1000)
  complain('a\n  b\u001b[31mc')
  complainer('other')('d')
  t.equal(textIn(stream), 'qcow2-to-raw: a b\ufffd[31mc\nother: d\n')
})

t.test('waits until what was said is read, and all who wait go on together', async (t) => {
  const stream = replacedStderr(t, 10)
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
  replacedStderr(t, 10)
  const controller = new AbortController()
  complain('more than ten bytes')
  const waiting = drained(controller.signal)!
  controller.abort()
  await waiting
  t.equal(drained(controller.signal), undefined)
})

t.test('so does the end of whoever reads', async (t) => {
  const stream = replacedStderr(t, 10)
  complain('more than ten bytes')
  const waiting = drained(new AbortController().signal)!
  stream.destroy()
  await waiting
  t.pass('it has ended')
})
