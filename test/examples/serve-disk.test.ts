/**
 * Any part of a disk over HTTP: the bytes that were asked for, under the name of one version, and nothing read for who has gone.
 */
import { once } from 'node:events'
import { renameSync, writeFileSync } from 'node:fs'
import { get, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { createDiskServer, openDisk } from '../../examples/serve-disk.js'
import { Qcow2Image, type Qcow2Input } from 'qcow2'
import { rejection } from '../fixtures/expect-error.js'
import { buildImage } from '../fixtures/image-builder.js'
import { dataDisk, mixedDisk } from '../fixtures/mixed-disk.js'
import { cannotCount, openDescriptors } from '../fixtures/open-descriptors.js'
import { firstDifference } from '../fixtures/qemu.js'
import { RecordingSource } from '../fixtures/recording-source.js'
import { start } from '../fixtures/run-command.js'
import { until, untilQuiet } from '../fixtures/turns.js'

const ETAG = '"1"'
const { bytes, guest } = mixedDisk()
const size = guest.length

interface Served {
  readonly address: string
  /** Answers that are not over yet. */
  underWay: number
}

/** Serves an image until the test ends. */
async function serve(t: Test, input: Qcow2Input, isUnchanged = true): Promise<Served> {
  const image = await Qcow2Image.open(input)
  t.teardown(() => image.close())
  const server = createDiskServer({ image, etag: ETAG, isUnchanged: async () => isUnchanged })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const served = { address: `http://127.0.0.1:${(server.address() as AddressInfo).port}/disk.img`, underWay: 0 }
  server.prependListener('request', (_, response) => {
    served.underWay += 1
    response.on('close', () => (served.underWay -= 1))
  })
  t.teardown(async () => {
    server.close()
    server.closeAllConnections()
    await once(server, 'close')
  })
  return served
}

const bodyOf = async (response: Response): Promise<Buffer> => Buffer.from(await response.arrayBuffer())

t.test('without a range, the whole disk', async (t) => {
  const { address } = await serve(t, bytes)
  const response = await fetch(address)
  t.equal(response.status, 200)
  t.match(Object.fromEntries(response.headers), {
    'content-length': String(size),
    'accept-ranges': 'bytes',
    'content-type': 'application/octet-stream',
    etag: ETAG,
  })
  t.notOk(response.headers.has('content-range'))
  t.equal(firstDifference(await bodyOf(response), guest), undefined)
})

t.test('one range is what is sent', async (t) => {
  const { address } = await serve(t, bytes)
  for (const [range, first, last] of [
    ['0-0', 0, 0],
    ['0-511', 0, 511],
    ['1000-2000000', 1000, 2_000_000],
    [`${size - 1}-${size - 1}`, size - 1, size - 1],
    [`${size - 10}-${size + 10}`, size - 10, size - 1],
    ['5-99999999999999999999999', 5, size - 1],
    ['0-', 0, size - 1],
    ['1700001-', 1_700_001, size - 1],
    ['-1', size - 1, size - 1],
    ['-70000', size - 70_000, size - 1],
    [`-${size}`, 0, size - 1],
    [`-${size + 1}`, 0, size - 1],
  ] as const) {
    const response = await fetch(address, { headers: { range: `bytes=${range}` } })
    t.equal(response.status, 206, range)
    t.match(Object.fromEntries(response.headers), {
      'content-length': String(last + 1 - first),
      'content-range': `bytes ${first}-${last}/${size}`,
      'accept-ranges': 'bytes',
      etag: ETAG,
    })
    t.equal(firstDifference(await bodyOf(response), guest.subarray(first, last + 1)), undefined, range)
  }
})

t.test('a range with nothing of the disk cannot be sent', async (t) => {
  const { address } = await serve(t, bytes)
  for (const range of [`${size}-`, `${size}-${size + 5}`, '99999999999999999999999-', '-0']) {
    const response = await fetch(address, { headers: { range: `bytes=${range}` } })
    t.equal(response.status, 416, range)
    t.equal(response.headers.get('content-range'), `bytes */${size}`)
    t.equal((await bodyOf(response)).length, 0)
  }
})

t.test('several ranges, and what is none, are answered with the whole disk', async (t) => {
  const { address } = await serve(t, bytes)
  for (const range of [
    'bytes=0-1,5-6',
    'bytes=5-4',
    'bytes=-',
    'bytes=a-b',
    'bytes=1',
    'sectors=0-1',
    'bytes 0-1',
    'bytes=-1-2',
  ]) {
    const response = await fetch(address, { headers: { range } })
    t.equal(response.status, 200, range)
    t.equal(firstDifference(await bodyOf(response), guest), undefined, range)
  }
})

t.test('HEAD tells of the whole disk, whatever the range, and sends nothing', async (t) => {
  const { address } = await serve(t, bytes)
  for (const headers of [{}, { range: 'bytes=0-1' }, { range: `bytes=${size}-` }]) {
    const response = await fetch(address, { method: 'HEAD', headers })
    t.equal(response.status, 200)
    t.match(Object.fromEntries(response.headers), {
      'content-length': String(size),
      'accept-ranges': 'bytes',
      etag: ETAG,
    })
    t.equal((await bodyOf(response)).length, 0)
  }
})

t.test('an empty disk has no ranges', async (t) => {
  const { address } = await serve(t, buildImage({ virtualSize: 0 }).bytes)
  for (const range of ['', 'bytes=0-', 'bytes=-5']) {
    const response = await fetch(address, { headers: { range } })
    t.equal(response.status, 200, range)
    t.equal((await bodyOf(response)).length, 0)
  }
})

t.test('conditions are met by the ETag alone', async (t) => {
  const { address } = await serve(t, bytes)
  const range = 'bytes=0-9'
  for (const [headers, status] of [
    [{ range, 'if-range': ETAG }, 206],
    [{ range, 'if-range': `W/${ETAG}` }, 200],
    [{ range, 'if-range': '"2"' }, 200],
    [{ range, 'if-range': new Date().toUTCString() }, 200],
    [{ range: `bytes=${size}-`, 'if-range': '"2"' }, 200],
    [{ range, 'if-match': ETAG }, 206],
    [{ range, 'if-match': `"0", ${ETAG}` }, 206],
    [{ range, 'if-match': '*' }, 206],
    [{ range, 'if-match': '"2"' }, 412],
    [{ range, 'if-match': `W/${ETAG}` }, 412],
    [{ 'if-none-match': ETAG }, 304],
    [{ 'if-none-match': `"2", W/${ETAG}` }, 304],
    [{ range, 'if-none-match': '"2"' }, 206],
  ] as const) {
    const response = await fetch(address, { headers: { ...headers } })
    t.equal(response.status, status, JSON.stringify(headers))
    t.equal(response.headers.get('etag'), ETAG)
    const length = status === 200 ? size : status === 206 ? 10 : 0
    t.equal((await bodyOf(response)).length, length)
  }
})

t.test('other methods are refused', async (t) => {
  const { address } = await serve(t, bytes)
  const response = await fetch(address, { method: 'POST', body: 'x' })
  t.equal(response.status, 405)
  t.equal(response.headers.get('allow'), 'GET, HEAD')
})

t.test('many at once are served from one image', async (t) => {
  const { address } = await serve(t, bytes)
  await Promise.all(
    Array.from({ length: 20 }, async (_, index) => {
      const response = await fetch(address, { headers: { range: `bytes=${index * 1000}-` } })
      t.equal(firstDifference(await bodyOf(response), guest.subarray(index * 1000)), undefined)
    }),
  )
})

t.test('who takes nothing is sent no more, and who goes away is read for no more', async (t) => {
  const { bytes, guest } = dataDisk(2048, 15)
  const source = new RecordingSource(bytes)
  const served = await serve(t, source)
  const request = get(served.address)
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  await once(response, 'readable')
  await untilQuiet(() => source.bytesRead)
  // What the sockets and the stream hold.
  t.ok(source.bytesRead < guest.length / 2, `${source.bytesRead} of ${guest.length} bytes`)
  response.destroy()
  await until(() => served.underWay === 0)
  const before = source.bytesRead
  await untilQuiet(() => source.bytesRead)
  t.equal(source.bytesRead, before)
  t.equal(source.underWay, 0)
  const another = await fetch(served.address, { headers: { range: 'bytes=-9' } })
  t.ok(guest.subarray(-9).equals(await bodyOf(another)), 'others are served')
})

t.test('an image that cannot be read further breaks the answer off', async (t) => {
  const written: string[] = []
  t.intercept(process.stderr, 'write', { value: (line: string) => written.push(line) > 0 })
  const { bytes } = dataDisk(512, 15)
  let isBroken = false
  const beforeRead = (_: number, offset: number): void => {
    if (isBroken && offset > bytes.length / 2) throw new Error('no such sector')
  }
  const { address } = await serve(t, new RecordingSource(bytes, { beforeRead }))
  isBroken = true
  const response = await fetch(address)
  t.equal(response.status, 200)
  await rejection(t, response.arrayBuffer())
  t.match(written.join(''), /^serve-disk: .*no such sector\n$/)
})

t.test('an image that has changed is served no more', async (t) => {
  const { address } = await serve(t, bytes, false)
  const response = await fetch(address)
  t.equal(response.status, 503)
  t.notOk(response.headers.has('etag'))
})

t.test('the ETag is that of the files: the same as long as they are', async (t) => {
  const folder = t.testdir({
    'a.qcow2': buildImage({ backingFile: { name: 'base.qcow2', format: 'qcow2' } }).bytes,
    'base.qcow2': bytes,
    'new.qcow2': bytes,
  })
  const path = join(folder, 'a.qcow2')
  const disk = await openDisk(path)
  t.match(disk.etag, /^"[\w-]{43}"$/)
  t.ok(await disk.isUnchanged())
  const again = await openDisk(path)
  t.equal(again.etag, disk.etag)
  renameSync(join(folder, 'new.qcow2'), join(folder, 'base.qcow2'))
  t.notOk(await disk.isUnchanged(), 'a backing file of the same bytes, but another')
  const changed = await openDisk(path)
  t.not(changed.etag, disk.etag)
  writeFileSync(path, 'gone')
  t.notOk(await changed.isUnchanged())
  for (const { image } of [disk, again, changed]) await image.close()
})

t.test('an image that changes while it is opened is refused', { skip: cannotCount }, async (t) => {
  const folder = t.testdir({ 'a.qcow2': bytes })
  const path = join(folder, 'a.qcow2')
  const { open } = Qcow2Image
  let opens = 0
  t.intercept(Qcow2Image, 'open', {
    value: async (input: Qcow2Input) => {
      const image = await open.call(Qcow2Image, input)
      opens += 1
      if (opens === 2) writeFileSync(path, bytes.subarray(0, -1))
      return image
    },
  })
  await t.rejects(openDisk(path), /a\.qcow2": was changed while it was opened$/)
  t.strictSame(openDescriptors(folder), [])
})

t.test('on the command line', async (t) => {
  const script = fileURLToPath(new URL('../../examples/serve-disk.js', import.meta.url))
  const cwd = t.testdir({ 'a.qcow2': bytes, 'b.qcow2': 'something else' })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    const { child, ended } = start(process.execPath, [script, 'a.qcow2', '0'], { cwd })
    const [line] = (await once(child.stdout!, 'data')) as [Buffer]
    const [, length, address] = /^(\d+) bytes at (http:\S+)\n$/.exec(line.toString()) ?? []
    t.equal(length, String(size))
    const response = await fetch(address!, { headers: { range: 'bytes=1000000-1000999' } })
    t.ok(guest.subarray(1_000_000, 1_001_000).equals(await bodyOf(response)))
    child.kill(signal)
    const { code, stderr } = await ended
    t.strictSame({ code, stderr }, { code: 0, stderr: '' })
  }
  for (const [words, message] of [
    [[], /^serve-disk: usage: .*\n$/],
    [['a.qcow2', 'x'], /^serve-disk: usage: .*\n$/],
    [['b.qcow2'], /^serve-disk: "b\.qcow2": .*\n$/],
    [['a.qcow2', '65536'], /^serve-disk: .*65536.*\n$/],
  ] as const) {
    const { code, stderr } = await start(process.execPath, [script, ...words], { cwd }).ended
    t.equal(code, 1)
    t.match(stderr, message)
  }
})
