/**
 * Backing chains as one disk: what shows through, where it ends, and what a caller may put in place of what is named.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { buildImage, type BuiltImage, type ClusterSpec, type ImageSpec } from '../../fixtures/image-builder.js'
import { opened, readBytes, readDisk } from '../../fixtures/opened-image.js'
import { pattern, text } from '../../fixtures/patterns.js'

const CLUSTER = 4096

/** `length` bytes of the disk, zeros behind its end. */
const sized = (disk: Uint8Array, length: number): Buffer => {
  const bytes = Buffer.alloc(length)
  bytes.set(disk.subarray(0, length))
  return bytes
}

const layer = (size: number, indexes: readonly number[], rest: ImageSpec = {}): BuiltImage => {
  const clusterBytes = 2 ** (rest.clusterBits ?? 12)
  const kinds = (index: number): ClusterSpec[] => [
    { kind: 'data', bytes: pattern(size + index, clusterBytes) },
    { kind: 'compressed', bytes: text(size + index, clusterBytes) },
    { kind: 'zero' },
  ]
  return buildImage({
    clusterBits: 12,
    virtualSize: size,
    clusters: indexes.map((index, i) => [index, kinds(index)[i % 3]!]),
    ...rest,
  })
}

t.test('reads through three layers, the lowest of them raw', async (t) => {
  const folder = t.testdir()
  const raw = pattern(99, 12 * CLUSTER)
  const middle = layer(12 * CLUSTER, [1, 2, 3, 7], {
    backingFile: { name: 'base.raw', format: 'raw', contents: raw },
  })
  const top = layer(12 * CLUSTER, [2, 4, 5, 11], {
    backingFile: { name: 'middle.qcow2', format: 'qcow2', contents: middle.guest },
  })
  writeFileSync(join(folder, 'base.raw'), raw)
  writeFileSync(join(folder, 'middle.qcow2'), middle.bytes)
  writeFileSync(join(folder, 'top.qcow2'), top.bytes)
  const image = await opened(t, join(folder, 'top.qcow2'))
  t.strictSame(
    image.backingChain.map(({ file, format, virtualSize, dataFile }) => ({ file, format, virtualSize, dataFile })),
    [['top.qcow2', 'qcow2'] as const, ['middle.qcow2', 'qcow2'] as const, ['base.raw', 'raw'] as const].map(
      ([name, format]) => ({
        file: join(folder, name),
        format,
        virtualSize: 12 * CLUSTER,
        dataFile: undefined,
      }),
    ),
  )
  t.strictSame(image.warnings, [])
  t.ok((await readBytes(image)).equals(top.guest), 'the whole disk')
  for (let at = 0; at < top.guest.length; at += 1000) {
    if (!(await readBytes(image, at, 5000)).equals(top.guest.subarray(at, at + 5000))) t.fail(`from ${at} on`)
  }
})

// Sizes of top, middle and bottom, in bytes; each layer lets the one below it show through as far as it goes itself.
const SIZES: readonly (readonly [top: number, middle: number, bottom: number])[] = [
  [10 * CLUSTER, 10 * CLUSTER, 10 * CLUSTER],
  [10 * CLUSTER, 4 * CLUSTER, 10 * CLUSTER],
  [10 * CLUSTER, 4 * CLUSTER, 6 * CLUSTER],
  [4 * CLUSTER, 10 * CLUSTER, 6 * CLUSTER],
  [10 * CLUSTER, 10 * CLUSTER, 3 * CLUSTER],
  [3 * CLUSTER, 10 * CLUSTER, 10 * CLUSTER],
  [10 * CLUSTER + 777, 6 * CLUSTER + 1, 8 * CLUSTER + 513],
  [9 * CLUSTER - 1, 9 * CLUSTER - 513, 9 * CLUSTER - 512],
  [10 * CLUSTER, 1, 10 * CLUSTER],
  [10 * CLUSTER, 0, 10 * CLUSTER],
  [10 * CLUSTER, 10 * CLUSTER, 0],
  [1, 10 * CLUSTER, 10 * CLUSTER],
  [1000 * CLUSTER, 600 * CLUSTER + 5, 900 * CLUSTER],
]

for (const [topSize, middleSize, bottomSize] of SIZES) {
  t.test(`${topSize} bytes over ${middleSize} over ${bottomSize}`, async (t) => {
    const within = (size: number, indexes: readonly number[]): number[] =>
      indexes.filter((index) => index * CLUSTER < size)
    for (const format of ['raw', 'qcow2'] as const) {
      const bottom = layer(
        bottomSize,
        within(
          bottomSize,
          Array.from({ length: 900 }, (_, i) => i),
        ),
      )
      const middle = layer(middleSize, within(middleSize, [1, 3, 8, 599]), {
        backingFile: { name: 'bottom', format, contents: sized(bottom.guest, middleSize) },
      })
      const top = layer(topSize, within(topSize, [2, 9, 700]), {
        backingFile: { name: 'middle', format: 'qcow2', contents: sized(middle.guest, topSize) },
      })
      const folder = t.testdir()
      writeFileSync(join(folder, 'bottom'), format === 'raw' ? bottom.guest : bottom.bytes)
      writeFileSync(join(folder, 'middle'), middle.bytes)
      writeFileSync(join(folder, 'top'), top.bytes)
      t.ok((await readDisk(join(folder, 'top'))).equals(top.guest), `${format} at the bottom`)
    }
  })
}

t.test('layers may differ in cluster size, version, compression and kind of entry', async (t) => {
  const size = 2 ** 20
  const lowest = buildImage({
    clusterBits: 9,
    version: 2,
    virtualSize: size,
    clusters: [0, 1, 30, 70, 2000].map((index) => [index, { kind: 'data', bytes: pattern(index, 512) }]),
  })
  const middle = buildImage({
    clusterBits: 14,
    extendedL2: true,
    compression: 'zstd',
    virtualSize: size,
    backingFile: { name: 'lowest', format: 'qcow2', contents: lowest.guest },
    clusters: [
      [0, { kind: 'subclusters', allocated: 0x0f0f_0f0f, zero: 0xf000_0000, bytes: pattern(50, 2 ** 14) }],
      [2, { kind: 'compressed', bytes: text(51, 2 ** 14) }],
      [62, { kind: 'subclusters', allocated: 0, zero: 1 }],
    ],
  })
  const top = buildImage({
    virtualSize: size,
    backingFile: { name: 'middle', format: 'qcow2', contents: middle.guest },
    clusters: [
      [1, { kind: 'zero' }],
      [5, { kind: 'compressed', bytes: text(52, 2 ** 16) }],
    ],
  })
  const folder = t.testdir()
  for (const [name, { bytes }] of Object.entries({ lowest, middle, top })) writeFileSync(join(folder, name), bytes)
  t.ok((await readDisk(join(folder, 'middle'))).equals(middle.guest))
  t.ok((await readDisk(join(folder, 'top'))).equals(top.guest))
})

t.test('a layer reads its data file, not that of the layer above', async (t) => {
  const below = buildImage({
    clusterBits: 12,
    virtualSize: 4 * CLUSTER,
    dataFile: { name: 'below.data' },
    clusters: [0, 2].map((index) => [index, { kind: 'data', bytes: pattern(index, CLUSTER) }]),
  })
  const top = buildImage({
    clusterBits: 12,
    virtualSize: 4 * CLUSTER,
    dataFile: { name: 'top.data' },
    backingFile: { name: 'below', format: 'qcow2', contents: below.guest },
    clusters: [[1, { kind: 'data', bytes: pattern(1, CLUSTER) }]],
  })
  const folder = t.testdir()
  for (const [name, { bytes, dataFile }] of Object.entries({ below, top })) {
    writeFileSync(join(folder, name), bytes)
    writeFileSync(join(folder, `${name}.data`), dataFile)
  }
  const image = await opened(t, join(folder, 'top'))
  t.ok((await readBytes(image)).equals(top.guest))
  t.strictSame(
    image.backingChain.map(({ dataFile }) => dataFile),
    [join(folder, 'top.data'), join(folder, 'below.data')],
  )
})
