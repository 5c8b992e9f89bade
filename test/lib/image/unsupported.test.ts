/**
 * Images that are valid and cannot be read: refused by name when they are opened, never read as something else.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Qcow2Image, Qcow2UnsupportedError, type Qcow2ErrorCode } from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type ImageSpec } from '../../fixtures/image-builder.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { RecordingSource } from '../../fixtures/recording-source.js'

interface Case {
  readonly what: string
  readonly spec: ImageSpec
  readonly code: Qcow2ErrorCode
  readonly hostOffset: number
  readonly field: string
  readonly actual: unknown
  readonly says: RegExp
}

const CASES: readonly Case[] = [
  {
    what: 'of an unknown compression type',
    spec: { incompatibleFeatures: 8n, header: { compressionType: 2 } },
    code: 'ERR_QCOW2_UNSUPPORTED_COMPRESSION',
    hostOffset: 104,
    field: 'compressionType',
    actual: 2,
    says: /compression type 2; 0 \(zlib\) and 1 \(zstd\) are read$/,
  },
  {
    what: 'of the last compression type there is',
    spec: { incompatibleFeatures: 8n, header: { compressionType: 255 } },
    code: 'ERR_QCOW2_UNSUPPORTED_COMPRESSION',
    hostOffset: 104,
    field: 'compressionType',
    actual: 255,
    says: /compression type 255/,
  },
  {
    what: 'that need a feature nobody knows here',
    spec: { incompatibleFeatures: 1n << 40n, featureNames: [{ kind: 0, bit: 40, name: 'time\u001b travel' }] },
    code: 'ERR_QCOW2_UNKNOWN_FEATURE',
    hostOffset: 72,
    field: 'incompatibleFeatures',
    actual: '0x10000000000',
    says: /not known here: bit 40 "time\\u001b travel"$/,
  },
  {
    what: 'of another version',
    spec: { header: { version: 4 } },
    code: 'ERR_QCOW2_UNSUPPORTED_VERSION',
    hostOffset: 4,
    field: 'version',
    actual: 4,
    says: /qcow version 4; 2 and 3 are read$/,
  },
]

for (const { what, spec, says, code, ...facts } of CASES) {
  t.test(`refuses images ${what}, as the image itself and as a layer below it`, async (t) => {
    const { bytes } = buildImage({ virtualSize: 65536, ...spec })
    const source = new RecordingSource(bytes)
    const error = await rejection(t, Qcow2Image.open(source, { references: 'none' }))
    expectError(t, error, Qcow2UnsupportedError, code, { layer: 'image from a source', ...facts })
    t.match((error as Error).message, says)
    t.strictSame([source.closeCount, source.readsAfterClose], [1, 0], 'the source is closed')

    const folder = t.testdir()
    const path = join(folder, 'base')
    writeFileSync(path, bytes)
    writeFileSync(
      join(folder, 'top'),
      buildImage({ virtualSize: 65536, backingFile: { name: 'base', format: 'qcow2' } }).bytes,
    )
    const below = await rejection(t, Qcow2Image.open(join(folder, 'top')))
    expectError(t, below, Qcow2UnsupportedError, code, { layer: path, ...facts })
    if (cannotCount === false) t.strictSame(openDescriptors(folder), [], 'everything is closed')
  })
}
