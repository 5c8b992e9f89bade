/**
 * A block device as output: opened only if it is the one that was found, is free and has room; flushed and closed.
 */
import { constants, closeSync, openSync, readdirSync, readFileSync, statSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Qcow2SinkError, Qcow2UsageError } from '../../../lib/index.js'
import { BlockDevice } from '../../../lib/sink/block-device.js'
import { causeCode, expectError, rejection } from '../../fixtures/expect-error.js'
import { loopDevice, loopDeviceTest } from '../../fixtures/loop-device.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { patchPromises, systemError } from '../../fixtures/patched-fs.js'
import { pattern } from '../../fixtures/patterns.js'
import { posingDevice, posingIdentity } from '../../fixtures/posing-device.js'

const EXCLUSIVE = process.platform === 'linux' ? constants.O_EXCL : 0
const identity = posingIdentity()

/** A file of 8000 bytes that poses as a device. */
function setUp(t: Test, tamper?: (handle: FileHandle) => void): { path: string; old: Buffer; flags: unknown[] } {
  const old = pattern(1, 8000)
  const path = join(t.testdir({ device: old }), 'device')
  return { path, old, flags: posingDevice(t, path, tamper === undefined ? {} : { tamper }) }
}

function expectClosed(t: Test, path: string): void {
  if (cannotCount === false) t.same(openDescriptors(path), [], 'it is closed')
}

t.test('opens a device for reading and writing, for itself alone, and changes nothing', async (t) => {
  const { path, old, flags } = setUp(t)
  const device = await BlockDevice.open(path, { identity, length: 8000 })
  t.equal(device.path, path)
  t.same(flags, [constants.O_RDWR | EXCLUSIVE])
  await device.close()
  expectClosed(t, path)
  await device.close()
  t.ok(readFileSync(path).equals(old))
})

t.test('refuses a device that is smaller than what is to be written, and closes it', async (t) => {
  const { path, old } = setUp(t)
  const error = await rejection(t, BlockDevice.open(path, { identity, length: 8001 }))
  expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_TOO_SMALL', { layer: path, field: 'output', actual: 8000 })
  t.match((error as Error).message, /8000 bytes.*8001/, 'the message has both sizes')
  expectClosed(t, path)
  t.ok(readFileSync(path).equals(old))
})

t.test('refuses what has taken the place of the device that was found', async (t) => {
  const { path, old } = setUp(t)
  const other = join(t.testdirName, 'other')
  posingDevice(t, other, { number: 0x701n })
  for (const [place, found] of [
    [path, posingIdentity(0x701n)],
    [import.meta.filename, identity],
  ] as const) {
    const error = await rejection(t, BlockDevice.open(place, { identity: found, length: 0 }))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_UNSUPPORTED_OUTPUT', { layer: place, field: 'output' })
    expectClosed(t, place)
  }
  t.ok(readFileSync(path).equals(old))
})

t.test('creates nothing where the device is gone', async (t) => {
  const path = join(t.testdir(), 'device')
  const error = await rejection(t, BlockDevice.open(path, { identity, length: 0 }))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: path })
  t.equal(causeCode(error), 'ENOENT')
  t.same(readdirSync(t.testdirName), [])
})

t.test('says why a device cannot be opened, and of a busy one that it is in use', async (t) => {
  for (const [code, words] of [
    ['EBUSY', /: is in use: mounted, or part of something that is$/],
    ['EACCES', /: cannot be opened: EACCES: /],
  ] as const) {
    const cause = systemError(code)
    await t.test(code, async (t) => {
      patchPromises(t, { open: () => Promise.reject(cause) })
      const error = await rejection(t, BlockDevice.open('/dev/some', { identity, length: 0 }))
      expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: '/dev/some', cause })
      t.match((error as Error).message, words)
    })
  }
})

for (const method of ['stat', 'read'] as const) {
  t.test(`closes a device that fails to ${method}, and reports that, not what closing says`, async (t) => {
    const cause = systemError('EIO')
    const { path } = setUp(t, (handle) => {
      const close = handle.close.bind(handle)
      handle[method] = () => Promise.reject(cause)
      handle.close = async () => {
        await close()
        throw systemError('ENXIO')
      }
    })
    const error = await rejection(t, BlockDevice.open(path, { identity, length: 0 }))
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: path, cause })
    expectClosed(t, path)
  })
}

t.test('finishes by flushing and then closing', async (t) => {
  const calls: string[] = []
  const { path } = setUp(t, (handle) => {
    for (const method of ['sync', 'close'] as const) {
      const original = handle[method].bind(handle)
      handle[method] = () => {
        calls.push(method)
        return original()
      }
    }
  })
  const device = await BlockDevice.open(path, { identity, length: 0 })
  t.same(calls, [])
  await device.finish()
  t.same(calls, ['sync', 'close'])
  expectClosed(t, path)
  await device.close()
})

for (const method of ['sync', 'close'] as const) {
  t.test(`reports a failing ${method} when it finishes, and keeps quiet when it only closes`, async (t) => {
    const cause = systemError('EIO')
    const { path } = setUp(t, (handle) => {
      const close = handle.close.bind(handle)
      handle[method] = async () => {
        if (method === 'close') await close()
        throw cause
      }
    })
    const device = await BlockDevice.open(path, { identity, length: 0 })
    const error = await rejection(t, device.finish())
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: path, cause })
    await device.close()
    expectClosed(t, path)
  })
}

loopDeviceTest('finds the size of a real device, and flushes what was written to it', async (t) => {
  const file = join(t.testdir({ device: Buffer.alloc(2 ** 20 + 512, 0xff) }), 'device')
  const { path } = loopDevice(t, file)
  const found = `block device ${statSync(path, { bigint: true }).rdev}`
  const error = await rejection(t, BlockDevice.open(path, { identity: found, length: 2 ** 20 + 513 }))
  expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_TOO_SMALL', { layer: path, actual: 2 ** 20 + 512 })
  const device = await BlockDevice.open(path, { identity: found, length: 2 ** 20 + 512 })
  const bytes = pattern(1, 5000)
  await device.handle.write(bytes, 0, 5000, 1000)
  await device.finish()
  // The test has the device open as well, so that it was not the closing that wrote this back.
  t.ok(readFileSync(file).subarray(1000, 6000).equals(bytes))
})

loopDeviceTest(
  'refuses a real device that somebody has claimed, and claims it itself until it is closed',
  async (t) => {
    const { path } = loopDevice(t, join(t.testdir({ device: Buffer.alloc(4096) }), 'device'))
    const found = { identity: `block device ${statSync(path, { bigint: true }).rdev}`, length: 0 }
    const claim = openSync(path, constants.O_RDONLY | constants.O_EXCL)
    const error = await rejection(t, BlockDevice.open(path, found))
    closeSync(claim)
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: path })
    t.equal(causeCode(error), 'EBUSY')
    const device = await BlockDevice.open(path, found)
    t.throws(() => openSync(path, constants.O_RDONLY | constants.O_EXCL), { code: 'EBUSY' })
    await device.close()
    closeSync(openSync(path, constants.O_RDONLY | constants.O_EXCL))
  },
)
