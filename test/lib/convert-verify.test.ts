// Verifying: what is not on the disk as it was written is found, and then no output appears; and how it ends early.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  convert,
  Qcow2SinkError,
  Qcow2SourceError,
  Qcow2UsageError,
  type Qcow2ConvertOptions,
  type Qcow2Output,
  type Qcow2Progress,
} from '../../lib/index.js'
import { expectError, rejection } from '../fixtures/expect-error.js'
import { makeFifo } from '../fixtures/fifo.js'
import { loopDevice, loopDeviceTest } from '../fixtures/loop-device.js'
import { buildImage, type ClusterSpec } from '../fixtures/image-builder.js'
import { mixedDisk } from '../fixtures/mixed-disk.js'
import { cannotCount, openDescriptors } from '../fixtures/open-descriptors.js'
import { patchHandles, systemError } from '../fixtures/patched-fs.js'
import { pattern } from '../fixtures/patterns.js'
import { RecordingSource } from '../fixtures/recording-source.js'
import { CLUSTER, compressedDisk } from '../fixtures/thread-worthy.js'
import { runningThreads } from '../fixtures/worker-threads.js'

const MIB = 2 ** 20
const mixed = mixedDisk()
const compressed = compressedDisk('zlib')

/** Does something to each output between the passes: when it is synced, that it may be read back. */
async function betweenPasses(t: Test, change: (handle: FileHandle) => Promise<unknown>): Promise<void> {
  await patchHandles(
    t,
    'sync',
    (original) =>
      async function (...parameters) {
        await change(this)
        return original.apply(this, parameters)
      },
  )
}

t.test('passes what is as it was written', async (t) => {
  const folder = t.testdir()
  const cases: [string, typeof mixed, Qcow2ConvertOptions][] = [
    ['a bit of everything', mixed, {}],
    ['without holes', mixed, { sparse: false }],
    ['a part', mixed, { start: 12_345, end: 3_000_000, blocking: true, fsync: true }],
    ['past the end', mixed, { start: 2 ** 40 }],
    ['decoded in threads, with a digest', compressed, { threads: 2, digest: 'sha256' }],
  ]
  for (const [name, { bytes, guest }, options] of cases) {
    const source = new RecordingSource(bytes)
    const { start = 0, end = Infinity } = options
    const out = join(folder, name)
    const result = await convert(source, out, { ...options, verify: true })
    t.ok(readFileSync(out).equals(guest.subarray(start, end + 1)), name)
    t.equal(result.digest === undefined, options.digest === undefined)
    t.same({ closed: source.closeCount, late: source.readsAfterClose }, { closed: 1, late: 0 })
  }
  t.equal(runningThreads(), 0)
  if (cannotCount === false) t.same(openDescriptors(folder), [])
})

t.test('reads the image again, and the output, only if it is asked to', async (t) => {
  const out = join(t.testdir(), 'out')
  const bytesRead: number[] = []
  for (const verify of [undefined, false, true]) {
    const source = new RecordingSource(compressed.bytes)
    await convert(source, out, { verify, force: true })
    bytesRead.push(source.bytesRead)
  }
  const [once, also, twice] = bytesRead as [number, number, number]
  t.equal(once, also)
  t.ok(twice > 1.8 * once, `${once} bytes are read, and ${twice}`)
})

t.test('says how far both passes have come', async (t) => {
  const seen: Qcow2Progress[] = []
  const { length } = await convert(mixed.bytes, join(t.testdir(), 'out'), {
    verify: true,
    onProgress: (progress) => seen.push(progress),
  })
  const firstPass = seen.filter(({ phase }) => phase === 'converting')
  const secondPass = seen.filter(({ phase }) => phase === 'verifying')
  t.same(seen, [...firstPass, ...secondPass])
  for (const pass of [firstPass, secondPass]) {
    t.ok(pass.length > 1)
    t.ok(
      pass.every(({ bytesDone, bytesTotal }, i) => bytesDone > (pass[i - 1]?.bytesDone ?? 0) && bytesTotal === length),
    )
    t.equal(pass.at(-1)?.bytesDone, length)
  }
})

t.test('finds what has changed, wherever, and then no output appears', async (t) => {
  // Data, a hole within data, zeros of some clusters, compressed data, and a hole that the file system knows of.
  const data = (seed: number): ClusterSpec => ({ kind: 'data', bytes: pattern(seed, CLUSTER) })
  const withHole = Buffer.concat([pattern(2, 8192), Buffer.alloc(16_384), pattern(3, CLUSTER - 24_576)])
  const { bytes, guest } = buildImage({
    virtualSize: 60 * MIB + 5,
    clusters: [
      [0, data(1)],
      [1, { kind: 'data', bytes: withHole }],
      [2, { kind: 'zero' }],
      [3, { kind: 'compressed', bytes: withHole }],
      [900, data(4)],
    ],
  })
  const places = [
    0,
    CLUSTER - 1,
    CLUSTER + 8192,
    2 * CLUSTER + 77,
    3 * CLUSTER,
    3 * CLUSTER + 10_000,
    40 * MIB + 1,
    900 * CLUSTER,
    guest.length - 1,
  ]
  let place = 0
  await betweenPasses(t, (handle) => handle.write(Buffer.from([guest[place]! ^ 1]), 0, 1, place))
  const folder = t.testdir({ old: 'old' })
  for (place of places) {
    for (const options of [{}, { sparse: false }, { start: 0, end: place }]) {
      for (const name of ['new', 'old']) {
        const out = join(folder, name)
        const error = await rejection(t, convert(bytes, out, { ...options, verify: true, force: true }))
        expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_VERIFY_FAILED', {
          layer: out,
          hostOffset: place,
          guestOffset: place,
          actual: guest[place]! ^ 1,
        })
        t.same(readdirSync(folder), ['old'])
        t.equal(readFileSync(join(folder, 'old'), 'utf8'), 'old')
      }
    }
  }
  if (cannotCount === false) t.same(openDescriptors(folder), [])
})

t.test('names offsets in the output and on the disk', async (t) => {
  await betweenPasses(t, (handle) => handle.write(Buffer.from([mixed.guest[12_000]! ^ 0xff]), 0, 1, 2000))
  const folder = t.testdir()
  const out = join(folder, 'out')
  const error = await rejection(t, convert(mixed.bytes, out, { start: 10_000, verify: true }))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_VERIFY_FAILED', { hostOffset: 2000, guestOffset: 12_000 })
  t.match((error as Error).message, /byte at offset 0x7d0, guest offset 0x2ee0, is 0x/)
  t.same(readdirSync(folder), [])
})

t.test('finds an output that has another length', async (t) => {
  const { length } = mixed.guest
  for (const actual of [length - 1, length + 1]) {
    await t.test(`${actual} bytes`, async (t) => {
      await betweenPasses(t, (handle) => handle.truncate(actual))
      const folder = t.testdir()
      const error = await rejection(t, convert(mixed.bytes, join(folder, 'out'), { verify: true }))
      expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_VERIFY_FAILED', { actual })
      t.same(readdirSync(folder), [])
    })
  }
})

t.test('fails if the output cannot be flushed, or read', async (t) => {
  const cause = systemError('EIO')
  const folder = t.testdir()
  await t.test('not flushed', async (t) => {
    await betweenPasses(t, () => Promise.reject(cause))
    const error = await rejection(t, convert(mixed.bytes, join(folder, 'out'), { verify: true }))
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { cause })
  })
  await t.test('not read', async (t) => {
    await patchHandles(t, 'read', () => () => Promise.reject(cause))
    const error = await rejection(t, convert(mixed.bytes, join(folder, 'out'), { verify: true }))
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_VERIFY_FAILED', { hostOffset: 0, cause })
  })
  t.same(readdirSync(folder), [])
})

t.test('fails if the image cannot be read a second time', async (t) => {
  const whole = new RecordingSource(mixed.bytes)
  await convert(whole, '/dev/null')
  const folder = t.testdir()
  const cause = systemError('EIO')
  let isSecond = false
  await betweenPasses(t, async () => {
    isSecond = true
  })
  const source = new RecordingSource(mixed.bytes, {
    beforeRead: () => {
      if (isSecond) throw cause
    },
  })
  const error = await rejection(t, convert(source, join(folder, 'out'), { verify: true }))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { cause })
  t.equal(source.closeCount, 1)
  t.same(readdirSync(folder), [])
})

t.test('tells of damage once, and verifies the zeros in its place', async (t) => {
  const damaged = compressedDisk('zlib', 5)
  const folder = t.testdir()
  const told: number[] = []
  const salvage = ({ offset }: { offset: number }): void => {
    told.push(offset)
  }
  await convert(damaged.bytes, join(folder, 'out'), { salvage, verify: true })
  t.same(told, [5 * CLUSTER])
  const expected = Buffer.from(damaged.guest).fill(0, 5 * CLUSTER, 6 * CLUSTER)
  t.ok(readFileSync(join(folder, 'out')).equals(expected))
  await betweenPasses(t, (handle) => handle.write(Buffer.from([1]), 0, 1, 5 * CLUSTER + 3))
  const error = await rejection(t, convert(damaged.bytes, join(folder, 'other'), { salvage, verify: true }))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_VERIFY_FAILED', { hostOffset: 5 * CLUSTER + 3, actual: 1 })
})

t.test('is aborted at any moment, and leaves the target as it was', async (t) => {
  const folder = t.testdir({ out: 'old' })
  const out = join(folder, 'out')
  let total = 0
  const count = ({ phase }: Qcow2Progress): unknown => phase === 'verifying' && (total += 1)
  await convert(mixed.bytes, join(t.testdirName, 'whole'), { verify: true, onProgress: count })
  t.ok(total > 1)
  for (let n = 1; n <= total; n++) {
    for (const ends of ['aborts', 'throws']) {
      const controller = new AbortController()
      const { signal } = controller
      const reason = new Error(`${ends} at ${n}`)
      let seen = 0
      const onProgress = ({ phase }: Qcow2Progress): void => {
        if (phase === 'verifying' && ++seen === n) {
          if (ends === 'throws') throw reason
          controller.abort(reason)
        }
      }
      const source = new RecordingSource(mixed.bytes)
      const converting = convert(source, out, { verify: true, force: true, signal, onProgress })
      t.equal(await rejection(t, converting), reason)
      t.equal(source.closeCount, 1)
      t.same(readdirSync(folder).sort(), ['out', 'whole'])
      t.equal(readFileSync(out, 'utf8'), 'old')
      if (cannotCount === false) t.same(openDescriptors(folder), [])
    }
  }
})

t.test('refuses what is written in order, before it opens the image', async (t) => {
  const fifo = process.platform === 'win32' ? '/dev/null' : makeFifo(t)
  const path = join(t.testdirName, 'file')
  writeFileSync(path, 'old')
  const handle = await open(path, 'r+')
  t.teardown(() => handle.close())
  // A file, but nobody knows where in it the disk begins.
  const outputs: Qcow2Output[] = [fifo, '/dev/null', 1, handle.fd]
  for (const output of outputs) {
    const source = new RecordingSource(mixed.bytes)
    const error = await rejection(t, convert(source, output, { verify: true }))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'verify', actual: true })
    t.match(
      (error as Error).message,
      /^verify: found "true", allowed is false, as what is written in order, .* cannot be read back/,
    )
    t.equal(source.reads.length, 0)
  }
  t.equal(readFileSync(path, 'utf8'), 'old')
})

loopDeviceTest('verifies a block device as far as it was written', async (t) => {
  const file = join(t.testdir(), 'file')
  writeFileSync(file, Buffer.alloc(5 * MIB, 0xee))
  const device = loopDevice(t, file)
  const seen = new Set<string>()
  const options = { force: true, verify: true, onProgress: ({ phase }: Qcow2Progress) => seen.add(phase) }
  await convert(mixed.bytes, device.path, options)
  t.same([...seen], ['converting', 'verifying'])
  t.ok(device.contents().equals(Buffer.concat([mixed.guest, Buffer.alloc(5 * MIB - mixed.guest.length, 0xee)])))

  await t.test('and finds what is not as it should be', async (t) => {
    await betweenPasses(t, (handle) => handle.write(Buffer.from([mixed.guest[100]! ^ 1]), 0, 1, 100))
    const error = await rejection(t, convert(mixed.bytes, device.path, options))
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_VERIFY_FAILED', { layer: device.path, hostOffset: 100 })
  })
  await t.test('zeros that it was said to have, but has not, as well', async (t) => {
    const { bytes } = buildImage({ virtualSize: 4 * MIB, clusters: [[0, { kind: 'data', bytes: pattern(1, 65_536) }]] })
    writeFileSync(device.path, Buffer.alloc(5 * MIB, 0xee))
    const error = await rejection(t, convert(bytes, device.path, { ...options, targetIsZero: true }))
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_VERIFY_FAILED', { hostOffset: 65_536, actual: 0xee })
  })
  if (cannotCount === false) t.same(openDescriptors(device.path), [device.fd])
})
