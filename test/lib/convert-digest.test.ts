// The digest of what a conversion writes: that of the bytes, wherever they go and however they came about; and how it ends early.
import { createHash } from 'node:crypto'
import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { convert, Qcow2FormatError, Qcow2UsageError, type Qcow2ConvertOptions } from '../../lib/index.js'
import { expectError, rejection } from '../fixtures/expect-error.js'
import { buildImage, type ClusterSpec } from '../fixtures/image-builder.js'
import { dataDisk, mixedDisk } from '../fixtures/mixed-disk.js'
import { cannotCount, openDescriptors } from '../fixtures/open-descriptors.js'
import { patchHandles, systemError } from '../fixtures/patched-fs.js'
import { pattern } from '../fixtures/patterns.js'
import { RecordingSource } from '../fixtures/recording-source.js'
import { missingPrograms } from '../fixtures/run-command.js'
import { CLUSTER, compressedDisk } from '../fixtures/thread-worthy.js'
import { settling, turns, until } from '../fixtures/turns.js'
import { runningThreads, startedThreads } from '../fixtures/worker-threads.js'

const MIB = 2 ** 20
const mixed = mixedDisk()
const plain = dataDisk(10, 21)
const compressed = compressedDisk('zlib')

const digestOf = (bytes: Uint8Array, algorithm = 'sha256'): string => createHash(algorithm).update(bytes).digest('hex')

t.test('is that of the bytes, whatever they are read from and written to', async (t) => {
  const folder = t.testdir()
  const cases: [string, typeof mixed, Qcow2ConvertOptions][] = [
    ['a bit of everything', mixed, {}],
    ['without holes', mixed, { sparse: false, blocking: true }],
    ['data, with a thread', plain, {}],
    ['the same, blocking', plain, { blocking: true }],
    ['compressed, with threads', compressed, { threads: 2 }],
    ['compressed, without those that decode', compressed, { threads: 0, blocking: true }],
    ['a part', mixed, { start: 12_345, end: 3_000_000 }],
    ['a part that needs a thread', plain, { start: 1, end: 18 * MIB }],
    ['a part that needs none', plain, { start: 4097, end: 4099 }],
    ['past the end', plain, { start: 2 ** 40 }],
  ]
  for (const [name, { bytes, guest }, options] of cases) {
    const { start = 0, end = Infinity } = options
    const expected = guest.subarray(start, end + 1)
    const path = join(folder, 'out')
    const toFile = await convert(bytes, path, { ...options, digest: 'sha256', force: true })
    t.equal(toFile.digest, digestOf(expected), name)
    t.ok(readFileSync(path).equals(expected))
    const fd = openSync(join(folder, 'in order'), 'w')
    const inOrder = await convert(bytes, fd, { ...options, digest: 'sha1' })
    closeSync(fd)
    t.equal(inOrder.digest, digestOf(expected, 'sha1'))
    t.ok(readFileSync(join(folder, 'in order')).equals(expected))
  }
  t.equal(runningThreads(), 0)
})

t.test('is none if none was asked for', async (t) => {
  const before = startedThreads()
  t.equal((await convert(plain.bytes, join(t.testdir(), 'out'))).digest, undefined)
  t.equal(startedThreads(), before)
})

t.test('is what sha256sum and others say', { skip: missingPrograms('sha256sum', 'md5sum', 'b2sum') }, async (t) => {
  const out = join(t.testdir(), 'out')
  // Zeros of more than one message to the thread, between data.
  const data = (seed: number): ClusterSpec => ({ kind: 'data', bytes: pattern(seed, 65_536) })
  const { bytes } = buildImage({
    virtualSize: 150 * MIB + 777,
    clusters: [
      [1, data(1)],
      [2000, data(2)],
    ],
  })
  for (const [program, digest] of [
    ['sha256sum', 'SHA256'],
    ['md5sum', 'md5'],
    ['b2sum', 'blake2b512'],
  ] as const) {
    const result = await convert(bytes, out, { digest, force: true })
    t.equal(spawnSync(program, [out]).stdout.toString(), `${result.digest}  ${out}\n`)
  }
})

t.test('is right when writes are slower than all else, and memory is used again', async (t) => {
  await patchHandles(
    t,
    'write',
    (original) =>
      async function (...parameters) {
        await turns(30)
        return original.apply(this, parameters)
      },
  )
  const out = join(t.testdir(), 'out')
  for (const disk of [dataDisk(25, 21), compressedDisk('zstd', undefined, 800)]) {
    const { digest } = await convert(disk.bytes, out, { digest: 'sha1', threads: 2, force: true })
    t.equal(digest, digestOf(disk.guest, 'sha1'))
    t.ok(readFileSync(out).equals(disk.guest))
  }
})

t.test('is that of what was written, if not all can be read', async (t) => {
  const damaged = compressedDisk('zlib', 5)
  const expected = Buffer.from(damaged.guest).fill(0, 5 * CLUSTER, 6 * CLUSTER)
  const out = join(t.testdir(), 'out')
  let count = 0
  const { digest } = await convert(damaged.bytes, out, { digest: 'sha256', salvage: () => (count += 1) })
  t.equal(count, 1)
  t.equal(digest, digestOf(expected))
  t.ok(readFileSync(out).equals(expected))
})

t.test('refuses a digest that there is none of, before it opens anything', async (t) => {
  for (const digest of ['crc32', 'shake256', '']) {
    const folder = t.testdir()
    const source = new RecordingSource(mixed.bytes)
    const error = await rejection(t, convert(source, join(folder, 'out'), { digest }))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'digest', actual: digest })
    t.equal(source.reads.length, 0)
    t.same(readdirSync(folder), [])
  }
})

t.test('is given up at once when the conversion is aborted, in the middle of zeros as well', async (t) => {
  const folder = t.testdir({ out: 'old' })
  // Hashing this takes an hour, and file systems take it.
  const endless = buildImage({ clusterBits: 21, virtualSize: 2 ** 43, clusters: [] })
  for (const output of ['out', '/dev/null']) {
    const controller = new AbortController()
    const { signal } = controller
    const reason = new Error('enough')
    let hashed = 0
    const onProgress = ({ bytesDone }: { bytesDone: number }): void => {
      hashed = bytesDone
    }
    const options = { digest: 'sha256', force: true, signal, onProgress }
    const converting = convert(endless.bytes, output === 'out' ? join(folder, output) : output, options)
    const hasEnded = settling(converting)
    await until(() => hashed > 0 || hasEnded())
    controller.abort(reason)
    t.equal(await rejection(t, converting), reason)
    t.equal(runningThreads(), 0)
    t.same(readdirSync(folder), ['out'])
    t.equal(readFileSync(join(folder, 'out'), 'utf8'), 'old')
    if (cannotCount === false) t.same(openDescriptors(folder), [])
  }
})

t.test('leaves no output and no thread when it ends early', async (t) => {
  const folder = t.testdir()
  const out = join(folder, 'out')
  const damaged = compressedDisk('zlib', 350)
  const failed = await rejection(t, convert(damaged.bytes, out, { digest: 'sha256', threads: 2 }))
  expectError(t, failed, Qcow2FormatError, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER', { guestOffset: 350 * CLUSTER })
  t.equal(runningThreads(), 0)
  const tooLong = buildImage({ clusterBits: 21, virtualSize: 2 ** 52, clusters: [] })
  const refused = systemError('EFBIG')
  await t.test('as soon as its length is set', async (t) => {
    await patchHandles(t, 'truncate', () => () => Promise.reject(refused))
    const error = await rejection(t, convert(tooLong.bytes, out, { digest: 'sha256' }))
    t.equal((error as Error).cause, refused)
    t.equal(runningThreads(), 0)
  })
  const stop = new Error('stop')
  for (const disk of [plain, mixed]) {
    const onProgress = (): void => {
      throw stop
    }
    t.equal(await rejection(t, convert(disk.bytes, out, { digest: 'sha256', onProgress })), stop)
    t.equal(runningThreads(), 0)
  }
  const cause = systemError('ENOSPC')
  let count = 0
  await patchHandles(
    t,
    'write',
    (original) =>
      function (...parameters) {
        return ++count === 5 ? Promise.reject(cause) : original.apply(this, parameters)
      },
  )
  t.equal(((await rejection(t, convert(plain.bytes, out, { digest: 'sha256' }))) as Error).cause, cause)
  t.equal(runningThreads(), 0)
  t.same(readdirSync(folder), [])
})
