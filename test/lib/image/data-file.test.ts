/**
 * External data files: where they are found, and what is read from them. (What names are allowed: reference-policy.)
 */
import { writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t, { type Test } from 'tap'
import { Qcow2FormatError, Qcow2Image, Qcow2SourceError, Qcow2UsageError } from '../../../lib/index.js'
import { causeCode, expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type BuiltImage, type ClusterSpec, type ImageSpec } from '../../fixtures/image-builder.js'
import { opened, readBytes, readDisk } from '../../fixtures/opened-image.js'
import { pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'

const CLUSTER = 4096
const NAME = 'disk.data'

/** The first cluster lies at offset 0 of the data file, which is no offset in the image. */
const disk = (dataFile: ImageSpec['dataFile'], rest: ImageSpec = {}): BuiltImage =>
  buildImage({
    clusterBits: 12,
    virtualSize: 8 * CLUSTER + 100,
    dataFile: dataFile ?? {},
    clusters: [
      [0, { kind: 'data', bytes: pattern(0, CLUSTER) }],
      [1, { kind: 'zero' }],
      [2, { kind: 'zero', preallocated: true }],
      [4, { kind: 'data', bytes: pattern(4, CLUSTER) }],
      [5, { kind: 'data', bytes: pattern(5, CLUSTER), copied: true }],
      [8, { kind: 'data', bytes: pattern(8, 100) }],
    ],
    ...rest,
  })

const saved = (t: Test, built: BuiltImage): string => {
  const folder = t.testdir()
  writeFileSync(join(folder, 'image'), built.bytes)
  writeFileSync(join(folder, NAME), built.dataFile)
  return folder
}

for (const [title, spec] of [
  ['a raw one', { dataFile: { name: NAME, raw: true } }],
  ['one that is not raw', { dataFile: { name: NAME } }],
  ['one of an image with snapshots', { dataFile: { name: NAME }, snapshots: [{}] }],
] as const) {
  t.test(`reads data from the data file that the image names: ${title}`, async (t) => {
    const built = disk(spec.dataFile, spec)
    const folder = saved(t, built)
    const image = await opened(t, join(folder, 'image'))
    t.ok((await readBytes(image)).equals(built.guest))
    t.equal(image.dataFile, NAME)
    t.equal(image.backingChain[0]?.dataFile, join(folder, NAME))
    if ('snapshots' in spec) t.ok((await readDisk(join(folder, 'image'), { snapshot: '1' })).equals(built.guest))
  })
}

t.test('reads subclusters from the data file', async (t) => {
  const size = 2 ** 14
  for (const raw of [true, false]) {
    const built = buildImage({
      clusterBits: 14,
      extendedL2: true,
      dataFile: { name: NAME, raw },
      clusters: [
        [0, { kind: 'subclusters', allocated: 0x0000_ffff, zero: 0x00ff_0000, bytes: pattern(1, size) }],
        [1, { kind: 'data', bytes: pattern(2, size) }],
        [2, { kind: 'subclusters', allocated: 0x8000_0000, zero: 0, bytes: pattern(3, size) }],
      ],
    })
    t.ok((await readDisk(join(saved(t, built), 'image'))).equals(built.guest), `raw: ${raw}`)
  }
})

t.test('takes any kind of input as data file, whatever the image names and the policy says', async (t) => {
  for (const name of [NAME, 'missing', '../x', 'nbd://localhost/x', undefined, '']) {
    const built = disk(name === undefined ? {} : { name })
    const folder = saved(t, built)
    const path = join(folder, NAME)
    const handle = await open(path)
    t.teardown(() => handle.close())
    const source = new RecordingSource(built.dataFile)
    for (const dataFile of [path, pathToFileURL(path), built.dataFile, handle, source]) {
      for (const references of ['same-directory', 'none'] as const) {
        if (source.closeCount > 0) continue
        const bytes = await readDisk(built.bytes, { dataFile, references })
        if (!bytes.equals(built.guest)) t.fail(`${name} ${references}`)
      }
    }
    t.strictSame([source.closeCount, source.readsAfterClose], [1, 0])
    t.equal((await handle.stat()).size, built.dataFile.length, 'the handle is open')
  }
})

t.test('asks for the data file if the image does not name it', async (t) => {
  for (const name of [undefined, '', '\0x']) {
    const { bytes } = disk(name === undefined ? {} : { name })
    for (const references of ['same-directory', 'any', 'none'] as const) {
      const error = await rejection(t, Qcow2Image.open(bytes, { references }))
      expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_DATA_FILE_REQUIRED', {
        layer: 'image in memory',
        field: 'dataFile',
      })
    }
  }
})

t.test('ignores the option for an image that has no data file', async (t) => {
  const built = buildImage({ clusterBits: 12, clusters: [[0, { kind: 'data', bytes: pattern(1, CLUSTER) }]] })
  const source = new RecordingSource(Buffer.alloc(0))
  t.ok((await readDisk(built.bytes, { dataFile: source })).equals(built.guest))
  t.strictSame(source.reads, [])
})

t.test('misses data past the end of the data file, by the name of that file', async (t) => {
  const built = disk({ name: NAME })
  const folder = saved(t, built)
  const path = join(folder, NAME)
  writeFileSync(path, built.dataFile.subarray(0, 5 * CLUSTER + 10))
  const image = await opened(t, join(folder, 'image'))
  const expected = Buffer.from(built.guest.subarray(0, 6 * CLUSTER))
  expected.fill(0, 5 * CLUSTER + 10)
  t.ok((await readBytes(image, 0, 6 * CLUSTER)).equals(expected), 'a cluster that is cut is padded with zeros')
  const error = await rejection(t, readBytes(image))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_TRUNCATED', {
    layer: path,
    guestOffset: 8 * CLUSTER,
    hostOffset: 8 * CLUSTER,
    actual: 5 * CLUSTER + 10,
  })
})

t.test('says which data file is missing', async (t) => {
  const folder = saved(t, disk({ name: 'missing' }))
  const error = await rejection(t, Qcow2Image.open(join(folder, 'image')))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED', { layer: join(folder, 'missing') })
  t.match(
    (error as Error).message,
    `cannot be opened as the data file of ${JSON.stringify(join(folder, 'image'))}: ENOENT`,
  )
  t.equal(causeCode(error), 'ENOENT')
})

t.test('refuses entries that cannot be in an image with a data file', async (t) => {
  const entries: [what: string, cluster: ClusterSpec][] = [
    ['a compressed cluster', { kind: 'compressed', bytes: pattern(1, 100) }],
    ['an offset that is not the guest offset', { kind: 'raw-entry', entry: (1n << 63n) | 0x2000n }],
    ['such an offset without bit 63', { kind: 'raw-entry', entry: 0x2000n }],
    ['offset 0 for another cluster than the first', { kind: 'raw-entry', entry: 1n << 63n }],
  ]
  for (const [what, cluster] of entries) {
    const built = disk({ name: NAME }, { clusters: [[1, cluster]] })
    const image = await opened(t, built.bytes, { dataFile: pattern(1, 9 * CLUSTER) })
    const error = await rejection(t, readBytes(image))
    expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_L2_ENTRY', {
      hostOffset: built.layout.l2EntryOffset(1),
      guestOffset: CLUSTER,
    })
    t.ok(error, what)
  }
})
