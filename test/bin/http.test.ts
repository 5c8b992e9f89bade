/**
 * Images at addresses, on the command line: converted as files are, with headers, and no secret of an address on a terminal.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { makeCertificate } from '../fixtures/certificate.js'
import { both, cut, raw, redirect, startServer, status, whole, type Change } from '../fixtures/http-server.js'
import { buildImage } from '../fixtures/image-builder.js'
import { dataDisk } from '../fixtures/mixed-disk.js'
import { filled, pattern } from '../fixtures/patterns.js'
import {
  ONE_LINE,
  ONE_LINE_AND_HINT,
  runCommand,
  startCommand,
  type Ended,
  type RunOptions,
} from '../fixtures/run-command.js'
import { until } from '../fixtures/turns.js'

const disk = dataDisk(64)
const DOWNLOAD =
  'qcow2-to-raw: warning: the server answers no requests for parts of a file: all of it is downloaded first\n'

/** Runs the command into out.img; asserts that the disk is in it. */
async function converts(
  t: Test,
  words: readonly string[],
  guest: Buffer = disk.guest,
  options: RunOptions = {},
): Promise<Ended> {
  const cwd = options.cwd ?? t.testdir()
  const ended = await runCommand([...words, 'out.img'], { ...options, cwd })
  t.equal(ended.code, 0, ended.stderr)
  t.ok(readFileSync(join(cwd, 'out.img')).equals(guest))
  return ended
}

t.test('converts what lies at an address', async (t) => {
  const server = await startServer(t, disk.bytes)
  const { stderr } = await converts(t, [server.url().href], disk.guest, { isCovered: true })
  t.equal(stderr, '')
  await converts(t, ['--threads', '0', server.url().href.replace('http:', 'HTTP:')])
  const { code, stdout } = await runCommand([server.url('/a?b=c#d').href], { isCovered: true })
  t.equal(code, 0)
  t.ok(stdout.equals(disk.guest))
  const part = await runCommand(['--start', '100K', '--end', '100K', server.url().href, '-'])
  t.ok(part.stdout.equals(disk.guest.subarray(102_400, 102_401)))
})

t.test('reads backing and data files from addresses', async (t) => {
  const base = filled(7, 3 * 65536)
  const top = buildImage({
    backingFile: { name: 'base', contents: base },
    virtualSize: base.length,
    clusters: [[1, { kind: 'data', bytes: pattern(1, 65536) }]],
  })
  const external = buildImage({
    dataFile: { name: 'data' },
    clusters: [[0, { kind: 'data', bytes: pattern(2, 65536) }]],
  })
  const baseServer = await startServer(t, base)
  const topServer = await startServer(t, top.bytes)
  const dataServer = await startServer(t, external.dataFile)
  const cwd = t.testdir({ 'top.qcow2': top.bytes, 'external.qcow2': external.bytes, base })
  const backing = ['--backing-format', 'raw', '--backing-file']
  await converts(t, [...backing, baseServer.url().href, 'top.qcow2'], top.guest, { cwd, isCovered: true })
  await converts(t, ['-f', ...backing, baseServer.url().href, topServer.url().href], top.guest, { cwd })
  await converts(t, ['-f', ...backing, 'base', topServer.url().href], top.guest, { cwd })
  await converts(t, ['-f', '--data-file', dataServer.url().href, 'external.qcow2'], external.guest, { cwd })
  t.equal(dataServer.requests.length, 1)

  const header = ['--header', 'Authorization: Bearer abc']
  const seen = baseServer.requests.length
  await converts(t, ['-f', ...header, ...backing, baseServer.url().href, topServer.url().href], top.guest, { cwd })
  t.equal(topServer.requests.at(-1)?.headers.authorization, 'Bearer abc')
  t.ok(baseServer.requests.length > seen)
  t.notMatch(JSON.stringify(baseServer.requests), /Bearer/, 'headers are for the origin of the image')
  await converts(t, ['-f', ...header, ...backing, baseServer.url().href, 'top.qcow2'], top.guest, { cwd })
  t.equal(baseServer.requests.at(-1)?.headers.authorization, 'Bearer abc', 'or, if it has none, for that of the other')

  const { code, stderr } = await runCommand(['-f', topServer.url().href, 'out.img'], { cwd })
  t.equal(code, 5)
  t.match(stderr, ONE_LINE)
  t.match(stderr, /"base" is not opened/)
})

t.test('sends headers to the servers of addresses, and nobody else', async (t) => {
  const server = await startServer(t, disk.bytes)
  const store = await startServer(t, disk.bytes)
  const cwd = t.testdir({ headers: 'X-Token: from a file\nAuthorization: Bearer abc\n' })
  server.next(redirect(store.url()))
  await converts(t, ['--header', 'cookie: a=b', '--header', '@headers', server.url().href], disk.guest, { cwd })
  t.match(server.requests[0]?.headers, { cookie: 'a=b', 'x-token': 'from a file', authorization: 'Bearer abc' })
  t.ok(store.requests.length > 2)
  t.notMatch(JSON.stringify(store.requests), /a=b|from a file|Bearer abc/)

  const url = server.url()
  Object.assign(url, { username: 'me', password: 'secret' })
  await converts(t, [url.href])
  t.equal(server.requests.at(-1)?.headers.authorization, `Basic ${Buffer.from('me:secret').toString('base64')}`)
})

t.test('trusts whom the system trusts', async (t) => {
  const certificate = makeCertificate()
  const server = await startServer(t, disk.bytes, certificate)
  const cwd = t.testdir({ 'ca.pem': certificate.cert })
  await converts(t, [server.url().href], disk.guest, { env: { NODE_EXTRA_CA_CERTS: join(cwd, 'ca.pem') }, cwd })
  const { code, stderr } = await runCommand([server.url().href, 'other.img'], { cwd })
  t.equal(code, 1)
  t.match(stderr, ONE_LINE)
  t.match(stderr, /": TLS with "127\.0\.0\.1:\d+" failed: self-signed certificate; .*NODE_EXTRA_CA_CERTS .*\n$/)
})

t.test('fails on one line, with exit code 1 for what servers do, and shows no secret', async (t) => {
  const server = await startServer(t, disk.bytes)
  const secret = server.url('/disk.qcow2?signature=hush-query')
  Object.assign(secret, { username: 'hush-user', password: 'hush-password' })
  const cwd = t.testdir()
  const changed: Change = (answer) => {
    answer.headers['etag'] = '"another"'
  }
  const cases: [changes: Change[], says: RegExp][] = [
    [[status(404)], /opening: the server answered 404 Not Found$/],
    [[status(401)], /401 Unauthorized; credentials, such as an Authorization header, are sent with [^;]+$/],
    [[status(429, { 'retry-after': '3600' })], /429 Too Many Requests, and wants 3600 s to pass/],
    [[redirect('file:///etc/hush-path')], /redirects to an address that begins with "file:"/],
    [[redirect('http://hush-user:hush@[')], /no address/],
    [
      [redirect('/there?hush-query'), status(403)],
      /403 Forbidden; credentials, such as an Authorization header, are sent with [^;]+$/,
    ],
    [[() => undefined, status(410)], /the server answered the request for bytes \d+-\d+ with 410 Gone$/],
    [[() => undefined, changed], /the file changed while it was read: it was "\\"first\\"" and is "\\"another\\""$/],
    [[() => undefined, redirect('/elsewhere?hush-query')], /somewhere else$/],
  ]
  for (const [i, [changes, says]] of cases.entries()) {
    server.next(...changes)
    const words = i % 2 === 0 ? [] : ['--salvage', '--debug']
    const { code, stderr } = await runCommand([...words, secret.href, 'out.img'], { cwd })
    t.equal(code, 1)
    const [line, ...more] = stderr.split('\n')
    t.match(`${line}\n`, ONE_LINE)
    t.match(line, says)
    t.match(line, `${server.url().href}?…`)
    if (words.length === 0) t.same(more, [''])
    t.notMatch(stderr, /hush/, 'nor does a stack')
    t.same(readdirSync(cwd), [])
  }
})

t.test('refuses what begins as an address and is none, and shows nothing of it', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': disk.bytes })
  const bad = 'https://user:hush@[?hush'
  for (const words of [
    [bad, 'out.img'],
    ['--backing-file', bad, 'a.qcow2', 'out.img'],
    ['--data-file', bad, 'a.qcow2', 'out.img'],
  ]) {
    const { code, stderr } = await runCommand(words, { cwd, isCovered: true })
    t.equal(code, 2)
    t.match(stderr, ONE_LINE_AND_HINT)
    t.match(stderr, /no address/)
    t.notMatch(stderr, /hush/)
  }
  for (const header of ['hush', 'a: hush €']) {
    const { code, stderr } = await runCommand(['--header', header, 'http://127.0.0.1/', 'out.img'], { cwd })
    t.equal(code, 2)
    t.match(stderr, ONE_LINE_AND_HINT.test(stderr) ? /no header/ : /http\.headers/)
    t.notMatch(stderr, /hush|€/)
  }
  const { code, stderr } = await runCommand(['--header', '@missing', 'http://127.0.0.1/', 'out.img'], { cwd })
  t.equal(code, 1)
  t.match(stderr, /^qcow2-to-raw: --header: "missing" cannot be read: ENOENT\n$/)
})

t.test('says at once that a server has no ranges, unless it is to be quiet', async (t) => {
  const server = await startServer(t, disk.bytes)
  server.each = both(whole(server), cut(1_000_000, 'hang'))
  const cwd = t.testdir()
  const { child, ended } = startCommand([server.url().href, 'out.img'], { cwd, isCovered: true })
  let said = ''
  child.stderr!.on('data', (words: Buffer) => (said += words.toString()))
  await until(() => said !== '')
  t.equal(said, DOWNLOAD, 'while the download has not ended')
  child.kill('SIGINT')
  const { code, stderr } = await ended
  t.equal(code, 130)
  t.equal(stderr, `${DOWNLOAD}qcow2-to-raw: interrupted by SIGINT\n`)
  t.same(readdirSync(cwd), [])

  server.each = whole(server)
  const all = await converts(t, ['--spool-dir', '.', server.url().href], disk.guest, { isCovered: true })
  t.equal(all.stderr, DOWNLOAD)
  const quiet = await converts(t, ['--quiet', server.url().href], disk.guest, { isCovered: true })
  t.equal(quiet.stderr, '')
  // A download that breaks off begins anew, of which there is nothing to say.
  server.next(both(whole(server), cut(1_000_000, 'reset')))
  const twice = await converts(t, [server.url().href], disk.guest, { isCovered: true })
  t.equal(twice.stderr, DOWNLOAD)
})

t.test('SIGINT ends it while a server keeps it waiting', async (t) => {
  const WAITS: Readonly<Record<string, Change>> = {
    'says nothing': raw('hang'),
    stops: cut(3, 'hang'),
    'wants half a minute of quiet': status(503, { 'retry-after': '30' }),
  }
  for (const [what, change] of Object.entries(WAITS)) {
    for (const prompt of [0, 3]) {
      const server = await startServer(t, disk.bytes)
      server.next(...Array.from({ length: prompt }, () => () => undefined))
      server.each = change
      const cwd = t.testdir({ 'out.img': 'old' })
      const { child, ended } = startCommand(['--force', server.url().href, 'out.img'], { cwd })
      await until(() => server.requests.length > prompt && server.requests.every(({ isAnswered }) => isAnswered))
      const start = performance.now()
      child.kill('SIGINT')
      const { code, stderr } = await ended
      t.equal(code, 130, `${what}, after ${prompt}`)
      t.equal(stderr, 'qcow2-to-raw: interrupted by SIGINT\n')
      t.ok(performance.now() - start < 10_000, 'long before anybody would have been waited for')
      t.same(readdirSync(cwd), ['out.img'])
      t.equal(readFileSync(join(cwd, 'out.img'), 'utf8'), 'old')
    }
  }
})
