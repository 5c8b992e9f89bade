/**
 * Images on a real nginx: the disks are those of files, what crosses the wire is what is allocated, and little more.
 */
import { createHash } from 'node:crypto'
import { closeSync, openSync, readSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Test } from 'tap'
import {
  convert,
  createReadStream,
  Qcow2Image,
  Qcow2SourceError,
  type Qcow2Input,
  type Qcow2OpenOptions,
} from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type ClusterSpec } from '../../fixtures/image-builder.js'
import { dataDisk } from '../../fixtures/mixed-disk.js'
import { nginxTest, startNginx, type LoggedRequest } from '../../fixtures/nginx.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { pattern } from '../../fixtures/patterns.js'
import { samples, unpackedPath, unpackSamples, type SampleImage } from '../../fixtures/sample-images.js'

const MIB = 2 ** 20
const CLUSTER = 65536

const sum = (requests: readonly LoggedRequest[]): number => requests.reduce((all, { sentBytes }) => all + sentBytes, 0)

/** The options that a sample needs where no folder is; `place` says where another one is. */
function optionsFor({ file, passphrase }: SampleImage, place: (name: string) => Qcow2Input): Qcow2OpenOptions {
  if (file.startsWith('external/')) return { dataFile: place(file.replace('.qcow2', '.data')) }
  if (file.startsWith('chain/')) return { backingFile: place('chain/base.raw'), backingFormat: 'raw' }
  return passphrase === undefined ? {} : { passphrase }
}

async function sha256Of(input: Qcow2Input, options: Qcow2OpenOptions): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(input, options), hash)
  return hash.digest('hex')
}

/** Reads here and there, alike from both. */
async function comparesReads(t: Test, title: string, ours: Qcow2Image, theirs: Qcow2Image): Promise<void> {
  const { virtualSize } = theirs
  for (let i = 0; i < 12; i++) {
    const offset = Math.floor((virtualSize * ((i * 7919) % 1000)) / 1000)
    const length = 1 + ((i * i * 4099) % 70_000)
    const expected = await readBytes(theirs, offset, length)
    if (!(await readBytes(ours, offset, length)).equals(expected)) t.fail(`${title}: ${length} bytes at ${offset}`)
  }
}

nginxTest('every sample is read from a server as from a file', async (t) => {
  const folder = t.testdir()
  unpackSamples(folder)
  const nginx = await startNginx(t, folder)
  // The one with three layers is in a test of its own.
  for (const sample of samples.images.filter(({ file }) => file !== 'chain/overlay.qcow2')) {
    const theirs = await opened(
      t,
      unpackedPath(folder, sample.file),
      optionsFor(sample, (name) => join(folder, name)),
    )
    for (const below of ['', 'whole/', 'moved/']) {
      const name = `${below}${sample.file.replace(/\.gz$/, '')}`
      const url = nginx.url(name)
      const options = optionsFor(sample, (other) => nginx.url(`${below}${other}`))
      for (const { snapshot, sha256 } of sample.disks) {
        t.equal(await sha256Of(url, { ...options, snapshot }), sha256, name)
      }
      const ours = await opened(t, url, options)
      await comparesReads(t, name, ours, theirs)
      const downloads = ours.warnings.filter(({ code }) => code === 'WARN_QCOW2_NO_RANGES')
      t.equal(downloads.length, below === 'whole/' ? theirs.backingChain.length + (ours.dataFile ? 1 : 0) : 0)
      if (below === 'whole/') {
        t.equal(downloads[0]?.layer, url.href)
        t.match(downloads[0]?.message, `${url.href}": the server answers no requests for parts of a file`)
      }
    }
  }
})

nginxTest('a chain may lie on a server in part or as a whole', async (t) => {
  const folder = t.testdir()
  unpackSamples(folder)
  const nginx = await startNginx(t, folder)
  const middle = nginx.url('chain/middle.qcow2')
  const base = nginx.url('chain/base.raw')
  const image = await opened(t, middle, { backingFile: base, backingFormat: 'raw' })
  t.same(
    image.backingChain.map(({ file }) => file),
    [middle.href, base.href],
  )

  const overlay = samples.images.find(({ file }) => file === 'chain/overlay.qcow2')!
  const options = { backingFile: join(folder, 'chain/middle.qcow2'), references: 'any' } as const
  t.equal(await sha256Of(nginx.url('chain/overlay.qcow2'), options), overlay.disks[0]!.sha256)

  const refused = await rejection(t, opened(t, middle, {}))
  t.match(refused, { code: 'ERR_QCOW2_REFERENCE_REFUSED' }, 'what comes from a server makes nobody open files')
  const loop = await rejection(t, opened(t, middle, { backingFile: new URL(`${middle.href}#again`) }))
  t.match(loop, { code: 'ERR_QCOW2_BACKING_LOOP' })
})

/** A disk of 1 TiB that has 10 MiB in five places. */
function hugeDisk(): { bytes: Buffer; clusters: Map<number, Buffer> } {
  const clusters = new Map<number, Buffer>()
  const specs: [number, ClusterSpec][] = []
  for (const gibibytes of [0, 100, 511, 768, 1023]) {
    for (let i = 0; i < 32; i++) {
      const index = (gibibytes * 2 ** 30) / CLUSTER + i
      const bytes = pattern(index, CLUSTER)
      clusters.set(index, bytes)
      specs.push([index, { kind: 'data', bytes }])
    }
  }
  return { bytes: buildImage({ virtualSize: 2 ** 40, clusters: specs }).bytes, clusters }
}

nginxTest('of a disk of 1 TiB with 10 MiB of data, less than 12 MiB cross the wire', async (t) => {
  const { bytes, clusters } = hugeDisk()
  const folder = t.testdir({ 'huge.qcow2': bytes })
  const nginx = await startNginx(t, folder)
  const out = join(folder, 'huge.raw')
  const { length } = await convert(nginx.url('huge.qcow2'), out)
  t.equal(length, 2 ** 40)
  const requests = await nginx.stop()
  t.ok(sum(requests) < 12 * MIB, `${sum(requests)} bytes`)
  t.ok(sum(requests) > 10 * MIB)
  t.ok(requests.length < clusters.size / 4, `${requests.length} requests for ${clusters.size} clusters`)
  t.ok(requests.every(({ status }) => status === 206))
  t.ok(statSync(out).blocks * 512 < 12 * MIB, 'and the output has holes where the disk has')
  const fd = openSync(out, 'r')
  t.teardown(() => closeSync(fd))
  for (const [index, expected] of clusters) {
    const found = Buffer.alloc(CLUSTER)
    readSync(fd, found, 0, CLUSTER, index * CLUSTER)
    if (!found.equals(expected)) t.fail(`cluster ${index}`)
  }
})

nginxTest('the first sector of a large disk takes four small requests', async (t) => {
  const nginx = await startNginx(t, t.testdir({ 'huge.qcow2': hugeDisk().bytes }))
  const image = await opened(t, nginx.url('huge.qcow2'))
  t.ok((await readBytes(image, 0, 512)).equals(pattern(0, CLUSTER).subarray(0, 512)))
  await image.close()
  const requests = await nginx.stop()
  t.ok(requests.length <= 4, `${requests.length} requests: the header, two tables, the sector`)
  t.ok(sum(requests) < 4 * CLUSTER, `${sum(requests)} bytes`)
})

nginxTest('a large image is fetched with several requests at a time, and few', async (t) => {
  const clusterCount = 1024
  const { bytes, guest } = dataDisk(clusterCount)
  const nginx = await startNginx(t, t.testdir({ 'a.qcow2': bytes }))
  await convert(nginx.url('a.qcow2'), '/dev/null')
  t.equal(await sha256Of(nginx.url('a.qcow2'), {}), createHash('sha256').update(guest).digest('hex'))
  const requests = await nginx.stop()
  t.ok(requests.length < clusterCount / 4, `${requests.length} requests`)
  const connections = new Set(requests.map(({ connection }) => connection))
  t.ok(connections.size > 2 && connections.size <= 12, `${connections.size} connections`)
  t.ok(sum(requests) < 2.1 * bytes.length)
})

nginxTest('a server without ranges is asked once', async (t) => {
  const { bytes, guest } = dataDisk(64)
  const nginx = await startNginx(t, t.testdir({ 'a.qcow2': bytes }))
  const image = await opened(t, nginx.url('whole/a.qcow2'))
  for (const offset of [0, 1, 2 * MIB, 4 * MIB - 10]) {
    t.ok((await readBytes(image, offset, 10)).equals(guest.subarray(offset, offset + 10)))
  }
  t.match(image.warnings, [{ code: 'WARN_QCOW2_NO_RANGES', layer: nginx.url('whole/a.qcow2').href }])
  t.match(await nginx.stop(), [{ path: '/whole/a.qcow2', status: 200 }])
})

nginxTest('redirects are followed once', async (t) => {
  const { bytes, guest } = dataDisk(64)
  const nginx = await startNginx(t, t.testdir({ 'a.qcow2': bytes }))
  const hash = await sha256Of(nginx.url('moved/a.qcow2?x=1'), {})
  t.equal(hash, createHash('sha256').update(guest).digest('hex'))
  const [first, ...others] = await nginx.stop()
  t.match(first, { path: '/moved/a.qcow2?x=1', status: 302 })
  t.ok(others.length > 1)
  t.ok(others.every(({ path, status }) => path === '/a.qcow2?x=1' && status === 206))
})

nginxTest('an image that is replaced while it is read is an error', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'a.qcow2')
  const { bytes, guest } = dataDisk(64)
  writeFileSync(path, bytes)
  const nginx = await startNginx(t, folder)
  const url = nginx.url('a.qcow2')
  const image = await opened(t, url)
  t.ok((await readBytes(image, MIB, 100)).equals(guest.subarray(MIB, MIB + 100)))
  // Of the same length, a little later.
  utimesSync(path, new Date(), new Date(Date.now() + 5000))
  const error = await rejection(t, readBytes(image, 2 * MIB, 100))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_SOURCE_CHANGED', { layer: url.href })
})

nginxTest('a password is asked for, and given in the address or a header', async (t) => {
  const { bytes, guest } = dataDisk(16)
  const nginx = await startNginx(t, t.testdir({ 'a.qcow2': bytes }))
  const url = nginx.url('private/a.qcow2')
  const withPassword = new URL(url)
  Object.assign(withPassword, { username: 'me', password: 'open sesame' })
  const authorization = `Basic ${Buffer.from('me:open sesame').toString('base64')}`
  for (const [input, options] of [
    [withPassword, {}],
    [url, { http: { headers: { authorization } } }],
  ] as const) {
    t.equal(await sha256Of(input, options), createHash('sha256').update(guest).digest('hex'))
  }
  const wrong = new URL(withPassword)
  wrong.password = 'open barley'
  for (const input of [url, wrong]) {
    const error = await rejection(t, opened(t, input))
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_REQUEST_FAILED', { layer: url.href })
    t.match((error as Error).message, /the server answered 401 Unauthorized; credentials, .* http\.headers$/)
    t.notMatch((error as Error).message, /barley/)
  }
})

nginxTest('what is no image is said to be none', async (t) => {
  const nginx = await startNginx(t, t.testdir({ empty: '', small: 'x' }))
  for (const name of ['empty', 'small', 'whole/empty']) {
    t.match(await rejection(t, opened(t, nginx.url(name))), { code: /ERR_QCOW2_(BAD_MAGIC|TRUNCATED)/ }, name)
  }
  t.match(await rejection(t, opened(t, nginx.url('missing'))), { message: /answered 404 Not Found$/ })
  t.match(await rejection(t, opened(t, nginx.url(''))), {
    message: /answered 403 Forbidden; credentials, .* http\.headers$/,
  })
})
