/** For a coverage-guided fuzzer: the bytes are an image, of which everything but the clusters is read. */
import { Qcow2Error } from '../../lib/errors.js'
import { parseExtensions } from '../../lib/format/extensions.js'
import { parseHeader } from '../../lib/format/header.js'
import { parseSnapshots } from '../../lib/format/snapshots.js'

export function fuzz(bytes: Buffer): void {
  try {
    const header = parseHeader(bytes, 'fuzz')
    parseExtensions(bytes.subarray(0, 2 ** header.clusterBits), header, 'fuzz')
    parseSnapshots(bytes.subarray(Math.min(header.snapshotsOffset, 512)), header, 'fuzz')
  } catch (error) {
    if (!(error instanceof Qcow2Error)) {
      throw error
    }
  }
}
