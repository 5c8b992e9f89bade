/**
 * Conversions of images on servers: aborted while a server keeps them waiting, they end at once, and leave neither output nor copy.
 */
import { getEventListeners } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { convert } from '../../lib/index.js'
import { rejection } from '../fixtures/expect-error.js'
import { both, cut, raw, startServer, status, whole, type Change } from '../fixtures/http-server.js'
import { watchLeftovers } from '../fixtures/leftovers.js'
import { dataDisk } from '../fixtures/mixed-disk.js'
import { cannotCount, openDescriptors } from '../fixtures/open-descriptors.js'
import { turns, until } from '../fixtures/turns.js'

const disk = dataDisk(256)
const reason = new Error('enough')

const WAITS: Readonly<Record<string, Change>> = {
  'says nothing': raw('hang'),
  stops: cut(3, 'hang'),
  'wants half a minute of quiet': status(429, { 'retry-after': '30' }),
}
const MOMENTS = { 'while it opens': 0, 'at its first table': 1, 'in its data': 3 } as const

for (const [what, change] of Object.entries(WAITS)) {
  for (const [moment, promptRequests] of Object.entries(MOMENTS)) {
    t.test(`a server that ${what} ${moment} does not keep a conversion from ending`, async (t) => {
      for (const output of ['out', '/dev/null']) {
        const server = await startServer(t, disk.bytes)
        const folder = t.testdir({ out: 'old' })
        const leftovers = watchLeftovers()
        server.next(...Array.from({ length: promptRequests }, () => () => undefined))
        server.each = change
        const { signal, abort } = abortable()
        const salvaged: unknown[] = []
        const salvage = (damage: unknown): unknown => salvaged.push(damage)
        const path = output === 'out' ? join(folder, output) : output
        const converting = rejection(t, convert(server.url(), path, { force: true, signal, salvage }))
        await until(
          () => server.requests.length > promptRequests && server.requests.every(({ isAnswered }) => isAnswered),
        )
        await turns(30)
        abort()
        t.equal(await converting, reason)
        t.same(readdirSync(folder), ['out'])
        t.equal(readFileSync(join(folder, 'out'), 'utf8'), 'old')
        t.same(salvaged, [])
        t.same(getEventListeners(signal, 'abort'), [])
        await until(() => server.underWay === 0)
        t.same(await leftovers(), [])
        if (cannotCount === false) t.same(openDescriptors(folder), [])
      }
    })
  }
}

t.test('a server that stops in a download does not keep a conversion from ending', async (t) => {
  const server = await startServer(t, disk.bytes)
  const folder = t.testdir()
  const leftovers = watchLeftovers()
  server.each = both(whole(server), cut(500_000, 'hang'))
  const { signal, abort } = abortable()
  const onSpool = ({ bytesDone }: { bytesDone: number }): void => {
    if (bytesDone === 500_000) setImmediate(abort)
  }
  const options = { signal, onSpool, spoolDirectory: folder }
  t.equal(await rejection(t, convert(server.url(), join(folder, 'out'), options)), reason)
  t.same(readdirSync(folder), [])
  await until(() => server.underWay === 0)
  t.same(await leftovers(), [])
  if (cannotCount === false) t.same(openDescriptors(folder), [])
})

t.test('a server that fails at one place ends a conversion that waits for others', async (t) => {
  const server = await startServer(t, disk.bytes)
  const folder = t.testdir()
  const leftovers = watchLeftovers()
  server.next(...Array.from({ length: 3 }, () => () => undefined))
  server.each = (answer, request) => (request.range!.start < 2 ** 21 ? status(404) : raw('hang'))(answer, request)
  const error = await rejection(t, convert(server.url(), join(folder, 'out')))
  t.match(error, { code: 'ERR_QCOW2_REQUEST_FAILED' })
  t.same(readdirSync(folder), [])
  await until(() => server.underWay === 0)
  t.same(await leftovers(), [])
})

function abortable(): { signal: AbortSignal; abort: () => void } {
  const controller = new AbortController()
  return { signal: controller.signal, abort: () => controller.abort(reason) }
}
