/**
 * Options of a check, and images that are not open, or only in part.
 */
import t from 'tap'
import { Qcow2Image, Qcow2UsageError, type Qcow2CheckOptions } from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { legacyImage } from '../../fixtures/encrypted-image.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { opened } from '../../fixtures/opened-image.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { Gate } from '../../fixtures/turns.js'

const { bytes } = buildImage({ clusterBits: 9, virtualSize: 4096 })

t.test('memoryBytes is an integer from 0 to 4 GiB', async (t) => {
  const image = await opened(t, bytes)
  for (const memoryBytes of [-1, 0.5, 2 ** 32 + 1, NaN, '1']) {
    const error = await rejection(t, image.check({ memoryBytes } as Qcow2CheckOptions))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'memoryBytes', actual: memoryBytes })
  }
  t.match(await image.check({ memoryBytes: 2 ** 32 }), { findingCount: 0 })
  t.match(await image.check({ memoryBytes: undefined, signal: undefined }), { findingCount: 0 })
})

t.test('an image whose disk cannot be read can be checked', async (t) => {
  const overlay = await opened(t, buildImage({ clusterBits: 9, backingFile: { name: 'b' } }).bytes, {
    references: 'none',
  })
  t.match(await overlay.check(), { findingCount: 0 })
  t.match(await (await opened(t, legacyImage({ clusterBits: 9 }).bytes)).check(), { findingCount: 0 })
})

t.test('an image that is closed cannot be checked', async (t) => {
  const image = await Qcow2Image.open(bytes)
  await image.close()
  expectError(t, await rejection(t, image.check()), Qcow2UsageError, 'ERR_QCOW2_CLOSED')
})

t.test('closing waits for a check that is under way', async (t) => {
  const gate = new Gate()
  let waits = false
  const source = new RecordingSource(bytes, { beforeRead: () => (waits ? gate.opened : undefined) })
  const image = await Qcow2Image.open(source)
  waits = true
  const checking = image.check()
  const closing = image.close()
  gate.open()
  t.match(await checking, { findingCount: 0 })
  await closing
  t.equal(source.readsAfterClose, 0)
})
