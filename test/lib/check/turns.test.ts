/**
 * Steps: mostly without waiting, now and then with a turn of the event loop, and the end when somebody wants it.
 */
import t from 'tap'
import { Turns } from '../../../lib/check/turns.js'
import { rejection } from '../../fixtures/expect-error.js'

t.test('the event loop has its turn while steps go on', async (t) => {
  const turn = new AbortController()
  setImmediate(() => turn.abort())
  const turns = new Turns(undefined)
  let steps = 0
  for (; !turn.signal.aborted; steps++) await turns.step()
  t.ok(steps > 1, `${steps} steps`)
})

t.test('an aborted signal ends it with its reason', async (t) => {
  const controller = new AbortController()
  const turns = new Turns(controller.signal)
  await turns.step()
  const reason = new Error('enough')
  controller.abort(reason)
  t.equal(await rejection(t, turns.step()), reason)
})

t.test('a signal that comes in such a turn is heard at once', async (t) => {
  const controller = new AbortController()
  const reason = new Error('enough')
  const turns = new Turns(controller.signal)
  setImmediate(() => controller.abort(reason))
  let ended: unknown
  for (; ended === undefined;) {
    try {
      await turns.step()
    } catch (error) {
      ended = error
    }
  }
  t.equal(ended, reason)
})
