/**
 * Ceilings: each holds at its value and refuses what is beyond, and their own values are checked.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import t from 'tap'
import {
  createReadStream,
  Qcow2FormatError,
  Qcow2Image,
  Qcow2UnsupportedError,
  Qcow2UsageError,
  type Qcow2Limits,
} from '../../../lib/index.js'
import { closing } from '../../fixtures/consume.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { opened } from '../../fixtures/opened-image.js'

t.test('virtualSize: the disk that is read may have so many bytes', async (t) => {
  const { bytes } = buildImage({ clusterBits: 9, virtualSize: 4096, snapshots: [{ virtualSize: 8192 }] })
  await opened(t, bytes, { limits: { virtualSize: 4096 } })
  await opened(t, bytes, { limits: { virtualSize: 8192 }, snapshot: '1' })
  for (const [virtualSize, snapshot, actual] of [
    [4095, undefined, 4096],
    [0, undefined, 4096],
    [8191, '1', 8192],
  ] as const) {
    const error = await rejection(t, Qcow2Image.open(bytes, { limits: { virtualSize }, snapshot }))
    expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_SIZE', {
      layer: 'image in memory',
      field: 'limits.virtualSize',
      actual,
    })
  }
  const [error] = await closing(createReadStream(bytes, { limits: { virtualSize: 1 } }).resume())
  expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_SIZE')
})

t.test('chainDepth: a chain may have so many layers', async (t) => {
  const folder = t.testdir()
  const link = (name: string): Buffer => buildImage({ clusterBits: 9, backingFile: { name, format: 'qcow2' } }).bytes
  writeFileSync(join(folder, 'a'), link('b'))
  writeFileSync(join(folder, 'b'), link('c'))
  writeFileSync(join(folder, 'c'), buildImage({ clusterBits: 9 }).bytes)
  const image = await opened(t, join(folder, 'a'), { limits: { chainDepth: 3 } })
  t.equal(image.backingChain.length, 3)
  for (const [chainDepth, layer] of [
    [2, 'b'],
    [1, 'a'],
  ] as const) {
    const error = await rejection(t, Qcow2Image.open(join(folder, 'a'), { limits: { chainDepth } }))
    expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_CHAIN_TOO_DEEP', { layer: join(folder, layer) })
  }
})

t.test('snapshotTableBytes: a snapshot table may be so long', async (t) => {
  const { bytes } = buildImage({ clusterBits: 9, snapshots: [{ id: '1', name: 'a' }] })
  // 40 bytes, 24 of extra data, two of names.
  await opened(t, bytes, { limits: { snapshotTableBytes: 66 } })
  for (const snapshotTableBytes of [65, 0]) {
    const error = await rejection(t, Qcow2Image.open(bytes, { limits: { snapshotTableBytes } }))
    expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_SNAPSHOT_TABLE', { field: 'snapshotsOffset' })
  }
  await opened(t, buildImage({ clusterBits: 9 }).bytes, { limits: { snapshotTableBytes: 0 } })
})

t.test('spoolBytes: a stream may have so many bytes', async (t) => {
  const { bytes } = buildImage({ clusterBits: 9, virtualSize: 4096 })
  const stream = (): Readable => Readable.from([bytes.subarray(0, 100), bytes.subarray(100)])
  await opened(t, stream(), { limits: { spoolBytes: bytes.length } })
  for (const spoolBytes of [bytes.length - 1, 0]) {
    const error = await rejection(t, Qcow2Image.open(stream(), { limits: { spoolBytes } }))
    expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_SIZE', {
      layer: 'image from a stream',
      field: 'limits.spoolBytes',
    })
  }
  await opened(t, bytes, { limits: { spoolBytes: 0 } })
  const base = buildImage({ clusterBits: 9, virtualSize: 4096 }).bytes
  const overlay = buildImage({ clusterBits: 9, backingFile: { name: 'base', format: 'qcow2' } }).bytes
  const options = { backingFile: Readable.from([base]), limits: { spoolBytes: base.length - 1 } }
  const error = await rejection(t, Qcow2Image.open(overlay, options))
  expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_SIZE', { field: 'limits.spoolBytes' })
})

t.test('what is left out has its default', async (t) => {
  const { bytes } = buildImage({ clusterBits: 9, snapshots: [{}] })
  await opened(t, bytes, { limits: {} })
  await opened(t, bytes, { limits: { virtualSize: undefined, chainDepth: undefined } })
})

for (const [limits, field, actual] of [
  [{ virtualSize: -1 }, 'limits.virtualSize', -1],
  [{ virtualSize: 2 ** 53 }, 'limits.virtualSize', 2 ** 53],
  [{ chainDepth: 0 }, 'limits.chainDepth', 0],
  [{ chainDepth: 1001 }, 'limits.chainDepth', 1001],
  [{ chainDepth: 1.5 }, 'limits.chainDepth', 1.5],
  [{ snapshotTableBytes: 2 ** 26 + 1 }, 'limits.snapshotTableBytes', 2 ** 26 + 1],
  [{ spoolBytes: -1 }, 'limits.spoolBytes', -1],
  [{ spoolBytes: 2 ** 53 }, 'limits.spoolBytes', 2 ** 53],
  [{ spoolBytes: 0.5 }, 'limits.spoolBytes', 0.5],
  [{ virtualsize: 1 } as Qcow2Limits, 'limits', 'virtualsize'],
  [{ constructor: 1 } as Qcow2Limits, 'limits', 'constructor'],
  [null as unknown as Qcow2Limits, 'limits', null],
  [5 as Qcow2Limits, 'limits', 5],
] as readonly (readonly [Qcow2Limits, string, unknown])[]) {
  t.test(`refuses ${JSON.stringify(limits)}`, async (t) => {
    const error = await rejection(t, Qcow2Image.open(buildImage({ clusterBits: 9 }).bytes, { limits }))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field, actual })
  })
}
