/** For a coverage-guided fuzzer: the bytes are a LUKS header, whose scheme is worked out. */
import { iterationsToTry, schemeOf } from '../../lib/crypto/luks.js'
import { Qcow2Error } from '../../lib/errors.js'
import { parseLuksHeader } from '../../lib/format/luks-header.js'

const PLACE = { layer: 'fuzz', hostOffset: 4096, length: 2 ** 21 }

export function fuzz(bytes: Buffer): void {
  try {
    const header = parseLuksHeader(bytes, PLACE)
    iterationsToTry(header, schemeOf(header, PLACE))
  } catch (error) {
    if (!(error instanceof Qcow2Error)) {
      throw error
    }
  }
}
