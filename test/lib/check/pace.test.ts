/**
 * Steps: mostly without waiting, now and then with a turn of the event loop, and the end when somebody wants it.
 */
import t from 'tap'
import { Pace } from '../../../lib/check/pace.js'
import { rejection } from '../../fixtures/expect-error.js'

t.test('the event loop has its turn while steps go on', async (t) => {
  const turn = new AbortController()
  setImmediate(() => turn.abort())
  const pace = new Pace(undefined)
  let steps = 0
  for (; !turn.signal.aborted; steps++) await pace.step()
  t.ok(steps > 1, `${steps} steps`)
})

t.test('an aborted signal ends it with its reason', async (t) => {
  const controller = new AbortController()
  const pace = new Pace(controller.signal)
  await pace.step()
  const reason = new Error('enough')
  controller.abort(reason)
  t.equal(await rejection(t, pace.step()), reason)
})

t.test('a signal that comes in such a turn is heard at once', async (t) => {
  const controller = new AbortController()
  const reason = new Error('enough')
  const pace = new Pace(controller.signal)
  setImmediate(() => controller.abort(reason))
  let ended: unknown
  for (; ended === undefined;) {
    try {
      await pace.step()
    } catch (error) {
      ended = error
    }
  }
  t.equal(ended, reason)
})
