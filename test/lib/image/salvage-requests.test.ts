/**
 * Salvaging from a server: damage of the image becomes zeros, a server that fails or has another image now ends the reading.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { convert, createReadStream, Qcow2SourceError, type Qcow2Damage, type Qcow2Image } from '../../../lib/index.js'
import { chunksOf } from '../../fixtures/consume.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { body, headers, raw, startServer, status, type Change, type TestServer } from '../../fixtures/http-server.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { pattern, text } from '../../fixtures/patterns.js'

const CLUSTER = 65536

// Its tables lie behind what the first request brings, and each of its clusters has a place of its own.
const image = buildImage({
  virtualSize: 2 ** 30,
  clusters: [
    [0, { kind: 'data', bytes: pattern(0, CLUSTER) }],
    [1, { kind: 'compressed', bytes: text(1, CLUSTER) }],
    [2, { kind: 'compressed-raw', payload: pattern(2, 3000) }],
    [8192, { kind: 'data', bytes: pattern(3, CLUSTER) }],
  ],
})

const FAILURES: Readonly<
  Record<string, [change: Change, code: 'ERR_QCOW2_REQUEST_FAILED' | 'ERR_QCOW2_SOURCE_CHANGED']>
> = {
  'says no': [status(403), 'ERR_QCOW2_REQUEST_FAILED'],
  'is busy': [status(503), 'ERR_QCOW2_REQUEST_FAILED'],
  'breaks off': [raw('reset'), 'ERR_QCOW2_REQUEST_FAILED'],
  'sends too much': [body((bytes) => Buffer.concat([bytes, bytes])), 'ERR_QCOW2_REQUEST_FAILED'],
  'has another image': [headers({ etag: '"second"' }), 'ERR_QCOW2_SOURCE_CHANGED'],
}

/** What is read, and which request it is that fails, from 1 on behind the first. */
const READS: Readonly<Record<string, [offset: number, length: number, fails: number]>> = {
  'the L1 table': [0, 512, 1],
  'an L2 table': [0, 512, 2],
  data: [0, 512, 3],
  'a part of a compressed cluster': [CLUSTER + 5, 10, 3],
  'a compressed cluster': [CLUSTER, CLUSTER, 3],
  'data in another table': [2 ** 29, 512, 3],
}

async function salvaging(t: Test, server: TestServer): Promise<{ disk: Qcow2Image; damage: Qcow2Damage[] }> {
  const damage: Qcow2Damage[] = []
  const salvage = (found: Qcow2Damage): void => void damage.push(found)
  return { disk: await opened(t, server.url(), { salvage, http: { retries: 1, retryMilliseconds: 0 } }), damage }
}

for (const [how, [change, code]] of Object.entries(FAILURES)) {
  t.test(`a server that ${how} ends a read, and may do better later`, async (t) => {
    for (const [what, [offset, length, fails]] of Object.entries(READS)) {
      const server = await startServer(t, image.bytes)
      const { disk, damage } = await salvaging(t, server)
      server.next(...Array.from({ length: fails - 1 }, () => () => undefined), change, change)
      const error = await rejection(t, readBytes(disk, offset, length))
      expectError(t, error, Qcow2SourceError, code, { layer: server.url().href })
      server.behave()
      const cluster = image.guestCluster(Math.floor(offset / CLUSTER))
      const expected = cluster.subarray(offset % CLUSTER, (offset % CLUSTER) + length)
      t.ok((await readBytes(disk, offset, length)).equals(expected), what)
      t.same(damage, [])
    }
  })
}

t.test('streams and conversions end as well, and leave no output', async (t) => {
  for (const [change, code] of Object.values(FAILURES)) {
    for (const prompt of [1, 2, 3, 4]) {
      const server = await startServer(t, image.bytes)
      const folder = t.testdir()
      const damage: Qcow2Damage[] = []
      const salvage = (found: Qcow2Damage): void => void damage.push(found)
      const options = { salvage, http: { retries: 0 } }
      server.next(...Array.from({ length: prompt }, () => () => undefined))
      server.each = change
      const streamed = await rejection(t, chunksOf(createReadStream(server.url(), { ...options, objectMode: true })))
      expectError(t, streamed, Qcow2SourceError, code)
      server.behave()
      server.next(...Array.from({ length: prompt }, () => () => undefined))
      server.each = change
      const converted = await rejection(t, convert(server.url(), join(folder, 'out'), options))
      expectError(t, converted, Qcow2SourceError, code)
      t.same(readdirSync(folder), [])
      t.ok(damage.every(({ error }) => error.code === 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER'))
    }
  }
})

t.test('damage of the image itself becomes zeros', async (t) => {
  const server = await startServer(t, image.bytes)
  const { disk, damage } = await salvaging(t, server)
  t.ok((await readBytes(disk, 2 * CLUSTER, CLUSTER)).equals(Buffer.alloc(CLUSTER)))
  t.match(damage, [{ offset: 2 * CLUSTER, length: CLUSTER, error: { code: 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER' } }])
})
