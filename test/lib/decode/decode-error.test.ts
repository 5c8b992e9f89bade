/**
 * The reason that a decoder gives: an error of its own kind, which no user of the package ever sees.
 */
import t from 'tap'
import { DecodeError } from '../../../lib/decode/decode-error.js'
import * as api from '../../../lib/index.js'

t.test('a DecodeError is an error with a name and a message, and outside of the public family', async (t) => {
  const error = new DecodeError('the stream is cut off')
  t.ok(error instanceof Error)
  t.notOk(error instanceof api.Qcow2Error)
  t.equal(String(error), 'DecodeError: the stream is cut off')
  t.notOk('DecodeError' in api)
})
