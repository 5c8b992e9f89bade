/**
 * The format of a backing file whose image does not record it.
 *
 * As dangerous as it is in QEMU: a guest can write a qcow2 header onto its raw disk. What such an image could then name
 * is still subject to the reference policy. Formats that QEMU would recognise and we do not read are refused.
 */
import { Qcow2UnsupportedError } from '../errors.js'
import { hasQcow2Magic } from '../format/header.js'
import type { HostFile } from '../source/source.js'

const OTHERS: readonly (readonly [name: string, offset: number, magic: string])[] = [
  ['vmdk', 0, 'KDMV'],
  ['vmdk', 0, 'COWD'],
  ['vmdk', 0, '# Disk DescriptorFile'],
  ['vhdx', 0, 'vhdxfile'],
  ['vpc', 0, 'conectix'],
  ['vdi', 0x40, '\x7f\x10\xda\xbe'],
  ['qed', 0, 'QED\0'],
  ['luks', 0, 'LUKS\xba\xbe'],
  ['parallels', 0, 'WithoutFreeSpace'],
  ['parallels', 0, 'WithouFreSpacExt'],
]
const PROBED_BYTES = 512

/**
 * `'qcow2'` if the file begins like one, `'raw'` if it does not begin like any other image format.
 *
 * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNSUPPORTED_BACKING_FORMAT`
 */
export async function probeFormat(file: HostFile): Promise<'qcow2' | 'raw'> {
  const bytes = Buffer.alloc(PROBED_BYTES)
  await file.read(bytes, 0)
  if (hasQcow2Magic(bytes)) {
    return 'qcow2'
  }
  for (const [name, offset, magic] of OTHERS) {
    if (bytes.toString('latin1', offset, offset + magic.length) === magic) {
      throw new Qcow2UnsupportedError(
        'ERR_QCOW2_UNSUPPORTED_BACKING_FORMAT',
        `looks like a ${name} image; "raw" and "qcow2" are read (option backingFormat: "raw" reads it as it is)`,
        { layer: file.label, field: 'backingFormat', actual: name },
      )
    }
  }
  return 'raw'
}
