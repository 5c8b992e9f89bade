/** How a server may be asked to be asked: defaults, bounds, and what is no option. */
import { inspect } from 'node:util'
import t from 'tap'
import { Qcow2UsageError } from '../../../lib/errors.js'
import { checkHttpOptions } from '../../../lib/source/http-options.js'
import { expectError } from '../../fixtures/expect-error.js'
import { thrownBy } from '../../fixtures/expect-refusal.js'

t.test('have defaults, within what is allowed', async (t) => {
  const { headers, ...numbers } = checkHttpOptions()
  t.same([...headers], [])
  t.strictSame(numbers, { requests: 6, retries: 5, retryMilliseconds: 500, idleMilliseconds: 60_000 })
  t.strictSame(checkHttpOptions({ requests: undefined, headers: undefined }).requests, 6)
})

t.test('are integers between two bounds', async (t) => {
  const bounds = [
    ['requests', 1, 64],
    ['retries', 0, 100],
    ['retryMilliseconds', 0, 60_000],
    ['idleMilliseconds', 1, 300_000],
  ] as const
  for (const [name, low, high] of bounds) {
    for (const value of [low, high]) t.equal(checkHttpOptions({ [name]: value })[name], value)
    for (const value of [low - 1, high + 1, low + 0.5, NaN, '3']) {
      const error = thrownBy(() => checkHttpOptions({ [name]: value }))
      expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: `http.${name}`, actual: value })
      t.match((error as Error).message, `allowed are integers from ${low} to ${high}`)
    }
  }
})

t.test('are an object', async (t) => {
  for (const options of [null, 7, 'requests', []]) {
    const error = thrownBy(() => checkHttpOptions(options as never))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'http', actual: options })
  }
})

t.test('with headers that cannot be sent are refused, and nothing is said of what is in them', async (t) => {
  for (const headers of [{ 'a b': 'secret' }, { a: 'sec\nret: secret' }, { 'secret€': 'b' }, { a: 'secret €' }, 7]) {
    const error = thrownBy(() => checkHttpOptions({ headers: headers as never }))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'http.headers', actual: undefined })
    t.notMatch(inspect(error), /sec|€/, 'neither in the message nor in a cause')
  }
})
