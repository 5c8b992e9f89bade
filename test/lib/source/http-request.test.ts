/**
 * Requests: what is sent to whom, where redirects lead, how often something is tried and how long is waited in between.
 */
import dns from 'node:dns'
import { getEventListeners } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Qcow2SourceError } from '../../../lib/errors.js'
import type { Qcow2HttpOptions } from '../../../lib/source/http-options.js'
import { HttpRequests, labelOf, TryAgain } from '../../../lib/source/http-request.js'
import { makeCertificate, trust } from '../../fixtures/certificate.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import {
  both,
  cut,
  headers,
  raw,
  redirect,
  startServer,
  status,
  type Change,
  type TestServer,
} from '../../fixtures/http-server.js'
import { recordWaits } from '../../fixtures/recorded-waits.js'
import { turns, until } from '../../fixtures/turns.js'

const CONTENT = Buffer.from('what the server has')
const QUICK = { retryMilliseconds: 0 } as const

async function collected(_response: Response, body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

/** Asks for all there is, as often as the options say. */
function ask(
  from: TestServer | URL | HttpRequests,
  options: Qcow2HttpOptions = QUICK,
  signal?: AbortSignal,
): Promise<string> {
  const requests =
    from instanceof HttpRequests ? from : new HttpRequests(from instanceof URL ? from : from.url(), options)
  return requests.persist('asking', signal, () => requests.get({}, signal, collected))
}

/** Asserts that it fails, for a reason that the message gives. */
async function fails(t: Test, asking: Promise<unknown>, says: RegExp, layer?: string): Promise<Qcow2SourceError> {
  const error = await rejection(t, asking)
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_REQUEST_FAILED', layer === undefined ? {} : { layer })
  t.match((error as Error).message, says)
  return error as Qcow2SourceError
}

t.test('labels and places of addresses', async (t) => {
  const url = new URL('https://user:p%40ss@example.org:8443/a%20b/disk.qcow2?signature=abc#part')
  t.equal(labelOf(url), 'https://example.org:8443/a%20b/disk.qcow2?…')
  t.equal(labelOf(new URL('http://[::1]/?')), 'http://[::1]/')
  const requests = new HttpRequests(url, {})
  t.equal(requests.label, labelOf(url))
  t.equal(requests.place, 'https://example.org:8443/a%20b/disk.qcow2?signature=abc', 'for comparing, not for showing')
  t.equal(requests.most, 6)
  t.match(url.href, /user:p%40ss/, 'the address that was handed in is as it was')
})

t.test('what is sent', async (t) => {
  t.test('is the headers of the caller, who cannot ask for another encoding or part', async (t) => {
    const server = await startServer(t, CONTENT)
    const given = { Authorization: 'Bearer abc', cookie: 'a=b; c=d', 'Accept-Encoding': 'gzip', Range: 'bytes=5-6' }
    const requests = new HttpRequests(server.url('/a?b=c#d'), { ...QUICK, headers: given })
    t.equal(await requests.get({ range: 'bytes=0-3' }, undefined, collected), 'what')
    t.equal(server.requests[0]?.url, '/a?b=c')
    t.match(server.requests[0]?.headers, {
      authorization: 'Bearer abc',
      cookie: 'a=b; c=d',
      'accept-encoding': 'identity',
      range: 'bytes=0-3',
    })
  })

  t.test('is user and password of the address, unless a header says otherwise', async (t) => {
    const server = await startServer(t, CONTENT)
    const cases: [username: string, password: string, headers: Record<string, string>, sent: string | undefined][] = [
      ['', '', {}, undefined],
      ['me', 'secret', {}, `Basic ${Buffer.from('me:secret').toString('base64')}`],
      ['me', '', {}, `Basic ${Buffer.from('me:').toString('base64')}`],
      ['', 'only', {}, `Basic ${Buffer.from(':only').toString('base64')}`],
      ['m%40', '%C3%BC%zz', {}, `Basic ${Buffer.from('m@:%C3%BC%zz').toString('base64')}`],
      ['ü', ':', {}, `Basic ${Buffer.from('ü::').toString('base64')}`],
      ['me', 'secret', { AUTHORIZATION: 'Bearer abc' }, 'Bearer abc'],
    ]
    for (const [username, password, headers, sent] of cases) {
      const url = server.url()
      Object.assign(url, { username, password })
      t.equal(await ask(url, { ...QUICK, headers }), CONTENT.toString())
      t.equal(server.requests.at(-1)?.headers.authorization, sent)
    }
  })
})

t.test('redirects', async (t) => {
  t.test('are followed, whatever kind they are of, and their address is kept', async (t) => {
    for (const code of [301, 302, 303, 307, 308]) {
      const server = await startServer(t, CONTENT)
      server.next(redirect('/elsewhere?x=1', code))
      const requests = new HttpRequests(server.url('/here'), QUICK)
      t.equal(requests.place, server.url('/here').href)
      for (let i = 0; i < 3; i++) t.equal(await ask(requests), CONTENT.toString())
      t.same(
        server.requests.map(({ url }) => url),
        ['/here', '/elsewhere?x=1', '/elsewhere?x=1', '/elsewhere?x=1'],
        'resolved once',
      )
      t.equal(requests.place, server.url('/elsewhere?x=1').href)
      t.equal(requests.label, server.url('/here').href, 'messages show what the caller knows')
    }
  })

  t.test('may be relative', async (t) => {
    const server = await startServer(t, CONTENT)
    server.next(redirect('../c/d'), redirect('?q'), redirect('//' + server.url().host + '/e'), redirect('f#part'))
    t.equal(await ask(server.url('/a/b/')), CONTENT.toString())
    t.same(
      server.requests.map(({ url }) => url),
      ['/a/b/', '/a/c/d', '/a/c/d?q', '/e', '/f'],
    )
  })

  t.test('may be twenty in a row, and no more', async (t) => {
    const server = await startServer(t, CONTENT)
    server.next(...Array.from({ length: 20 }, (_, i) => redirect(`/${i}`)))
    t.equal(await ask(server), CONTENT.toString())
    t.equal(server.requests.length, 21)
    server.each = redirect('/again')
    await fails(t, ask(server), /redirects more than 20 times/)
    t.equal(server.requests.length, 42)
  })

  t.test('do not take headers to another origin, nor user and password', async (t) => {
    const here = await startServer(t, CONTENT)
    const there = await startServer(t, CONTENT)
    const url = here.url()
    Object.assign(url, { username: 'me', password: 'secret' })
    for (const [address, options] of [
      [url, QUICK],
      [here.url(), { ...QUICK, headers: { authorization: 'Bearer abc', cookie: 'secret', 'x-token': 'secret' } }],
    ] as const) {
      here.next(redirect(there.url('/a')))
      // And back, and over again: every step counts for itself.
      there.next(redirect(here.url('/b')))
      here.next(redirect(there.url('/c')))
      const requests = new HttpRequests(address, options)
      for (let i = 0; i < 2; i++) t.equal(await ask(requests), CONTENT.toString())
      t.same(
        here.requests.splice(0).map(({ headers }) => typeof headers.authorization),
        ['string', 'string'],
      )
      const seen = there.requests.splice(0)
      t.same(
        seen.map(({ url }) => url),
        ['/a', '/c', '/c'],
      )
      for (const { headers } of seen) {
        t.notMatch(JSON.stringify(headers), /authorization|cookie|x-token|secret|Bearer/)
        t.equal(headers['accept-encoding'], 'identity')
      }
    }
  })

  t.test('to another host by the same port, or another port of a host, are to another origin', async (t) => {
    const server = await startServer(t, CONTENT)
    const { port } = server.url()
    server.next(redirect(`http://localhost:${port}/`))
    await ask(server, { ...QUICK, headers: { authorization: 'secret' } })
    t.same(
      server.requests.map(({ headers: { host, authorization } }) => [host, authorization]),
      [
        [`127.0.0.1:${port}`, 'secret'],
        [`localhost:${port}`, undefined],
      ],
    )
  })

  t.test('bring no user and password with them', async (t) => {
    const server = await startServer(t, CONTENT)
    const { host } = server.url()
    server.next(redirect(`http://evil:word@${host}/`))
    t.equal(await ask(server), CONTENT.toString())
    t.equal(server.requests[1]?.headers.authorization, undefined)
  })

  t.test('to what is no web address are refused, and only its beginning is shown', async (t) => {
    const server = await startServer(t, CONTENT)
    const cases: [location: string, says: RegExp][] = [
      ['file:///etc/passwd?secret', /redirects to an address that begins with "file:", allowed is http: and https:$/],
      ['data:text/plain,secret', /"data:"/],
      ['ftp://a:secret@127.0.0.1/', /"ftp:"/],
      ['javascript:secret', /"javascript:"/],
      ['http://a:secret@[', /the server redirects to what is no address$/],
      ['http://', /no address/],
    ]
    for (const [location, says] of cases) {
      server.next(redirect(location))
      const error = await fails(t, ask(server), says, server.url().href)
      t.notMatch(error.message, /secret|passwd/)
    }
    t.equal(server.requests.length, cases.length, 'and not tried again')
  })

  t.test('without an address are answers like others', async (t) => {
    const server = await startServer(t, CONTENT)
    server.next(status(302))
    const requests = new HttpRequests(server.url(), QUICK)
    t.equal(await requests.get({}, undefined, async ({ status }) => status), 302)
  })

  t.test('that come later are refused: the image would be another one', async (t) => {
    const server = await startServer(t, CONTENT)
    const requests = new HttpRequests(server.url(), QUICK)
    await ask(requests)
    server.next(redirect('/elsewhere'))
    await fails(t, ask(requests), /the server now says that the image is somewhere else/)
    t.equal(server.requests.length, 2)
  })

  t.test('are asked for again as long as nobody answers where they lead', async (t) => {
    const server = await startServer(t, CONTENT)
    server.next(redirect('/a'), status(503), redirect('/b'), raw('reset'), redirect('/c'))
    t.equal(await ask(server), CONTENT.toString())
    t.same(
      server.requests.map(({ url }) => url),
      ['/disk.qcow2', '/a', '/disk.qcow2', '/b', '/disk.qcow2', '/c'],
    )
  })

  t.test('need not end themselves', async (t) => {
    const server = await startServer(t, CONTENT)
    server.next(both(redirect('/a'), headers({ 'content-length': '1000' }), cut(10, 'hang')))
    t.equal(await ask(server), CONTENT.toString())
    await until(() => server.requests[0]!.isClosed)
  })
})

t.test('TLS', async (t) => {
  t.test('with a certificate that nobody vouches for fails at once', async (t) => {
    const server = await startServer(t, CONTENT, makeCertificate())
    const waits = recordWaits(t)
    const { message } = await fails(t, ask(server, {}), /TLS with "127\.0\.0\.1:\d+" failed: self-signed certificate; /)
    t.match(message, /NODE_EXTRA_CA_CERTS names a file of further authorities to trust$/, 'with what helps')
    t.same(waits, [])
    t.equal(server.requests.length, 0)
  })

  t.test('with the certificate of another host, or an old one, fails at once with the reason', async (t) => {
    const waits = recordWaits(t)
    const certificate = makeCertificate()
    const server = await startServer(t, CONTENT, certificate)
    const expired = makeCertificate('211231')
    const old = await startServer(t, CONTENT, expired)
    trust(t, certificate)
    t.equal(await ask(server), CONTENT.toString())
    const url = new URL(`https://localhost:${server.url().port}/`)
    // Wherever a redirect leads, it says who is not trusted.
    server.next(redirect(url))
    await fails(
      t,
      ask(server, {}),
      /TLS with "localhost:\d+" failed: Hostname.* does not match .*localhost/,
      server.url().href,
    )
    trust(t, expired)
    await fails(t, ask(old, {}), /TLS with "127\.0\.0\.1:\d+" failed: certificate has expired$/)
    t.same(waits, [])
  })

  t.test('is not left by a redirect, only entered', async (t) => {
    const secure = await startServer(t, CONTENT, makeCertificate())
    const plain = await startServer(t, CONTENT)
    // Whether a certificate is good is not the question here.
    process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0'
    t.teardown(() => {
      delete process.env['NODE_TLS_REJECT_UNAUTHORIZED']
    })
    const options = { ...QUICK, headers: { authorization: 'secret' } }
    plain.next(redirect(secure.url()))
    const requests = new HttpRequests(plain.url(), options)
    for (let i = 0; i < 2; i++) t.equal(await ask(requests), CONTENT.toString())
    t.equal(requests.place, secure.url().href)
    t.same(
      secure.requests.map(({ headers }) => headers.authorization),
      [undefined, undefined],
    )

    t.equal(await ask(secure, options), CONTENT.toString())
    t.equal(secure.requests.at(-1)?.headers.authorization, 'secret')
    const before = plain.requests.length
    secure.next(redirect(plain.url()))
    await fails(t, ask(secure, options), /an address that begins with "http:", allowed is https:$/)
    // Nor by a detour.
    secure.next(redirect('/a'))
    secure.next(redirect(plain.url()))
    await fails(t, ask(secure, options), /allowed is https:$/)
    t.equal(plain.requests.length, before)
  })

  t.test('spoken to a server that does not, fails at once', async (t) => {
    const plain = await startServer(t, CONTENT)
    const waits = recordWaits(t)
    const says =
      /TLS with "127\.0\.0\.1:\d+" failed: [a-z ]+; the server may not speak TLS: its address then begins with http:$/
    await fails(t, ask(new URL(plain.url().href.replace('http:', 'https:')), {}), says)
    t.same(waits, [])
  })
})

t.test('another try', async (t) => {
  const FLEETING: Readonly<Record<string, Change>> = {
    'status 429': status(429),
    'status 500': status(500),
    'status 502': status(502),
    'status 503': status(503),
    'status 504': status(504),
    'status 599': status(599),
    'a connection that is reset': raw('reset'),
    'a connection that is closed': raw('end'),
    'half a head': raw('end', 'HTTP/1.1 200 OK\r\nContent-'),
    'a body that breaks off': cut(3, 'reset'),
  }
  for (const [what, change] of Object.entries(FLEETING)) {
    t.test(`follows ${what}, five by default`, async (t) => {
      const server = await startServer(t, CONTENT)
      const waits = recordWaits(t)
      server.next(change, change, change, change, change)
      t.equal(await ask(server, {}), CONTENT.toString())
      t.equal(server.requests.length, 6)
      // Each is at most what the last was doubled, and at least three quarters of that.
      t.equal(waits.length, 5)
      for (const [i, wait] of waits.entries()) {
        t.ok(wait <= 500 * 2 ** i && wait >= 375 * 2 ** i, `${wait} ms before try ${i + 2}`)
      }
      server.each = change
      await fails(t, ask(server, {}), /asking: .* \(tried 6 times\)$/)
      t.equal(server.requests.length, 12)
    })
  }

  t.test('does not follow words that are no HTTP', async (t) => {
    const server = await startServer(t, CONTENT)
    server.each = raw('end', 'SSH-2.0-OpenSSH_9.2\r\n')
    await fails(t, ask(server, {}), /HTTP/)
    t.equal(server.requests.length, 1)
  })

  t.test('does not follow other statuses', async (t) => {
    const server = await startServer(t, CONTENT)
    for (const code of [400, 401, 403, 404, 408, 410, 418, 428, 451, 499, 204, 304]) {
      server.next(status(code))
      const requests = new HttpRequests(server.url(), QUICK)
      t.equal(await requests.get({}, undefined, async ({ status }) => status), code)
    }
    t.equal(server.requests.length, 12)
  })

  t.test('comes as often as is asked for', async (t) => {
    const server = await startServer(t, CONTENT)
    server.each = status(503)
    await fails(t, ask(server, { ...QUICK, retries: 0 }), /the server answered 503 Service Unavailable$/)
    t.equal(server.requests.length, 1)
    await fails(t, ask(server, { ...QUICK, retries: 1 }), /503 Service Unavailable \(tried 2 times\)$/)
    t.equal(server.requests.length, 3)
    await fails(t, ask(server, { ...QUICK, retries: 9 }), /\(tried 10 times\)$/)
  })

  t.test('is not waited for longer than half a minute, nor together with others', async (t) => {
    const server = await startServer(t, CONTENT)
    server.each = status(500)
    const waits = recordWaits(t)
    await fails(t, ask(server, { retries: 100, retryMilliseconds: 1000 }), /tried 101 times/)
    t.equal(waits.length, 100)
    t.ok(Math.max(...waits) <= 30_000)
    const last = waits.slice(10)
    t.ok(Math.min(...last) >= 22_500)
    t.ok(new Set(last).size > 50, 'many who failed together come back one by one')
  })

  t.test('comes when the server wishes', async (t) => {
    const server = await startServer(t, CONTENT)
    const inSeconds = (seconds: number): string => new Date(Date.now() + seconds * 1000).toUTCString()
    const cases: [retryAfter: string, least: number, most: number][] = [
      ['7', 7000, 7000],
      ['300', 300_000, 300_000],
      ['0', 0, 10],
      ['-5', 0, 10],
      ['soon', 0, 10],
      ['', 0, 10],
      [inSeconds(20), 15_000, 20_000],
      [inSeconds(-20), 0, 10],
    ]
    for (const [retryAfter, least, most] of cases) {
      await t.test(JSON.stringify(retryAfter), async (t) => {
        const waits = recordWaits(t)
        server.next(status(503, { 'retry-after': retryAfter }))
        t.equal(await ask(server, { retryMilliseconds: 10 }), CONTENT.toString())
        t.equal(waits.length, 1)
        t.ok(waits[0]! >= least && waits[0]! <= most, `${waits[0]} ms`)
      })
    }
    await t.test('but not sooner than is asked for', async (t) => {
      const waits = recordWaits(t)
      server.next(status(429, { 'retry-after': '1' }))
      await ask(server, { retryMilliseconds: 60_000 })
      t.ok(waits[0]! >= 22_500)
    })
  })

  t.test('is given up if the server wishes it in more than five minutes', async (t) => {
    const server = await startServer(t, CONTENT)
    const waits = recordWaits(t)
    const tomorrow = new Date(Date.now() + 86_400_000).toUTCString()
    for (const retryAfter of ['301', '9'.repeat(400), tomorrow]) {
      server.next(status(429, { 'retry-after': retryAfter }))
      await fails(
        t,
        ask(server, {}),
        /answered 429 Too Many Requests, and wants \S+ s to pass before the next request$/,
      )
    }
    t.same(waits, [])
    t.equal(server.requests.length, 3)
  })

  t.test('counts anew once something has come', async (t) => {
    const requests = new HttpRequests(new URL('http://127.0.0.1/'), { retries: 2, retryMilliseconds: 100 })
    const waits = recordWaits(t)
    let [tries, arrived] = [0, 0]
    const work = (): Promise<string> => {
      tries += 1
      if (tries % 2 === 0) arrived += 1
      return tries < 8 ? Promise.reject(new TryAgain('lost')) : Promise.resolve('done')
    }
    t.equal(await requests.persist('working', undefined, work, () => arrived), 'done')
    t.same(
      waits.map((wait) => (wait > 100 ? 200 : 100)),
      [100, 100, 200, 100, 200, 100, 200],
    )
  })

  t.test('is for failures of the server alone', async (t) => {
    const server = await startServer(t, CONTENT)
    const requests = new HttpRequests(server.url(), QUICK)
    for (const error of [new TypeError('a bug'), new Error('no room')]) {
      const asking = requests.persist('asking', undefined, () =>
        requests.get({}, undefined, async (_response, body) => {
          await body[Symbol.asyncIterator]().next()
          throw error
        }),
      )
      t.equal(await rejection(t, asking), error, 'what is done with the answer fails as it fails')
    }
    t.equal(server.requests.length, 2)
  })
})

/** From now on names have these addresses, or fail. */
function resolveNames(t: Test, resolve: (name: string) => string[] | NodeJS.ErrnoException): void {
  const { lookup } = dns
  const replaced = (name: string, _options: unknown, done: (error: unknown, found?: unknown) => void): void => {
    const found = resolve(name)
    if (found instanceof Error) done(found)
    else
      done(
        null,
        found.map((address) => ({ address, family: 4 })),
      )
  }
  Object.assign(dns, { lookup: replaced })
  t.teardown(() => Object.assign(dns, { lookup }))
}

const nameError = (code: string): NodeJS.ErrnoException => Object.assign(new Error(`getaddrinfo ${code}`), { code })

t.test('names', async (t) => {
  t.test('that do not exist fail at once, and are tried again once they have existed', async (t) => {
    const server = await startServer(t, CONTENT)
    const { port } = server.url()
    const url = new URL(`http://disks.example:${port}/`)
    const answers: (string[] | NodeJS.ErrnoException)[] = [nameError('ENOTFOUND')]
    resolveNames(t, () => answers.shift() ?? ['127.0.0.1', '127.0.0.1'])
    await fails(t, ask(url), /"http:\/\/disks\.example:\d+\/": getaddrinfo ENOTFOUND$/)

    const requests = new HttpRequests(url, QUICK)
    server.each = headers({ connection: 'close' })
    t.equal(await ask(requests), CONTENT.toString())
    answers.push(nameError('ENOTFOUND'))
    t.equal(await ask(requests), CONTENT.toString())
  })

  t.test('that nobody can look up right now are tried again', async (t) => {
    const server = await startServer(t, CONTENT)
    const answers: (string[] | NodeJS.ErrnoException)[] = [nameError('EAI_AGAIN'), nameError('EAI_AGAIN')]
    resolveNames(t, () => answers.shift() ?? ['127.0.0.1', '127.0.0.1'])
    t.equal(await ask(new URL(`http://disks.example:${server.url().port}/`)), CONTENT.toString())
  })

  t.test('with several addresses, at none of which anybody listens, fail with words', async (t) => {
    const server = await startServer(t, CONTENT)
    const { port } = server.url()
    resolveNames(t, () => ['127.0.0.2', '127.0.0.3'])
    const error = await fails(
      t,
      ask(new URL(`http://disks.example:${port}/`)),
      /asking: connect ECONNREFUSED 127\.0\.0\.2/,
    )
    t.match(error.message, /\(tried 6 times\)$/)
  })
})

t.test('what cannot be sent fails at once', async (t) => {
  const waits = recordWaits(t)
  const server = await startServer(t, CONTENT)
  await fails(t, ask(new URL('http://127.0.0.1:1/'), {}), /bad port/)
  await fails(t, ask(server, { headers: { expect: '100-continue' } }), /expect header/)
  await fails(t, ask(server, { headers: { 'transfer-encoding': 'chunked' } }), /transfer-encoding header/)
  t.same(waits, [])
  t.equal(server.requests.length, 0)
})

t.test('silence', async (t) => {
  t.test('ends a request, before the head and in the body', async (t) => {
    const server = await startServer(t, CONTENT)
    server.next(raw('hang'), cut(4, 'hang'))
    t.equal(await ask(server, { ...QUICK, idleMilliseconds: 100 }), CONTENT.toString())
    t.equal(server.requests.length, 3)
    server.each = raw('hang')
    await fails(
      t,
      ask(server, { ...QUICK, idleMilliseconds: 50, retries: 1 }),
      /no answer for 0\.05 s \(tried 2 times\)$/,
    )
    await until(() => server.underWay === 0)
  })

  t.test('is not what a slow server does', async (t) => {
    const server = await startServer(t, CONTENT)
    // In all it takes longer than silence may.
    const slow: Change = () => delay(600)
    server.next(both(redirect('/a'), slow), slow)
    t.equal(await ask(server, { ...QUICK, retries: 0, idleMilliseconds: 1000 }), CONTENT.toString())
  })

  t.test('is not what a slow consumer hears', async (t) => {
    const content = Buffer.alloc(2 ** 20, 'content')
    const server = await startServer(t, content)
    const options = { ...QUICK, retries: 0, idleMilliseconds: 300 }
    const requests = new HttpRequests(server.url(), options)
    const bytes = await requests.get({}, undefined, async (_response, body) => {
      // Longer than silence may be: before the first bytes, and between them.
      await delay(450)
      let [length, pauses] = [0, 0]
      for await (const chunk of body) {
        length += chunk.length
        if (pauses++ === 0) await delay(450)
      }
      return length
    })
    t.equal(bytes, content.length)
    t.equal(server.requests.length, 1)
  })
})

t.test('the signal', async (t) => {
  const reason = new Error('not wanted any more')

  const MOMENTS: Readonly<Record<string, [options: Qcow2HttpOptions, change: Change]>> = {
    'before the head': [{}, raw('hang')],
    'in the body': [{}, cut(4, 'hang')],
    'between two tries': [{ retryMilliseconds: 60_000 }, status(503)],
    'while the server is left alone': [{}, status(503, { 'retry-after': '200' })],
  }
  for (const [moment, [options, change]] of Object.entries(MOMENTS)) {
    t.test(`ends it ${moment}, with its reason`, async (t) => {
      const server = await startServer(t, CONTENT)
      server.each = change
      const controller = new AbortController()
      const asking = rejection(t, ask(server, options, controller.signal))
      await until(() => server.requests[0]?.isAnswered === true)
      // And what the server says has to arrive.
      await turns(50)
      controller.abort(reason)
      t.equal(await asking, reason)
      t.same(getEventListeners(controller.signal, 'abort'), [])
      await until(() => server.underWay === 0)
      t.equal(server.requests.length, 1)
    })
  }

  t.test('that has fired already keeps anything from being sent', async (t) => {
    const server = await startServer(t, CONTENT)
    const signal = AbortSignal.abort(reason)
    t.equal(await rejection(t, ask(server, {}, signal)), reason)
    t.equal(server.requests.length, 0)
  })
})

t.test('connections', async (t) => {
  t.test('are kept for the next request', async (t) => {
    const server = await startServer(t, CONTENT)
    const requests = new HttpRequests(server.url(), QUICK)
    for (let i = 0; i < 20; i++) await ask(requests)
    // One may not be quite free yet when the next request begins.
    t.ok(server.connections <= 2, `${server.connections} connections`)
  })

  t.test('are not kept busy by what nobody reads to its end', async (t) => {
    const server = await startServer(t, Buffer.alloc(2 ** 25))
    const requests = new HttpRequests(server.url(), QUICK)
    t.equal(await requests.get({}, undefined, async ({ status }) => status), 200)
    await until(() => server.underWay === 0)
    const readOne = requests.get({}, undefined, async (_response, body) => {
      const first = await body[Symbol.asyncIterator]().next()
      return (first.value as Uint8Array).length
    })
    t.ok((await readOne) > 0)
    await until(() => server.underWay === 0)
    t.ok(server.sentBytes < 2 ** 25, `${server.sentBytes} bytes went out`)
  })
})
