/** Writes what a coverage-guided fuzzer begins with, for one of its targets, into a folder: `node corpus.js TARGET FOLDER`. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'
import { compressZstd } from '../test/fixtures/compress.js'
import { makeLuksVolume } from '../test/fixtures/luks-volume.js'
import { pattern, text } from '../test/fixtures/patterns.js'
import { SUBJECTS } from './subjects.js'

// What is longer than a fuzzer changes well is left out.
const MOST_BYTES = 128 * 1024

const images = SUBJECTS.map(({ image }) => image.bytes)

const CORPORA: Readonly<Record<string, () => Buffer[]>> = {
  metadata: () => images.map((bytes) => bytes.subarray(0, 2048)),
  luks: () =>
    ['xts-plain64', 'cbc-essiv:sha256'].map((cipherMode) =>
      makeLuksVolume({ cipherMode, keyBytes: 32 }).bytes.subarray(0, 592),
    ),
  image: () => images.filter((bytes) => bytes.length <= MOST_BYTES),
  tables: () =>
    SUBJECTS.flatMap(({ image: { bytes, layout } }, index) =>
      [...layout.l2TableOffsets.values()].map((at) =>
        Buffer.concat([Buffer.from([3 + index, index % 8, 0, 0]), bytes.subarray(at, at + 160)]),
      ),
    ),
  clusters: () =>
    [text(1, 4096), pattern(2, 4096), Buffer.alloc(4096), text(3, 700)].flatMap((bytes) =>
      [...[1, 6, 9].map((level) => deflateRawSync(bytes, { level })), compressZstd(bytes)].map((stored) =>
        Buffer.concat([Buffer.from([3]), stored]),
      ),
    ),
}

const [target = '', folder = ''] = process.argv.slice(2)
const corpus = CORPORA[target]
if (corpus === undefined || folder === '') {
  throw new Error(`a target (${Object.keys(CORPORA).join(', ')}) and a folder are needed`)
}
mkdirSync(folder, { recursive: true })
for (const [index, bytes] of corpus().entries()) {
  writeFileSync(join(folder, `seed-${index}`), bytes)
}
