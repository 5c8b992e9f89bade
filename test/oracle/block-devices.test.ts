/**
 * Block devices hold what qemu-img writes into a raw file: each of its kinds of zeros as zeros, and behind the disk what was
 * there before.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { convert } from '../../lib/index.js'
import { loopDevice, noLoopDevices } from '../fixtures/loop-device.js'
import { firstDifference, noQemu, qemuImg, qemuIo } from '../fixtures/qemu.js'
import { testNeeding } from '../fixtures/test-needing.js'

const MIB = 2 ** 20
const DISK_BYTES = 24 * MIB + 512
const DEVICE_BYTES = DISK_BYTES + 3 * MIB

/** Writes `top.qcow2` over `base.qcow2`: data, zeros in data, zero clusters over data, discarded ones, compressed ones, holes. */
async function makeImage(folder: string): Promise<void> {
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'base.qcow2', String(DISK_BYTES))
  await qemuIo(folder, 'base.qcow2', ['write -P 1 0 6M', 'write -P 2 10M 1M', `write -P 3 ${DISK_BYTES - 512} 512`])
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2')
  await qemuIo(
    folder,
    'top.qcow2',
    ['write -z 1M 1M', 'write -P 0 2M 1M', 'write -P 4 3145728 4096', 'write -z -u 4M 64k'],
    ['write -P 5 12M 100k', 'discard 12M 64k', 'write -c -P 6 14M 64k', 'write -c -P 0 15M 64k', 'write -z 10M 512'],
  )
}

testNeeding(noQemu || noLoopDevices, 'a device holds the same bytes as the raw file of qemu-img', async (t) => {
  const folder = t.testdir()
  await makeImage(folder)
  await qemuImg(folder, 'convert', '-f', 'qcow2', '-O', 'raw', 'top.qcow2', 'theirs.raw')
  const theirs = readFileSync(join(folder, 'theirs.raw'))
  t.equal(theirs.length, DISK_BYTES)
  for (const [byte, options] of [
    [0xff, {}],
    [0xff, { blocking: true }],
    [0xff, { targetIsZero: true, sparse: false }],
    [0, { targetIsZero: true }],
    [0, { targetIsZero: true, blocking: true }],
  ] as const) {
    await t.test(`filled with ${byte}, ${JSON.stringify(options)}`, async (t) => {
      const file = join(t.testdir(), 'device')
      writeFileSync(file, Buffer.alloc(DEVICE_BYTES, byte))
      const device = loopDevice(t, file)
      await convert(join(folder, 'top.qcow2'), device.path, { force: true, ...options })
      const expected = Buffer.concat([theirs, Buffer.alloc(DEVICE_BYTES - DISK_BYTES, byte)])
      t.equal(firstDifference(device.contents(), expected), undefined, 'a reader of the device gets them')
      t.equal(firstDifference(readFileSync(file), expected), undefined, 'and they are where the device keeps them')
    })
  }
})
