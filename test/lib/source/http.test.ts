/**
 * Files on servers: the bytes of any part, whatever happens on the way; what is no part of the same file is an error.
 */
import { readdirSync } from 'node:fs'
import t, { type Test } from 'tap'
import { Qcow2SourceError, Qcow2UnsupportedError } from '../../../lib/errors.js'
import { openHttp, type HttpSourceOptions } from '../../../lib/source/http.js'
import type { HostFile } from '../../../lib/source/source.js'
import type { Qcow2SpoolProgress } from '../../../lib/source/spool.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import {
  body,
  both,
  cut,
  headers,
  raw,
  redirect,
  startServer,
  status,
  whole,
  type Change,
  type TestServer,
} from '../../fixtures/http-server.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { pattern } from '../../fixtures/patterns.js'
import { recordWaits } from '../../fixtures/recorded-waits.js'
import { Gate, turns, until } from '../../fixtures/turns.js'

const HEAD = 65536
const SIZE = 3 * 2 ** 20 + 777
const CONTENT = pattern(1, SIZE)
const QUICK = { retryMilliseconds: 0 } as const

interface Options extends Omit<HttpSourceOptions, 'spool'> {
  readonly spool?: Partial<HttpSourceOptions['spool']>
}

/** Opens a file, which the test closes at its end. */
async function opened(t: Test, from: TestServer | URL, options: Options = {}): Promise<HostFile> {
  const { http = QUICK, spool, signal } = options
  const file = await openHttp(from instanceof URL ? from : from.url(), {
    http,
    spool: { mostBytes: Number.MAX_SAFE_INTEGER, directory: t.testdir(), ...spool },
    signal,
  })
  t.teardown(() => file.close())
  return file
}

async function read(file: HostFile, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length, 0xee)
  await file.read(bytes, offset)
  return bytes
}

/** Asserts that bytes are those of the file, with zeros past its end. */
async function reads(t: Test, file: HostFile, offset: number, length: number, content = CONTENT): Promise<void> {
  const expected = Buffer.alloc(length)
  expected.set(content.subarray(offset, offset + length))
  t.ok((await read(file, offset, length)).equals(expected), `${length} bytes at ${offset}`)
}

/** Asserts that it fails as what a server does wrong. */
async function fails(
  t: Test,
  attempt: Promise<unknown>,
  code: 'ERR_QCOW2_REQUEST_FAILED' | 'ERR_QCOW2_SOURCE_CHANGED',
  says: RegExp,
  layer: string,
): Promise<void> {
  const error = await rejection(t, attempt)
  expectError(t, error, Qcow2SourceError, code, { layer })
  t.match((error as Error).message, says)
}

t.test('a file that is read in parts', async (t) => {
  t.test('is complete with its last byte, whatever comes after it', async (t) => {
    const server = await startServer(t, CONTENT)
    const file = await opened(t, server)
    server.next(both(headers({ 'content-length': undefined, 'transfer-encoding': 'chunked' }), cut(1000, 'reset')))
    await reads(t, file, 2 ** 20, 1000)
    t.same(server.ranges.slice(1), [[2 ** 20, 2 ** 20 + 1000]])
  })

  t.test('has the bytes of the file, and is asked for no more than is read', async (t) => {
    const server = await startServer(t, CONTENT)
    const file = await opened(t, server.url('/a/disk.qcow2?x'))
    t.equal(file.size, SIZE)
    t.equal(file.fetched, 'in-parts')
    t.equal(file.label, server.url('/a/disk.qcow2?…').href.replace(/%E2%80%A6/, '…'))
    t.equal(file.identity, server.url('/a/disk.qcow2?x').href)
    t.equal(file.path, undefined)
    t.equal(file.holes, undefined)
    for (const [offset, length] of [
      [0, 1],
      [0, HEAD],
      [HEAD - 1, 1],
    ] as const) {
      await reads(t, file, offset, length)
    }
    t.same(server.ranges, [[0, HEAD]], 'what came first is not asked for again')
    await reads(t, file, HEAD - 10, 30)
    await reads(t, file, HEAD, 1)
    await reads(t, file, SIZE - 5, 5)
    await reads(t, file, SIZE - 5, 50)
    await reads(t, file, SIZE, 50)
    await reads(t, file, SIZE + 1000, 50)
    await reads(t, file, 1_000_001, 70_000)
    t.same(server.ranges.slice(1), [
      [HEAD, HEAD + 20],
      [HEAD, HEAD + 1],
      [SIZE - 5, SIZE],
      [SIZE - 5, SIZE],
      [1_000_001, 1_070_001],
    ])
    await reads(t, file, 0, SIZE + 9)
  })

  t.test('of any length is read to its end', async (t) => {
    for (const length of [0, 1, HEAD - 1, HEAD, HEAD + 1]) {
      const content = pattern(length, length)
      const server = await startServer(t, content)
      const file = await opened(t, server)
      t.equal(file.size, length)
      t.equal(file.fetched, 'in-parts')
      await reads(t, file, 0, length + 10, content)
      t.equal(server.requests.length, length > HEAD ? 2 : 1)
    }
  })

  t.test('read by read uses one connection', async (t) => {
    const server = await startServer(t, CONTENT)
    const file = await opened(t, server)
    for (let i = 0; i < 50; i++) await reads(t, file, HEAD + i * 60_000, i % 2 === 0 ? 10 : 60_000)
    t.equal(server.requests.length, 51)
    t.equal(server.connections, 1)
  })

  t.test('may be read at several places at once', async (t) => {
    const server = await startServer(t, CONTENT)
    const file = await opened(t, server)
    server.each = () => turns(10)
    const places = Array.from({ length: 40 }, (_, i) => (i * 768_143) % SIZE)
    await Promise.all(places.map((offset) => reads(t, file, offset, 3000)))
    t.ok(server.requests.length <= 41, `${server.requests.length} requests`)
    t.equal(server.mostUnderWay, 6)
  })

  t.test('is asked for with as many requests at once as the option says', async (t) => {
    for (const requests of [1, 3, 64]) {
      const server = await startServer(t, pattern(2, 100 * 200_000))
      const file = await opened(t, server, { http: { ...QUICK, requests } })
      const gate = new Gate()
      server.each = () => gate.opened
      const warnings: Error[] = []
      const note = (warning: Error): void => void warnings.push(warning)
      process.on('warning', note)
      const reading = Array.from({ length: 80 }, (_, i) => read(file, (i + 1) * 200_000, 10))
      await until(() => server.underWay === requests)
      await turns(20)
      t.equal(server.underWay, requests)
      gate.open()
      await Promise.all(reading)
      t.equal(server.mostUnderWay, requests)
      t.same(warnings, [], 'however many listen to one signal')
      process.off('warning', note)
    }
  })

  t.test('refuses reads once it is closed, and waits for those under way', async (t) => {
    const server = await startServer(t, CONTENT)
    const file = await opened(t, server)
    const reading = reads(t, file, 2 ** 20, 1000)
    await file.close()
    await reading
    t.match(await rejection(t, read(file, 0, 1)), { code: 'ERR_QCOW2_CLOSED' })
  })
})

t.test('opening', async (t) => {
  t.test('fails with what the server answers', async (t) => {
    const server = await startServer(t, CONTENT)
    const cases: [change: Change, says: RegExp][] = [
      [status(404), /opening: the server answered 404 Not Found$/],
      [status(410), /410 Gone$/],
      [
        status(401, { 'www-authenticate': 'Basic realm=x' }),
        /answered 401 Unauthorized; credentials, .* http\.headers$/,
      ],
      [status(403), /answered 403 Forbidden; credentials, such as an Authorization header, .* http\.headers$/],
      [status(416), /416 Range Not Satisfiable$/],
      [status(416, { 'content-range': `bytes */${SIZE}` }), /416/],
      [status(302), /302 Found$/],
      [status(204), /204 No Content$/],
      [raw('end', 'HTTP/1.1 499 \x1b[31mred\x1b[0m\r\nContent-Length: 0\r\n\r\n'), /499|Invalid/],
      [raw('end', 'HTTP/1.1 418\r\nContent-Length: 0\r\n\r\n'), /answered 418$/],
    ]
    for (const [change, says] of cases) {
      server.next(change)
      const before = server.requests.length
      await fails(t, opened(t, server, { http: { retries: 0 } }), 'ERR_QCOW2_REQUEST_FAILED', says, server.url().href)
      t.equal(server.requests.length, before + 1)
    }
  })

  t.test('fails with ranges that are not what was asked for', async (t) => {
    const server = await startServer(t, CONTENT)
    const range = (value: string | undefined): Change => headers({ 'content-range': value })
    const cases: [change: Change, says: RegExp][] = [
      [range(undefined), /206 Partial Content with the range ""$/],
      [range(`bytes 1-65536/${SIZE}`), /the range "bytes 1-65536\/3146505"$/],
      [range('bytes 0-65535/*'), /"bytes 0-65535\/\*"$/],
      [range(`bytes */${SIZE}`), /"bytes \*/],
      [range(`bytes 0-65536/${SIZE}`), /"bytes 0-65536/],
      [range('bytes 0-65535/65535'), /"bytes 0-65535\/65535"/],
      [range('bytes 0-65535/9007199254740993'), /9007199254740993/],
      [range(`bytes 0--1/${SIZE}`), /0--1/],
      [range(`items 0-65535/${SIZE}`), /items/],
      [range(`bytes 0-65535/${SIZE}, bytes 0-65535/${SIZE}`), /, bytes/],
      [
        headers({ 'content-range': undefined, 'content-type': 'multipart/byteranges; boundary=x' }),
        /with the range ""$/,
      ],
      [both(whole(server), headers({ 'content-encoding': 'gzip' })), /answered 200 OK, encoded as "gzip"$/],
      [headers({ 'content-encoding': 'gzip' }), /the range "bytes 0-65535\/3146505", encoded as "gzip"$/],
      [body((bytes) => Buffer.concat([bytes, bytes])), /opening: the answer is longer than it says$/],
      [
        both(
          range('bytes 0-9/20'),
          body((bytes) => bytes.subarray(0, 11)),
        ),
        /longer than it says$/,
      ],
    ]
    for (const [change, says] of cases) {
      server.next(change)
      await fails(t, opened(t, server), 'ERR_QCOW2_REQUEST_FAILED', says, server.url().href)
    }
    t.equal(server.requests.length, cases.length, 'none of them was tried again')
  })

  t.test('does not read on what it did not ask for', async (t) => {
    const server = await startServer(t, Buffer.alloc(2 ** 25))
    server.next((answer) => {
      answer.headers['content-range'] = `bytes 0-${2 ** 25 - 1}/${2 ** 25}`
      answer.body = server.bytes
    })
    await fails(t, opened(t, server), 'ERR_QCOW2_REQUEST_FAILED', /range "bytes 0-33554431/, server.url().href)
    await until(() => server.underWay === 0)
    t.ok(server.sentBytes < 2 ** 24)
  })

  t.test('takes as much of a beginning as the server gives', async (t) => {
    const server = await startServer(t, CONTENT)
    server.next((answer) => {
      answer.headers['content-range'] = `bytes 0-999/${SIZE}`
      answer.body = answer.body.subarray(0, 1000)
    })
    const file = await opened(t, server)
    await reads(t, file, 990, 20)
    t.same(server.ranges, [
      [0, HEAD],
      [1000, 1010],
    ])
  })

  t.test('is tried again when the beginning breaks off or does not come', async (t) => {
    const server = await startServer(t, CONTENT)
    const short: Change = both(
      headers({ 'content-range': `bytes 0-65535/${SIZE}` }),
      body((bytes) => bytes.subarray(0, 500)),
    )
    server.next(status(503), cut(1000, 'reset'), raw('reset'), short, status(429))
    await reads(t, await opened(t, server), 0, 100_000)
    server.each = short
    await fails(
      t,
      opened(t, server),
      'ERR_QCOW2_REQUEST_FAILED',
      /opening: the answer broke off after 500 of 65536 bytes \(tried 6 times\)$/,
      server.url().href,
    )
  })

  t.test('follows redirects once, for all that is read later', async (t) => {
    const server = await startServer(t, CONTENT)
    const store = await startServer(t, CONTENT)
    server.next(redirect('/latest'), redirect(store.url('/v7?signature=secret')))
    const file = await opened(t, server, { http: { headers: { authorization: 'Bearer abc' } } })
    t.equal(file.label, server.url().href)
    t.equal(file.identity, store.url('/v7?signature=secret').href)
    for (let i = 1; i < 5; i++) await reads(t, file, i * 100_000, 1000)
    t.equal(server.requests.length, 2)
    t.equal(store.requests.length, 5)
    t.notOk(store.requests.some((request) => 'authorization' in request.headers))
    store.next(redirect('/v8'))
    await fails(t, read(file, SIZE - 1, 1), 'ERR_QCOW2_REQUEST_FAILED', /somewhere else/, server.url().href)
  })

  t.test('refuses options that are none', async (t) => {
    const error = await rejection(t, opened(t, new URL('http://127.0.0.1/'), { http: { requests: 0 } }))
    t.match(error, { code: 'ERR_QCOW2_BAD_ARGUMENT', field: 'http.requests' })
  })
})

t.test('a read', async (t) => {
  const AT = 500_000
  const LENGTH = 300_000

  t.test('goes on where an answer broke off', async (t) => {
    const server = await startServer(t, CONTENT)
    const file = await opened(t, server)
    server.next(cut(100_000, 'reset'), status(503), raw('reset'), cut(50_000, 'reset'))
    await reads(t, file, AT, LENGTH)
    const [, ...ranges] = server.ranges
    t.equal(ranges.length, 5)
    t.same(ranges[0], [AT, AT + LENGTH])
    const starts = ranges.map((range) => range![0])
    t.ok(starts[1]! > AT && starts[1]! <= AT + 100_000, 'what came is not asked for again')
    t.same([starts[2], starts[3]], [starts[1], starts[1]])
    t.ok(starts[4]! > starts[3]! && starts[4]! <= starts[3]! + 50_000)
    t.ok(ranges.every((range) => range![1] === AT + LENGTH))
  })

  t.test('goes on where an answer stopped', async (t) => {
    const server = await startServer(t, CONTENT)
    const file = await opened(t, server, { http: { ...QUICK, idleMilliseconds: 300 } })
    server.next(cut(100_000, 'hang'), raw('hang'))
    await reads(t, file, AT, LENGTH)
    t.ok(server.requests.length >= 4)
    t.ok(server.ranges.at(-1)![0] > AT)
    await until(() => server.underWay === 0)
  })

  t.test('goes on behind a part that was shorter than what was asked for, without a pause', async (t) => {
    const server = await startServer(t, CONTENT)
    const file = await opened(t, server, { http: { retries: 0 } })
    const waits = recordWaits(t)
    server.each = (answer, { range }) => {
      const { start } = range!
      answer.body = answer.body.subarray(0, 65_536)
      answer.headers['content-range'] = `bytes ${start}-${start + answer.body.length - 1}/${SIZE}`
    }
    await reads(t, file, AT, LENGTH)
    t.equal(server.requests.length, 1 + Math.ceil(LENGTH / 65_536))
    t.same(waits, [])
  })

  t.test('fails when nothing comes any more, and the next one may do better', async (t) => {
    const server = await startServer(t, CONTENT)
    const file = await opened(t, server, { http: { ...QUICK, retries: 2 } })
    const place = `reading 300000 bytes at host offset 0x7a120: `
    const cases: [change: Change, says: RegExp][] = [
      [status(503), /the server answered 503 Service Unavailable \(tried 3 times\)$/],
      [raw('reset'), /(read ECONNRESET|other side closed) \(tried 3 times\)$/],
      [body((bytes) => bytes.subarray(0, 0)), /the answer broke off at host offset 0x7a120 \(tried 3 times\)$/],
    ]
    for (const [change, says] of cases) {
      server.each = change
      const before = server.requests.length
      const source = new RegExp(`${place}${says.source}`, says.flags)
      await fails(t, read(file, AT, LENGTH), 'ERR_QCOW2_REQUEST_FAILED', source, server.url().href)
      t.equal(server.requests.length, before + 3)
      server.each = () => undefined
      await reads(t, file, AT, LENGTH)
    }
  })

  t.test('fails with answers that are none', async (t) => {
    const server = await startServer(t, CONTENT)
    const file = await opened(t, server)
    const range = (start: number, end: number, size: number | string = SIZE): Change =>
      headers({ 'content-range': `bytes ${start}-${end - 1}/${size}` })
    const asked = `the server answered the request for bytes ${AT}-${AT + LENGTH - 1} with`
    const cases: [change: Change, says: RegExp][] = [
      [status(404), new RegExp(`${asked} 404 Not Found$`)],
      [
        status(403),
        /403 Forbidden; it answered before, so that the address may have expired, or what the option http\.headers sends$/,
      ],
      [status(401), /401 Unauthorized; it answered before, so that the address may have expired/],
      [status(302), /302 Found$/],
      [
        range(AT + 1, AT + LENGTH),
        new RegExp(`${asked} 206 Partial Content with the range "bytes 500001-799999/3146505"$`),
      ],
      [range(AT - 1, AT + LENGTH), /"bytes 499999-/],
      [range(AT, AT + LENGTH + 1), /"bytes 500000-800000\//],
      [range(AT, AT), /"bytes 500000-499999\//],
      [range(AT, AT + LENGTH, '*'), /799999\/\*"$/],
      [headers({ 'content-range': undefined }), /with the range ""$/],
      [headers({ 'content-range': undefined, 'content-type': 'multipart/byteranges; boundary=x' }), /the range ""$/],
      [headers({ 'content-encoding': 'gzip' }), /799999\/3146505", encoded as "gzip"$/],
      [
        body((bytes) => Buffer.concat([bytes, Buffer.from('more')])),
        /reading 300000 bytes at host offset 0x7a120: the answer is longer than it says$/,
      ],
      [
        both(
          range(AT, AT + 9),
          body((bytes) => bytes.subarray(0, 10)),
        ),
        /longer than it says$/,
      ],
    ]
    for (const [change, says] of cases) {
      server.next(change)
      const before = server.requests.length
      await fails(t, read(file, AT, LENGTH), 'ERR_QCOW2_REQUEST_FAILED', says, server.url().href)
      t.equal(server.requests.length, before + 1, 'not tried again')
    }
    await reads(t, file, AT, LENGTH)
  })

  t.test('fails without harm to others that are under way', async (t) => {
    const server = await startServer(t, CONTENT)
    const file = await opened(t, server)
    server.each = (answer, request) => {
      if (request.range!.start === AT) return status(404)(answer, request)
      return undefined
    }
    const others = [100_000, 900_000, 2_000_000].map((offset) => reads(t, file, offset, 5000))
    await fails(t, read(file, AT, 100), 'ERR_QCOW2_REQUEST_FAILED', /404/, server.url().href)
    await Promise.all(others)
  })
})

t.test('a file that changes while it is read', async (t) => {
  const CHANGES: Readonly<Record<string, [change: (server: TestServer) => void, says: RegExp]>> = {
    'has another ETag': [
      (server) => (server.etag = '"second"'),
      /the file changed while it was read: it was "\\"first\\"" and is "\\"second\\""$/,
    ],
    'has a weak ETag': [(server) => (server.etag = 'W/"first"'), /is "W\/\\"first\\", Sat, 01 Jan 2022 00:00:00 GMT"$/],
    'has no ETag any more': [(server) => (server.etag = undefined), /is "Sat, 01 Jan 2022 00:00:00 GMT"$/],
    'has neither ETag nor date any more': [
      (server) => (server.etag = server.lastModified = undefined),
      /it was "\\"first\\"" and is "unnamed"$/,
    ],
    'is longer': [
      (server) => (server.bytes = Buffer.concat([CONTENT, CONTENT])),
      /it had 3146505 bytes and has 6293010$/,
    ],
    'is shorter': [(server) => (server.bytes = CONTENT.subarray(0, 2 ** 21)), /it had 3146505 bytes and has 2097152$/],
    'ends before what is read': [
      (server) => (server.bytes = CONTENT.subarray(0, 100)),
      /the server answered 416 Range Not Satisfiable to a request for a part$/,
    ],
    'comes as a whole': [
      (server) => (server.each = whole(server)),
      /the server answered 200 OK to a request for a part$/,
    ],
  }
  for (const [what, [change, says]] of Object.entries(CHANGES)) {
    t.test(what, async (t) => {
      const server = await startServer(t, CONTENT)
      const file = await opened(t, server)
      await reads(t, file, 2 ** 20, 100)
      change(server)
      await fails(t, read(file, 2 ** 20, 1000), 'ERR_QCOW2_SOURCE_CHANGED', says, server.url().href)
      t.equal(server.requests.length, 3, 'is not asked for again')
      await reads(t, file, 0, 1000)
    })
  }

  t.test('in the middle of one read', async (t) => {
    const server = await startServer(t, CONTENT)
    const file = await opened(t, server)
    server.next(cut(1000, 'reset'), (answer) => {
      answer.headers['etag'] = '"second"'
    })
    await fails(t, read(file, 2 ** 20, 5000), 'ERR_QCOW2_SOURCE_CHANGED', /second/, server.url().href)
  })

  t.test('without ETags, by when it was last modified', async (t) => {
    const later = 'Sun, 02 Jan 2022 00:00:00 GMT'
    const cases: [before: string | undefined, after: string | undefined, says: RegExp][] = [
      ['Sat, 01 Jan 2022 00:00:00 GMT', later, /it was "Sat, 01 Jan 2022 00:00:00 GMT" and is "Sun, 02/],
      ['Sat, 01 Jan 2022 00:00:00 GMT', undefined, /and is "unnamed"$/],
      [undefined, later, /it was "unnamed" and is "Sun/],
    ]
    for (const [before, after, says] of cases) {
      const server = await startServer(t, CONTENT)
      server.etag = undefined
      server.lastModified = before
      const file = await opened(t, server)
      await reads(t, file, 2 ** 20, 100)
      server.lastModified = after
      await fails(t, read(file, 2 ** 20, 100), 'ERR_QCOW2_SOURCE_CHANGED', says, server.url().href)
    }
  })

  t.test('by an ETag that it did not have', async (t) => {
    const server = await startServer(t, CONTENT)
    server.etag = undefined
    const file = await opened(t, server)
    server.etag = '"first"'
    await fails(
      t,
      read(file, 2 ** 20, 9),
      'ERR_QCOW2_SOURCE_CHANGED',
      /it was "Sat, 01 Jan 2022 .* and is "\\"first/,
      server.url().href,
    )
  })

  t.test('not by its date alone, if the ETag is the same', async (t) => {
    const server = await startServer(t, CONTENT)
    const file = await opened(t, server)
    server.lastModified = undefined
    await reads(t, file, 2 ** 20, 100)
  })

  t.test('by its date, if the ETag is a weak one', async (t) => {
    const server = await startServer(t, CONTENT)
    server.etag = 'W/"first"'
    const file = await opened(t, server)
    await reads(t, file, 2 ** 20, 100)
    server.lastModified = 'Sun, 02 Jan 2022 00:00:00 GMT'
    const says = /it was "W\/\\"first\\", Sat, 01 .* and is "W\/\\"first\\", Sun, 02 /
    await fails(t, read(file, 2 ** 20, 9), 'ERR_QCOW2_SOURCE_CHANGED', says, server.url().href)
  })

  t.test('unseen by servers that say neither, but for its size', async (t) => {
    const server = await startServer(t, CONTENT)
    server.etag = server.lastModified = undefined
    const file = await opened(t, server)
    await reads(t, file, 2 ** 20, 100)
    server.bytes = CONTENT.subarray(1)
    await fails(t, read(file, 2 ** 20, 9), 'ERR_QCOW2_SOURCE_CHANGED', /has 3146504$/, server.url().href)
  })
})

t.test('a server without ranges', async (t) => {
  t.test('is asked once, for all of it', async (t) => {
    const server = await startServer(t, CONTENT)
    server.each = whole(server)
    const heard: Qcow2SpoolProgress[] = []
    const file = await opened(t, server.url('/a?b'), { spool: { onProgress: (progress) => heard.push(progress) } })
    t.equal(file.fetched, 'as-a-whole')
    t.equal(file.size, SIZE)
    t.match(file.label, /\/a\?…$/)
    for (const offset of [0, 2 ** 20, SIZE - 10]) await reads(t, file, offset, 1000)
    await reads(t, file, 0, SIZE)
    t.equal(server.requests.length, 1)
    t.match(heard[0], { reason: 'no-ranges', bytesDone: 0, bytesTotal: SIZE, bytesPerSecond: 0 })
    t.match(heard.at(-1), { reason: 'no-ranges', bytesDone: SIZE, bytesTotal: SIZE, secondsLeft: 0 })
    t.ok(heard.every(({ bytesDone }, i) => i === 0 || bytesDone > heard[i - 1]!.bytesDone))
  })

  t.test('is refused if nobody could tell whether all of its answer has come', async (t) => {
    const server = await startServer(t, CONTENT)
    const answers: Readonly<Record<string, Change>> = {
      'ends with its connection': raw('end', 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nQFI'),
      'has chunks on a connection that is closed': whole(server, {
        'content-length': undefined,
        'transfer-encoding': 'chunked',
        connection: 'close',
      }),
    }
    for (const [what, change] of Object.entries(answers)) {
      await t.test(what, async (t) => {
        server.each = change
        await fails(t, opened(t, server), 'ERR_QCOW2_REQUEST_FAILED', /without a length/, server.url().href)
      })
    }
  })

  t.test('need not say how much it is', async (t) => {
    const server = await startServer(t, CONTENT)
    server.each = whole(server, { 'content-length': undefined, 'transfer-encoding': 'chunked' })
    const totals = new Set<unknown>()
    const file = await opened(t, server, { spool: { onProgress: ({ bytesTotal }) => totals.add(bytesTotal) } })
    await reads(t, file, 0, SIZE)
    t.same([...totals], [undefined])
  })

  t.test('may have an empty file', async (t) => {
    const server = await startServer(t, Buffer.alloc(0))
    server.each = whole(server)
    const file = await opened(t, server)
    t.equal(file.size, 0)
    await reads(t, file, 0, 10, Buffer.alloc(0))
  })

  t.test('is asked again when the download breaks off, and leaves no copy', { skip: cannotCount }, async (t) => {
    const server = await startServer(t, CONTENT)
    const directory = t.testdir()
    const chunked = whole(server, { 'content-length': undefined, 'transfer-encoding': 'chunked' })
    const broken: Readonly<Record<string, Change>> = {
      'with a length': both(whole(server), cut(100_000, 'reset')),
      'in chunks': both(chunked, cut(100_000, 'reset')),
      stopped: both(whole(server), cut(100_000, 'hang')),
    }
    for (const [what, change] of Object.entries(broken)) {
      await t.test(what, async (t) => {
        server.next(change, change)
        server.each = whole(server)
        const starts: number[] = []
        const http = { ...QUICK, retries: 2, idleMilliseconds: 500 }
        const onProgress = ({ bytesDone }: Qcow2SpoolProgress): unknown => bytesDone === 0 && starts.push(0)
        const file = await opened(t, server, { http, spool: { directory, onProgress } })
        await reads(t, file, 0, SIZE)
        t.equal(starts.length, 3, 'from the beginning')
        t.equal(openDescriptors(directory).length, 1)
        await file.close()
        server.each = change
        const error = await rejection(t, opened(t, server, { http, spool: { directory } }))
        expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_REQUEST_FAILED', { layer: server.url().href })
        t.match((error as Error).message, /opening: .+ \(tried 3 times\)$/)
        t.same(openDescriptors(directory), [])
        t.same(readdirSync(directory), [])
      })
    }
  })

  t.test('is asked as often as it takes if each answer comes further than those before', async (t) => {
    const server = await startServer(t, CONTENT)
    // Of an answer that breaks off, what has come and has not been read yet is lost: it stops instead.
    const ends = (bytes: number): Change => both(whole(server), cut(bytes, 'hang'))
    const http = { ...QUICK, retries: 1, idleMilliseconds: 400 }
    const further = [1, 2, 3, 4].map((n) => ends(n * 100_000))
    server.next(...further)
    server.each = whole(server)
    const file = await opened(t, server, { http })
    await reads(t, file, 0, SIZE)
    t.equal(server.requests.length, 5)

    // What has come before is no progress.
    server.next(...further, ends(400_000), ends(400_000))
    await fails(t, opened(t, server, { http }), 'ERR_QCOW2_REQUEST_FAILED', /\(tried 2 times\)$/, server.url().href)
    t.equal(server.requests.length, 10)
  })

  t.test('that refuses the next try may have let its address expire', async (t) => {
    const server = await startServer(t, CONTENT)
    server.next(both(whole(server), cut(100_000, 'hang')), status(403))
    const says = /opening: the server answered 403 Forbidden; it answered before, so that the address may have expired/
    const http = { ...QUICK, idleMilliseconds: 400 }
    await fails(t, opened(t, server, { http }), 'ERR_QCOW2_REQUEST_FAILED', says, server.url().href)
  })

  t.test('is not asked again for what fails here', { skip: cannotCount }, async (t) => {
    const server = await startServer(t, CONTENT)
    const directory = t.testdir()
    server.each = whole(server)
    const bug = new TypeError('a bug of the caller')
    const throwing = (): void => {
      throw bug
    }
    t.equal(await rejection(t, opened(t, server, { spool: { directory, onProgress: throwing } })), bug)
    const error = await rejection(t, opened(t, server, { spool: { directory, mostBytes: SIZE - 1 } }))
    expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_SIZE', { field: 'limits.spoolBytes' })
    const missing = await rejection(t, opened(t, server, { spool: { directory: `${directory}/missing` } }))
    expectError(t, missing, Qcow2SourceError, 'ERR_QCOW2_SPOOL_FAILED')
    t.equal(server.requests.length, 3)
    t.same(openDescriptors(directory), [])
    await until(() => server.underWay === 0)
  })

  t.test('may be aborted', { skip: cannotCount }, async (t) => {
    const server = await startServer(t, CONTENT)
    const directory = t.testdir()
    const reason = new Error('enough')
    const controller = new AbortController()
    server.each = both(whole(server), cut(100_000, 'hang'))
    const onProgress = ({ bytesDone }: Qcow2SpoolProgress): void => {
      if (bytesDone === 100_000) setImmediate(() => controller.abort(reason))
    }
    const { signal } = controller
    const error = await rejection(t, opened(t, server, { signal, spool: { directory, onProgress, signal } }))
    t.equal(error, reason)
    t.same(openDescriptors(directory), [])
    await until(() => server.underWay === 0)
  })
})
