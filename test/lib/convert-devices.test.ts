/**
 * Conversions into a block device: it is written where it stands, all of it that the disk needs and no more.
 */
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t, { type Test } from 'tap'
import {
  convert,
  Qcow2SinkError,
  Qcow2SourceError,
  Qcow2UsageError,
  type Qcow2ConvertOptions,
  type Qcow2Output,
} from '../../lib/index.js'
import { expectError, rejection } from '../fixtures/expect-error.js'
import { buildImage } from '../fixtures/image-builder.js'
import { loopDevice, loopDeviceTest } from '../fixtures/loop-device.js'
import { mixedDisk } from '../fixtures/mixed-disk.js'
import { cannotCount, openDescriptors } from '../fixtures/open-descriptors.js'
import { systemError } from '../fixtures/patched-fs.js'
import { posingDevice } from '../fixtures/posing-device.js'
import { RecordingSource } from '../fixtures/recording-source.js'

const disk = mixedDisk()
const { guest } = disk
const TAIL = 5000

/** The device before: none of its bytes is a zero. */
const full = Buffer.alloc(guest.length + TAIL, 0xff)

/** A file that poses as a device, longer than the disk. */
function setUp(t: Test, before = full, tamper?: (handle: FileHandle) => void): string {
  const path = join(t.testdir({ device: before }), 'device')
  posingDevice(t, path, tamper === undefined ? {} : { tamper })
  return path
}

/** Asserts what the device holds now, that nothing stands beside it, and that it is closed. */
function expectDevice(t: Test, path: string, expected: Buffer): void {
  t.ok(readFileSync(path).equals(expected), 'it holds what it should')
  t.same(readdirSync(t.testdirName), ['device'], 'nothing is beside it')
  if (cannotCount === false) t.same(openDescriptors(path), [], 'it is closed')
}

const onFull = Buffer.concat([guest, full.subarray(guest.length)])

t.test('overwrites a device with all that the disk holds, zeros too, and leaves what lies behind', async (t) => {
  const variants: Qcow2ConvertOptions[] = [{}, { blocking: true }, { sparse: true }, { sparse: false }, { fsync: true }]
  for (const options of variants) {
    const path = setUp(t)
    const { ino } = statSync(path)
    const result = await convert(disk.bytes, pathToFileURL(path), { ...options, force: true })
    t.same(result, { length: guest.length, bytesWritten: guest.length, warnings: [] }, JSON.stringify(options))
    expectDevice(t, path, onFull)
    t.equal(statSync(path).ino, ino, 'it is the one that was there')
  }
})

t.test('passes over zeros with targetIsZero, but for sparse: false', async (t) => {
  for (const blocking of [true, false]) {
    const path = setUp(t, Buffer.alloc(full.length))
    const { length, bytesWritten } = await convert(disk.bytes, path, { force: true, targetIsZero: true, blocking })
    t.equal(length, guest.length)
    t.ok(bytesWritten < guest.length / 2 + 2 ** 20, `${bytesWritten} bytes are written`)
    expectDevice(t, path, Buffer.concat([guest, Buffer.alloc(TAIL)]))
  }
  const zeros = buildImage({ clusterBits: 12, virtualSize: 65_536, clusters: [] })
  const path = setUp(t)
  const options = { force: true, targetIsZero: true }
  t.equal((await convert(zeros.bytes, path, options)).bytesWritten, 0)
  expectDevice(t, path, full)
  t.equal((await convert(zeros.bytes, path, { ...options, sparse: false })).bytesWritten, 65_536)
  expectDevice(t, path, Buffer.concat([Buffer.alloc(65_536), full.subarray(65_536)]))
})

t.test('takes targetIsZero for no other output, and neither reads nor creates anything', async (t) => {
  const folder = t.testdir({ old: 'old' })
  const outputs: Qcow2Output[] = [join(folder, 'new'), join(folder, 'old'), 1]
  if (process.platform !== 'win32') outputs.push('/dev/null')
  for (const output of outputs) {
    const source = new RecordingSource(disk.bytes)
    const error = await rejection(t, convert(source, output, { force: true, targetIsZero: true }))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'targetIsZero', actual: true })
    t.equal(source.reads.length, 0)
  }
  t.same(readdirSync(folder), ['old'])
  t.equal(readFileSync(join(folder, 'old'), 'utf8'), 'old')
  await convert(disk.bytes, join(folder, 'new'), { targetIsZero: false })
  t.ok(readFileSync(join(folder, 'new')).equals(guest), 'to say that it is not is no more than the default')
})

t.test('writes a part of the disk at the beginning of the device, which need not have room for more', async (t) => {
  for (const [start, end] of [
    [1000, 99_999],
    [200 * 16_384 - 5, 200 * 16_384 + 20_000],
    [5, 5],
    [guest.length, Infinity],
  ] as const) {
    const part = guest.subarray(start, end + 1)
    const path = setUp(t, Buffer.alloc(100_000, 0xff))
    const options = end === Infinity ? { start } : { start, end }
    const { length, bytesWritten } = await convert(disk.bytes, path, { ...options, force: true })
    t.same([length, bytesWritten], [part.length, part.length])
    expectDevice(t, path, Buffer.concat([part, Buffer.alloc(100_000 - part.length, 0xff)]))
  }
})

t.test('refuses a device without force before it reads anything', async (t) => {
  const path = setUp(t)
  const source = new RecordingSource(disk.bytes)
  const error = await rejection(t, convert(source, path))
  expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_EXISTS', { layer: path, field: 'force' })
  t.equal(source.reads.length, 0)
  expectDevice(t, path, full)
})

t.test('writes nothing to a device that is too small, and takes one that just has room', async (t) => {
  const path = setUp(t, full.subarray(0, guest.length - 1))
  const source = new RecordingSource(disk.bytes)
  const error = await rejection(t, convert(source, path, { force: true }))
  const facts = { layer: path, field: 'output', actual: guest.length - 1 }
  expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_TOO_SMALL', facts)
  t.equal(source.closeCount, 1)
  expectDevice(t, path, full.subarray(0, guest.length - 1))
  const fitting = setUp(t, full.subarray(0, guest.length))
  await convert(disk.bytes, fitting, { force: true })
  expectDevice(t, fitting, guest)
})

t.test('never takes a device that it reads from as output, whichever node names it', async (t) => {
  const folder = t.testdir({ base: Buffer.alloc(512, 1), nodes: { again: disk.bytes } })
  const node = join(folder, 'node')
  const again = join(folder, 'nodes', 'again')
  const base = join(folder, 'base')
  const overlay = join(folder, 'overlay')
  writeFileSync(node, disk.bytes)
  writeFileSync(overlay, buildImage({ clusterBits: 9, backingFile: { name: 'base', format: 'raw' } }).bytes)
  for (const path of [node, again]) posingDevice(t, path, { number: 5n })
  posingDevice(t, base, { number: 6n })
  for (const [input, output, layer] of [
    [node, node, node],
    [node, again, node],
    [overlay, base, base],
  ] as const) {
    const error = await rejection(t, convert(input, output, { force: true }))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_IS_INPUT', { field: 'output', layer, actual: output })
  }
  t.ok(readFileSync(node).equals(disk.bytes))
  t.ok(readFileSync(again).equals(disk.bytes))
  t.ok(readFileSync(base).equals(Buffer.alloc(512, 1)))
})

t.test('rejects with the error of the n-th write, for every n, and closes the device as it is', async (t) => {
  let count = 0
  let failing = Infinity
  const cause = systemError('EIO')
  const path = setUp(t, full, (handle) => {
    const write = handle.write.bind(handle) as (...parameters: unknown[]) => Promise<unknown>
    Object.assign(handle, {
      write: (...parameters: unknown[]) => (++count === failing ? Promise.reject(cause) : write(...parameters)),
    })
  })
  await convert(disk.bytes, path, { force: true })
  const total = count
  t.ok(total > 2, `${total} writes`)
  for (failing = 1; failing <= total; failing++) {
    count = 0
    const source = new RecordingSource(disk.bytes)
    const error = await rejection(t, convert(source, path, { force: true }))
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: path, cause })
    t.same({ closed: source.closeCount, late: source.readsAfterClose }, { closed: 1, late: 0 })
    if (cannotCount === false) t.same(openDescriptors(path), [])
  }
})

for (const method of ['sync', 'close'] as const) {
  t.test(`rejects when the device does not take ${method}, which comes last`, async (t) => {
    const cause = systemError('EIO')
    const path = setUp(t, full, (handle) => {
      const close = handle.close.bind(handle)
      handle[method] = async () => {
        if (method === 'close') await close()
        throw cause
      }
    })
    const error = await rejection(t, convert(disk.bytes, path, { force: true }))
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: path, cause })
    expectDevice(t, path, onFull)
  })
}

t.test('leaves a device partly written when the image cannot be read on, and closes it', async (t) => {
  const path = setUp(t)
  const whole = new RecordingSource(disk.bytes)
  await convert(whole, path, { force: true })
  for (let n = 1; n <= whole.reads.length; n++) {
    writeFileSync(path, full)
    const cause = systemError('EIO')
    const source = new RecordingSource(disk.bytes, {
      beforeRead: (index) => {
        if (index === n) throw cause
      },
    })
    const error = await rejection(t, convert(source, path, { force: true }))
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { cause })
    const now = readFileSync(path)
    t.ok(now.subarray(guest.length).equals(full.subarray(guest.length)), 'what lies behind is as it was')
    const isOldOrNew = now.every((byte, index) => byte === 0xff || byte === onFull[index])
    t.ok(isOldOrNew, 'each byte is the old one or the new one')
    if (cannotCount === false) t.same(openDescriptors(path), [])
  }
})

t.test('when aborted at any progress, closes the device and rejects with the reason', async (t) => {
  const path = setUp(t)
  let total = 0
  await convert(disk.bytes, path, { force: true, onProgress: () => (total += 1) })
  for (let n = 1; n <= total; n++) {
    const controller = new AbortController()
    const reason = new Error('changed my mind')
    let count = 0
    const onProgress = (): void => {
      if (++count === n) controller.abort(reason)
    }
    const { signal } = controller
    t.equal(await rejection(t, convert(disk.bytes, path, { force: true, signal, onProgress })), reason)
    if (cannotCount === false) t.same(openDescriptors(path), [])
  }
})

loopDeviceTest('writes a real device, and has flushed it when it resolves', async (t) => {
  const size = Math.ceil(guest.length / 4096) * 4096 + 4096
  const folder = t.testdir({ full: Buffer.alloc(size, 0xff), zero: Buffer.alloc(size) })
  for (const [name, byte] of [
    ['full', 0xff],
    ['zero', 0],
  ] as const) {
    const { path } = loopDevice(t, join(folder, name))
    await convert(disk.bytes, path, { force: true, targetIsZero: name === 'zero' })
    const expected = Buffer.concat([guest, Buffer.alloc(size - guest.length, byte)])
    // The test has the device open as well, so that it was not the closing that wrote this back.
    t.ok(readFileSync(join(folder, name)).equals(expected), name)
    t.ok(statSync(path).isBlockDevice())
  }
})

loopDeviceTest('recognises a real device behind another node of it', async (t) => {
  const folder = t.testdir({ device: Buffer.concat([disk.bytes, Buffer.alloc(512)]) })
  const device = loopDevice(t, join(folder, 'device'))
  mkdirSync(join(folder, 'nodes'))
  const node = join(folder, 'nodes', 'node')
  device.makeNode(node)
  const before = device.contents()
  for (const output of [device.path, node]) {
    const error = await rejection(t, convert(device.path, output, { force: true }))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_IS_INPUT', { layer: device.path, actual: output })
  }
  t.ok(device.contents().equals(before))
})
