/**
 * The cache behind tables and clusters: one load for all who ask, bounded by bytes, failures forgotten.
 */
import t from 'tap'
import { LoadingCache } from '../../../lib/image/loading-cache.js'
import { Gate } from '../../fixtures/turns.js'

const value = (byteLength: number): { byteLength: number } => ({ byteLength })

t.test('loads once for all who ask at the same time', async (t) => {
  const cache = new LoadingCache<{ byteLength: number }>(100)
  const gate = new Gate<{ byteLength: number }>()
  let loads = 0
  const load = (): Promise<{ byteLength: number }> =>
    cache.load('a', () => {
      loads += 1
      return gate.opened
    })
  const all = [load(), load(), load()]
  t.equal(cache.peek('a'), undefined, 'it is not here yet')
  const loaded = value(10)
  gate.open(loaded)
  for (const found of await Promise.all(all)) t.equal(found, loaded)
  t.equal(loads, 1)
  t.equal(cache.peek('a'), loaded)
  t.equal(cache.peek('b'), undefined)
})

t.test('drops what was used longest ago when there is no more room', async (t) => {
  const cache = new LoadingCache<{ byteLength: number }>(100)
  for (const key of ['a', 'b', 'c']) await cache.load(key, async () => value(30))
  t.ok(cache.peek('a'), 'a is used now')
  await cache.load('d', async () => value(40))
  t.strictSame(
    ['a', 'b', 'c', 'd'].map((key) => cache.peek(key) !== undefined),
    [true, false, true, true],
  )
})

t.test('passes on what is larger than all of it, without keeping it', async (t) => {
  const cache = new LoadingCache<{ byteLength: number }>(100)
  await cache.load('small', async () => value(10))
  const large = value(101)
  t.equal(await cache.load('large', async () => large), large)
  t.equal(cache.peek('large'), undefined)
  t.ok(cache.peek('small'), 'nothing was dropped for it')
})

t.test('does not keep a failure', async (t) => {
  const cache = new LoadingCache<{ byteLength: number }>(100)
  const failure = new Error('not now')
  const failing = (): Promise<never> => Promise.reject(failure)
  const throwing = (): never => {
    throw failure
  }
  for (const read of [failing, throwing]) {
    for (const result of await Promise.allSettled([cache.load('a', read), cache.load('a', read)])) {
      t.match(result, { status: 'rejected', reason: failure })
    }
  }
  t.equal(cache.peek('a'), undefined)
  const loaded = value(1)
  t.equal(await cache.load('a', async () => loaded), loaded)
})
