// Whatever fails in a conversion: it rejects with that error, closes everything, and leaves the target as it was.
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { convert, Qcow2FormatError, Qcow2SinkError, Qcow2SourceError } from '../../lib/index.js'
import { causeCode, expectError, rejection } from '../fixtures/expect-error.js'
import { buildImage } from '../fixtures/image-builder.js'
import { mixedDisk } from '../fixtures/mixed-disk.js'
import { cannotCount, openDescriptors } from '../fixtures/open-descriptors.js'
import { patchHandles, patchPromises, systemError } from '../fixtures/patched-fs.js'
import { RecordingSource } from '../fixtures/recording-source.js'

const disk = mixedDisk()

/** Asserts that the folder holds the old output and nothing else, and that nothing of it is open. */
function expectUntouched(t: Test, folder: string, others: readonly string[] = []): void {
  t.same(readdirSync(folder).sort(), ['out', ...others].sort(), 'nothing but the target is there')
  t.ok(readFileSync(join(folder, 'out')).equals(Buffer.from('old')), 'the target is as it was')
  if (cannotCount === false) t.same(openDescriptors(folder), [], 'nothing is open')
}

t.test('rejects with the error of the n-th read, for every n', async (t) => {
  const folder = t.testdir({ out: 'old' })
  const whole = new RecordingSource(disk.bytes)
  await convert(whole, join(t.testdirName, 'whole'))
  for (let n = 1; n <= whole.reads.length; n++) {
    const cause = systemError('EIO')
    const source = new RecordingSource(disk.bytes, {
      beforeRead: (index) => {
        if (index === n) throw cause
      },
    })
    const error = await rejection(t, convert(source, join(folder, 'out'), { force: true }))
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { cause, hostOffset: source.reads[n - 1]?.offset })
    t.same({ closed: source.closeCount, late: source.readsAfterClose }, { closed: 1, late: 0 })
    expectUntouched(t, folder, ['whole'])
  }
})

for (const sparse of [true, false]) {
  t.test(`rejects with the error of the n-th write, for every n, ${sparse ? 'with' : 'without'} holes`, async (t) => {
    const folder = t.testdir({ out: 'old' })
    let count = 0
    let failing = Infinity
    const cause = systemError('ENOSPC')
    await patchHandles(
      t,
      'write',
      (original) =>
        function (...parameters) {
          return ++count === failing ? Promise.reject(cause) : original.apply(this, parameters)
        },
    )
    await convert(disk.bytes, join(folder, 'whole'), { sparse })
    const total = count
    t.ok(total > 2)
    for (failing = 1; failing <= total; failing++) {
      count = 0
      const source = new RecordingSource(disk.bytes)
      const error = await rejection(t, convert(source, join(folder, 'out'), { sparse, force: true }))
      expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: join(folder, 'out'), cause })
      t.same({ closed: source.closeCount, late: source.readsAfterClose }, { closed: 1, late: 0 })
      expectUntouched(t, folder, ['whole'])
    }
  })
}

for (const what of ['truncate', 'sync', 'chmod'] as const) {
  t.test(`rejects when the output does not take ${what}`, async (t) => {
    const folder = t.testdir({ out: 'old' })
    const cause = systemError('EIO')
    await patchHandles(t, what, () => () => Promise.reject(cause))
    const error = await rejection(t, convert(disk.bytes, join(folder, 'out'), { force: true, fsync: true }))
    const code = what === 'chmod' ? 'ERR_QCOW2_CREATE_FAILED' : 'ERR_QCOW2_WRITE_FAILED'
    expectError(t, error, Qcow2SinkError, code, { layer: join(folder, 'out'), cause })
    expectUntouched(t, folder)
  })
}

t.test('rejects when the output cannot get its name', async (t) => {
  const folder = t.testdir({ out: 'old' })
  const cause = systemError('EACCES')
  patchPromises(t, { rename: () => Promise.reject(cause) })
  const error = await rejection(t, convert(disk.bytes, join(folder, 'out'), { force: true }))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: join(folder, 'out'), cause })
  expectUntouched(t, folder)
})

t.test('rejects when closing the source fails, and when something failed before, with that', async (t) => {
  const folder = t.testdir({ out: 'old' })
  const closeError = systemError('EIO')
  const readError = systemError('ENXIO')
  for (const cause of [closeError, readError]) {
    const source = new RecordingSource(disk.bytes, {
      beforeRead: (n) => {
        if (n === 4 && cause === readError) throw readError
      },
      beforeClose: () => {
        throw closeError
      },
    })
    const error = await rejection(t, convert(source, join(folder, 'out'), { force: true }))
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { cause })
    expectUntouched(t, folder)
  }
})

t.test('creates nothing for an image that cannot be opened or read', async (t) => {
  const folder = t.testdir({ out: 'old' })
  const damaged = buildImage({ patch: (bytes) => bytes.writeUInt32BE(7, 4) })
  const error = await rejection(t, convert(damaged.bytes, join(folder, 'out'), { force: true }))
  t.match(error, { code: 'ERR_QCOW2_UNSUPPORTED_VERSION' })
  const unreadable = buildImage({ backingFile: { name: 'base', format: 'raw' } })
  const refused = rejection(t, convert(unreadable.bytes, join(folder, 'out'), { force: true, references: 'none' }))
  t.match(await refused, { code: 'ERR_QCOW2_REFERENCE_REFUSED' })
  const missing = rejection(t, convert(join(folder, 'missing'), join(folder, 'out'), { force: true }))
  expectError(t, await missing, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED', { layer: join(folder, 'missing') })
  expectUntouched(t, folder)
})

t.test('leaves no output of a damaged image', async (t) => {
  const folder = t.testdir({ out: 'old' })
  const damaged = buildImage({
    clusterBits: 12,
    clusters: [
      [0, { kind: 'data', bytes: Buffer.alloc(4096, 1) }],
      [9, { kind: 'compressed-raw', payload: Buffer.alloc(10, 0xff) }],
    ],
  })
  writeFileSync(join(folder, 'in'), damaged.bytes)
  const error = await rejection(t, convert(join(folder, 'in'), join(folder, 'out'), { force: true }))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER', {
    layer: join(folder, 'in'),
    guestOffset: 9 * 4096,
  })
  expectUntouched(t, folder, ['in'])
})

t.test('rejects where no file can be created', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'missing', 'out')
  const error = await rejection(t, convert(disk.bytes, path))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: path })
  t.equal(causeCode(error), 'ENOENT')
  t.same(readdirSync(folder), [])
})

const isRoot = process.getuid?.() === 0

t.test('rejects in a folder without write permission', { skip: isRoot && 'root may write anywhere' }, async (t) => {
  const folder = join(t.testdir(), 'locked')
  mkdirSync(folder)
  chmodSync(folder, 0o555)
  const error = await rejection(t, convert(disk.bytes, join(folder, 'out')))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: join(folder, 'out') })
})
