/**
 * Checks as a whole: what is counted beside tables, how much memory may be taken, and how it ends early.
 */
import t from 'tap'
import { Qcow2Image, Qcow2SourceError, Qcow2UnsupportedError } from '../../../lib/index.js'
import { checked, checkedBytes, CLEAN } from '../../fixtures/checked.js'
import { luksImage } from '../../fixtures/encrypted-image.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type ImageSpec } from '../../fixtures/image-builder.js'
import { opened } from '../../fixtures/opened-image.js'
import { filled } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { SparseSource } from '../../fixtures/sparse-source.js'

const data = (byte: number) => ({ kind: 'data', bytes: filled(byte, 512) }) as const
const SPEC: ImageSpec = {
  clusterBits: 9,
  clusters: [
    [0, data(1)],
    [70, data(2)],
  ],
}

t.test('an image of version 2, and one with a backing file that is not there', async (t) => {
  t.strictSame((await checked({ ...SPEC, version: 2 })).found, CLEAN)
  t.strictSame((await checked({ ...SPEC, backingFile: { name: 'nowhere' } })).found, CLEAN)
})

t.test('an encryption header is used, and no passphrase is needed', async (t) => {
  const { bytes, layout } = luksImage({ clusterBits: 9, clusters: [[0, data(1)]] })
  t.match(await checkedBytes(bytes), { findingCount: 0 })
  // Its length, which the reader of keys does not need: the key slots that it leaves out are not active.
  const at = bytes.indexOf(Buffer.from('0537be7700000010', 'hex')) + 16
  const length = Number(bytes.readBigUInt64BE(at))
  bytes.writeBigUInt64BE(BigInt(bytes.length), at)
  const { corruptions, findings } = await checkedBytes(bytes)
  t.equal(corruptions, 1)
  t.match(findings[0]?.message, /^the encryption header at .* ends past the end of the file/)
  t.equal(findings[0]?.hostOffset, layout.encryptionHeaderOffset)
  t.ok(length > 512)
})

t.test('the snapshot table is used, and version 3 wants its extra data', async (t) => {
  const spec = (extraData: 0 | 16 | 24, version: 2 | 3): ImageSpec => ({
    ...SPEC,
    version,
    snapshots: [{}, { extraData, virtualSize: 71 * 512 }],
  })
  t.strictSame((await checked(spec(16, 3))).found, CLEAN)
  t.strictSame((await checked(spec(0, 2))).found, CLEAN)
  const { found, messages, findings } = await checked(spec(0, 3))
  t.strictSame(found, [0, 1, 0])
  t.match(messages, ['snapshot table entry 1: its extra data is incomplete'])
  t.ok(findings[0]!.hostOffset % 512 > 0)
})

t.test('snapshots do not go with an external data file', async (t) => {
  const { messages } = await checked({ clusterBits: 9, dataFile: { name: 'a' }, snapshots: [{}] })
  t.match(messages, ['internal snapshots in an image with an external data file'])
})

t.test('a disk of nothing', async (t) => {
  t.match(await checked({ clusterBits: 9, virtualSize: 0, clusters: [] }), {
    totalClusters: 0,
    allocatedClusters: 0,
    findingCount: 0,
  })
})

t.test('an image that was opened at a snapshot is checked as a whole', async (t) => {
  const { bytes } = buildImage({ ...SPEC, snapshots: [{ clusters: [] }] })
  const image = await opened(t, bytes, { snapshot: '1' })
  t.match(await image.check(), { totalClusters: 71, allocatedClusters: 2, findingCount: 0 })
})

t.test('memory is refused before it is taken', async (t) => {
  const { bytes } = buildImage(SPEC)
  // A file of 2 TiB at 512 bytes a cluster.
  const image = await opened(t, new SparseSource(2 ** 41, [0, bytes]))
  const needed = (2 ** 32 + 1) * 2 + 2 ** 29 + 1 + 2 ** 29 + 2 ** 23
  const error = await rejection(t, image.check())
  expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_SIZE', { field: 'memoryBytes', actual: needed })
  const small = await opened(t, bytes)
  const exact = (bytes.length / 512 + 1) * 2 + 2 * 1 + 2 ** 23 + 1
  for (const memoryBytes of [0, 2 ** 23]) {
    expectError(
      t,
      await rejection(t, small.check({ memoryBytes })),
      Qcow2UnsupportedError,
      'ERR_QCOW2_UNSUPPORTED_SIZE',
      { field: 'memoryBytes' },
    )
  }
  t.match(await small.check({ memoryBytes: exact + 100 }), { findingCount: 0 })
})

t.test('as many L2 tables as there is memory for', async (t) => {
  const clusters = Array.from({ length: 1100 }, (_, index) => [index * 64, data(index % 256)] as const)
  const { bytes } = buildImage({ clusterBits: 9, clusters })
  const image = await opened(t, bytes)
  t.match(await image.check(), { findingCount: 0, allocatedClusters: 1100 })
  const error = await rejection(t, image.check({ memoryBytes: 2 ** 23 + 2 ** 16 }))
  expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_SIZE', { field: 'memoryBytes' })
})

t.test('a read that fails ends the check, whichever it is', async (t) => {
  const { bytes } = buildImage({ ...SPEC, snapshots: [{}] })
  const count = async (failing: number): Promise<number> => {
    const source = new RecordingSource(bytes, {
      beforeRead: (n) => {
        if (n === failing) throw new Error('bad sector')
      },
    })
    const image = await Qcow2Image.open(source)
    const opening = source.reads.length
    if (failing === 0) await image.check()
    else {
      expectError(t, await rejection(t, image.check()), Qcow2SourceError, 'ERR_QCOW2_READ_FAILED')
    }
    await image.close()
    t.equal(source.readsAfterClose, 0)
    return failing === 0 ? source.reads.length : opening
  }
  const all = await count(0)
  const opening = await count(all)
  t.ok(all > opening + 4)
  for (let failing = opening + 1; failing < all; failing++) await count(failing)
})

t.test('a signal ends it, whenever it comes', async (t) => {
  const { bytes } = buildImage({ ...SPEC, snapshots: [{}] })
  const reason = new Error('enough')
  const image = await opened(t, bytes)
  t.equal(await rejection(t, image.check({ signal: AbortSignal.abort(reason) })), reason)
  const whole = new RecordingSource(bytes)
  const counted = await opened(t, whole)
  const opening = whole.reads.length
  t.match(await counted.check({ signal: new AbortController().signal }), { findingCount: 0 })
  for (let last = opening + 1; last <= whole.reads.length; last++) {
    const controller = new AbortController()
    const source = new RecordingSource(bytes, {
      beforeRead: (n) => {
        if (n === last) controller.abort(reason)
      },
    })
    const other = await opened(t, source)
    t.equal(await rejection(t, other.check({ signal: controller.signal })), reason, `read ${last}`)
    t.ok(source.reads.length <= last + 1, 'and hardly reads on')
    t.equal(source.underWay, 0)
  }
})
