/**
 * The valid images that mutants are made from, small: the kinds of clusters and tables that there are, snapshots, names, and
 * files to refer to.
 */
import { legacyImage, luksImage, PASSPHRASE } from '../test/fixtures/encrypted-image.js'
import { buildImage, type BuiltImage, type ClusterSpec, type ImageSpec } from '../test/fixtures/image-builder.js'
import { pattern, text } from '../test/fixtures/patterns.js'

/** An image, and the other files in its folder. */
export interface Subject {
  readonly title: string
  readonly image: BuiltImage
  readonly files: Readonly<Record<string, Buffer>>
  /** Name of the file with its passphrase, if it is encrypted. */
  readonly secret?: string
}

/** Some of everything that the geometry allows. */
function clusters(bits: number, isMixed: boolean, seed = 0): (readonly [number, ClusterSpec])[] {
  const size = 2 ** bits
  const data = (index: number): ClusterSpec => ({ kind: 'data', bytes: pattern(seed + index, size) })
  const compressed = (index: number): ClusterSpec => ({ kind: 'compressed', bytes: text(seed + index, size) })
  return [
    [0, data(0)],
    [1, data(1)],
    [3, compressed(3)],
    [4, compressed(4)],
    [5, { kind: 'compressed', bytes: pattern(seed + 5, size), level: 1 }],
    ...(isMixed
      ? ([
          [7, { kind: 'zero' }],
          [8, { kind: 'zero', preallocated: true }],
        ] as const)
      : []),
    [9, data(9)],
  ]
}

const base = buildImage({ clusterBits: 12, clusters: clusters(12, true, 100), virtualSize: 16 * 4096 })

const SPECS: Readonly<Record<string, ImageSpec & { readonly files?: Readonly<Record<string, Buffer>> }>> = {
  'version 2': { version: 2, clusterBits: 12, clusters: clusters(12, false) },
  'version 3, zlib': { clusterBits: 12, clusters: clusters(12, true) },
  'clusters of 512 bytes': {
    clusterBits: 9,
    virtualSize: 80 * 512,
    clusters: [...clusters(9, true), [70, { kind: 'data', bytes: pattern(70, 512) }]],
  },
  'clusters of 64 KiB': { clusters: clusters(16, true), trimEnd: true },
  'clusters of 2 MiB': { clusterBits: 21, clusters: [[0, { kind: 'compressed', bytes: text(1, 2 ** 21) }]] },
  zstd: { clusterBits: 12, compression: 'zstd', clusters: clusters(12, true) },
  'zstd, 64 KiB': { compression: 'zstd', clusters: clusters(16, true) },
  subclusters: {
    clusterBits: 14,
    extendedL2: true,
    clusters: [
      ...clusters(14, true),
      [10, { kind: 'subclusters', allocated: 0x0f0f_00ff, zero: 0xf000_0f00, bytes: pattern(10, 2 ** 14) }],
    ],
  },
  snapshots: {
    clusterBits: 12,
    clusters: clusters(12, true),
    snapshots: [{}, { id: '7', name: 'größer', clusters: clusters(12, false, 50), virtualSize: 20 * 4096 }],
  },
  'an external data file': {
    clusterBits: 12,
    dataFile: { name: 'data.raw' },
    clusters: clusters(12, true).filter(([, { kind }]) => kind !== 'compressed'),
  },
  'feature names': {
    clusterBits: 12,
    clusters: clusters(12, true),
    featureNames: [
      { kind: 0, bit: 0, name: 'dirty bit' },
      { kind: 1, bit: 0, name: 'lazy refcounts' },
    ],
    extensions: [{ type: 0x1234_5678, data: pattern(1, 20) }],
  },
  'a raw backing file': {
    clusterBits: 12,
    clusters: clusters(12, true),
    virtualSize: 20 * 4096,
    backingFile: { name: 'base.raw', format: 'raw' },
    files: { 'base.raw': pattern(7, 18 * 4096 + 512) },
  },
  'a qcow2 backing file': {
    clusterBits: 12,
    clusters: clusters(12, true),
    virtualSize: 20 * 4096,
    backingFile: { name: 'base.qcow2', format: 'qcow2' },
    files: { 'base.qcow2': base.bytes },
  },
}

const SECRET = 'secret.txt'
const encryptedSpec = { clusterBits: 12, clusters: clusters(12, true) }
// Short keys have little key material, few iterations take little time.
const shortKeys = { cipherMode: 'cbc-essiv:sha256', keyBytes: 16, passphrases: { 0: 'other', 1: PASSPHRASE } }

const ENCRYPTED: readonly Subject[] = [
  { title: 'LUKS', image: luksImage(encryptedSpec, shortKeys) },
  { title: 'the old encryption', image: legacyImage(encryptedSpec) },
].map((subject) => ({ ...subject, files: { [SECRET]: Buffer.from(PASSPHRASE) }, secret: SECRET }))

const plain: readonly Subject[] = Object.entries(SPECS).map(([title, { files = {}, ...spec }]) => {
  const image = buildImage(spec)
  return { title, image, files: image.dataFile.length === 0 ? files : { ...files, 'data.raw': image.dataFile } }
})

export const SUBJECTS: readonly Subject[] = [...plain, ...ENCRYPTED]
