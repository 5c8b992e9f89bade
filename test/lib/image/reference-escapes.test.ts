/**
 * Ways out of the image's folder, taken by an image further down the chain: the policy holds for each of them as for the first.
 */
import { execFileSync } from 'node:child_process'
import { realpathSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  Qcow2AccessError,
  Qcow2FormatError,
  Qcow2Image,
  Qcow2SourceError,
  type Qcow2Error,
  type Qcow2ErrorCode,
} from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { pattern } from '../../fixtures/patterns.js'
import { KINDS, naming } from '../../fixtures/referring-image.js'

const noLinks =
  process.platform === 'win32' ? 'symbolic links need a privilege on Windows, which has no FIFOs either' : false

const overlay = (name: string): Buffer =>
  buildImage({ clusterBits: 11, virtualSize: 512, backingFile: { name, format: 'qcow2' } }).bytes

type Verdict = readonly [abstract new (...parameters: never[]) => Qcow2Error, Qcow2ErrorCode]
const REFUSED: Verdict = [Qcow2AccessError, 'ERR_QCOW2_REFERENCE_REFUSED']
const LOOP: Verdict = [Qcow2FormatError, 'ERR_QCOW2_BACKING_LOOP']
const NO_FILE: Verdict = [Qcow2SourceError, 'ERR_QCOW2_NOT_A_FILE']

/** `images/` holds the chain: `top` over `second` over `third`, which names what it should not. */
function prepare(t: Test): { root: string; folder: string } {
  const root = realpathSync(t.testdir({ images: { folder: {} }, secret: pattern(2, 512) }))
  const folder = join(root, 'images')
  writeFileSync(join(folder, 'top'), overlay('second'))
  writeFileSync(join(folder, 'second'), overlay('third'))
  symlinkSync('../secret', join(folder, 'link'))
  symlinkSync('..', join(folder, 'up'))
  return { root, folder }
}

for (const kind of KINDS) {
  t.test(`a ${kind} named two layers down`, { skip: noLinks }, async (t) => {
    const { root, folder } = prepare(t)
    execFileSync('mkfifo', [join(folder, 'fifo')])
    const cases: readonly (readonly [name: string | Uint8Array, verdict: Verdict])[] = [
      [join(root, 'secret'), REFUSED],
      ['../secret', REFUSED],
      ['folder/../../secret', REFUSED],
      ['link', REFUSED],
      ['up/secret', REFUSED],
      ['fifo', NO_FILE],
      ['/dev/zero', REFUSED],
      ['/proc/self/mem', REFUSED],
      ['/proc/self/environ', REFUSED],
      ['/', REFUSED],
      ['folder', NO_FILE],
      ['json:{"file.filename":"/etc/passwd"}', REFUSED],
      ['nbd:unix:/tmp/socket', REFUSED],
      ['http://localhost/secret', REFUSED],
      ['file:../secret', REFUSED],
      // A file of the folder may well be a data file, whatever else it is.
      ...(kind === 'backing file' ? (['third', 'second', 'top'] as const).map((name) => [name, LOOP] as const) : []),
      [`${'../'.repeat(338)}secret`, REFUSED],
      [Uint8Array.from([0x2e, 0x2e, 0x2f, 0xff]), [Qcow2FormatError, 'ERR_QCOW2_BAD_REFERENCE_NAME']],
    ]
    for (const [name, [errorClass, code]] of cases) {
      writeFileSync(join(folder, 'third'), naming(kind, name))
      const error = await rejection(t, Qcow2Image.open(join(folder, 'top')))
      expectError(t, error, errorClass, code)
    }
  })
}
