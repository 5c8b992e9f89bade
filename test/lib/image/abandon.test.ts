/**
 * Reads that nobody wants any more: whoever waits for a server, or for the next try, is let go at once, and leaves nothing behind.
 */
import { getEventListeners } from 'node:events'
import t, { type Test } from 'tap'
import { Qcow2Image, Qcow2UsageError, type Qcow2OpenOptions } from '../../../lib/index.js'
import { diskOf } from '../../../lib/image/image.js'
import { HostFile } from '../../../lib/source/source.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { cut, raw, startServer, status, whole, type Change, type TestServer } from '../../fixtures/http-server.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { watchLeftovers } from '../../fixtures/leftovers.js'
import { dataDisk } from '../../fixtures/mixed-disk.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { pattern } from '../../fixtures/patterns.js'
import { Gate, turns, until } from '../../fixtures/turns.js'

const disk = dataDisk(64)
const CLUSTER = 65536
const reason = new Error('not wanted any more')

/** Ways to keep somebody waiting. */
const WAITS: Readonly<Record<string, Change>> = {
  'a server that says nothing': raw('hang'),
  'a server that stops': cut(3, 'hang'),
  'a pause of half a minute': status(503, { 'retry-after': '30' }),
}

/** An image on a server whose backing file, data file and snapshots it takes further requests to open. */
function referring(t: Test): Promise<TestServer> {
  const { bytes } = buildImage({
    clusterBits: 16,
    backingFile: { name: 'base' },
    clusters: [[0, { kind: 'data', bytes: pattern(1, CLUSTER) }]],
    snapshots: [{}],
    // Beyond what comes with the first request.
    patch: (_bytes, { snapshotsOffset }) => t.ok(snapshotsOffset >= CLUSTER),
  })
  return startServer(t, bytes)
}

for (const [what, change] of Object.entries(WAITS)) {
  t.test(`opening that waits for ${what} ends with the signal's reason`, async (t) => {
    const top = await referring(t)
    const base = await startServer(t, pattern(2, 3 * CLUSTER))
    const MOMENTS: Readonly<Record<string, (server: { top: TestServer; base: TestServer }) => void>> = {
      'the image itself': ({ top }) => top.next(change),
      'its snapshot table': ({ top }) => top.next(() => undefined, change),
      'its backing file': ({ base }) => base.next(change),
    }
    for (const [moment, arrange] of Object.entries(MOMENTS)) {
      await t.test(moment, async (t) => {
        const leftovers = watchLeftovers()
        const controller = new AbortController()
        const before = top.requests.length + base.requests.length
        arrange({ top, base })
        const options = { backingFile: base.url(), signal: controller.signal } as const
        const opening = rejection(t, Qcow2Image.open(top.url(), options))
        const requests = (): TestServer['requests'] => [...top.requests, ...base.requests]
        const expected = { 'the image itself': 1, 'its snapshot table': 2, 'its backing file': 3 }[moment]!
        await until(() => requests().length === before + expected && requests().every(({ isAnswered }) => isAnswered))
        await turns(30)
        controller.abort(reason)
        t.equal(await opening, reason)
        t.same(getEventListeners(controller.signal, 'abort'), [])
        await until(() => top.underWay + base.underWay === 0)
        t.same(await leftovers(), [])
      })
    }
  })

  t.test(`reads that wait for ${what} end when the disk is abandoned`, async (t) => {
    const server = await startServer(t, disk.bytes)
    const leftovers = watchLeftovers()
    const salvaged: unknown[] = []
    const image = await Qcow2Image.open(server.url(), { salvage: (damage) => salvaged.push(damage) })
    await readBytes(image, 0, 10)
    const before = server.requests.length
    server.each = change
    // More than are under way at once.
    const reads = Array.from({ length: 10 }, (_, i) => rejection(t, readBytes(image, (2 + 5 * i) * CLUSTER, 10)))
    await until(() => server.requests.length === before + 6 && server.requests.every(({ isAnswered }) => isAnswered))
    await turns(30)
    diskOf(image).abandon()
    diskOf(image).abandon()
    for (const error of await Promise.all(reads)) {
      expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_CLOSED', { layer: server.url().href })
    }
    const later = await rejection(t, readBytes(image, 0, 10))
    expectError(t, later, Qcow2UsageError, 'ERR_QCOW2_CLOSED')
    await image.close()
    t.equal(server.requests.length, before + 6, 'those that had not begun never did')
    await until(() => server.underWay === 0)
    t.same(salvaged, [], 'no zeros are made of it')
    t.same(await leftovers(), [])
  })
}

t.test('opening that waits for a download ends, and leaves no copy', { skip: cannotCount }, async (t) => {
  const server = await startServer(t, disk.bytes)
  const spoolDirectory = t.testdir()
  const leftovers = watchLeftovers()
  const controller = new AbortController()
  server.each = (answer, request) => {
    void whole(server)(answer, request)
    void cut(100_000, 'hang')(answer, request)
  }
  const done = new Gate()
  const opening = rejection(
    t,
    Qcow2Image.open(server.url(), {
      spoolDirectory,
      signal: controller.signal,
      onSpool: ({ bytesDone }) => (bytesDone === 100_000 ? done.open() : undefined),
    }),
  )
  await done.opened
  controller.abort(reason)
  t.equal(await opening, reason)
  t.same(openDescriptors(spoolDirectory), [])
  t.same(getEventListeners(controller.signal, 'abort'), [])
  await until(() => server.underWay === 0)
  t.same(await leftovers(), [])
})

t.test('a signal that fires after opening, or before, is heard by nobody', async (t) => {
  const server = await startServer(t, disk.bytes)
  const controller = new AbortController()
  const image = await opened(t, server.url(), { signal: controller.signal })
  t.same(getEventListeners(controller.signal, 'abort'), [])
  controller.abort(reason)
  t.ok((await readBytes(image, 100_000, 10)).equals(disk.guest.subarray(100_000, 100_010)))

  const before = server.requests.length
  const options: Qcow2OpenOptions = { signal: AbortSignal.abort(reason) }
  t.equal(await rejection(t, Qcow2Image.open(server.url(), options)), reason)
  t.equal(server.requests.length, before)
})

t.test('a host file', async (t) => {
  t.test('tells its source, whose failure then means that it is closed', async (t) => {
    const signals: AbortSignal[] = []
    const file = new HostFile(
      {
        size: 100,
        read: (_target, _offset, signal) =>
          new Promise((_resolve, reject) => {
            signals.push(signal)
            signal.addEventListener('abort', () => reject(new Error('however it is told')))
          }),
        close: () => Promise.resolve(),
      },
      { label: 'a source' },
    )
    const reads = [rejection(t, file.read(new Uint8Array(10), 0)), rejection(t, file.read(new Uint8Array(10), 50))]
    await until(() => signals.length === 2)
    t.notOk(signals.some(({ aborted }) => aborted))
    file.abandon()
    for (const read of reads) expectError(t, await read, Qcow2UsageError, 'ERR_QCOW2_CLOSED', { layer: 'a source' })
    await file.close()
  })

  t.test('does not ask a source for the rest of what it gave in part', async (t) => {
    let reads = 0
    const gate = new Gate<number>()
    const read = (): Promise<number> => {
      reads++
      return gate.opened
    }
    const file = new HostFile({ size: 100, read, close: () => Promise.resolve() }, { label: 'a source' })
    const reading = rejection(t, file.read(new Uint8Array(10), 0))
    file.abandon()
    gate.open(4)
    expectError(t, await reading, Qcow2UsageError, 'ERR_QCOW2_CLOSED', { layer: 'a source' })
    t.equal(reads, 1)
    await file.close()
  })

  t.test('lets a source end that does not care, as it likes', async (t) => {
    const gate = new Gate<number>()
    const file = new HostFile(
      { size: 100, read: () => gate.opened, close: () => Promise.resolve() },
      { label: 'a source' },
    )
    const reading = file.read(new Uint8Array(10), 0)
    file.abandon()
    gate.open(10)
    await reading
    await file.close()
    t.throws(() => file.holes, { code: 'ERR_QCOW2_CLOSED' })
  })
})
