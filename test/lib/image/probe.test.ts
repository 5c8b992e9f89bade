/**
 * Backing files of formats that are not read: recognised by how they begin, and refused by name.
 */
import t from 'tap'
import { Qcow2Image, Qcow2UnsupportedError } from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { pattern } from '../../fixtures/patterns.js'

const BEGINNINGS: readonly (readonly [format: string, offset: number, magic: string])[] = [
  ['vmdk', 0, 'KDMV'],
  ['vmdk', 0, 'COWD'],
  ['vmdk', 0, '# Disk DescriptorFile\nversion=1\n'],
  ['vhdx', 0, 'vhdxfile'],
  ['vpc', 0, 'conectix'],
  ['vdi', 64, '\x7f\x10\xda\xbe'],
  ['qed', 0, 'QED\0'],
  ['luks', 0, 'LUKS\xba\xbe\0\x01'],
  ['parallels', 0, 'WithoutFreeSpace'],
  ['parallels', 0, 'WithouFreSpacExt'],
]

const overlay = buildImage({ virtualSize: 65536, backingFile: { name: 'base' } }).bytes

for (const [format, offset, magic] of BEGINNINGS) {
  t.test(`refuses a base that begins like ${format}: ${JSON.stringify(magic)}`, async (t) => {
    const base = pattern(1, 65536)
    base.write(magic, offset, 'latin1')
    const error = await rejection(t, Qcow2Image.open(overlay, { backingFile: base }))
    expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_BACKING_FORMAT', {
      layer: 'image in memory',
      field: 'backingFormat',
      actual: format,
    })
    t.match((error as Error).message, /option backingFormat: "raw" reads it as it is/)
    const image = await opened(t, overlay, { backingFile: base, backingFormat: 'raw' })
    t.ok((await readBytes(image)).equals(base), 'and it can be read as it is')

    base[offset]! ^= 1
    t.ok((await readBytes(await opened(t, overlay, { backingFile: base }))).equals(base), 'one bit off is no match')
  })
}

t.test('reads as raw what begins like nothing known, however short', async (t) => {
  for (const base of [Buffer.alloc(0), Buffer.from('KDM'), Buffer.alloc(100), pattern(2, 65536), pattern(3, 511)]) {
    const image = await opened(t, overlay, { backingFile: base })
    t.equal(image.backingChain[1]?.format, 'raw')
    t.strictSame((await readBytes(image, 0, base.length)).toString('hex'), base.toString('hex'))
  }
})
