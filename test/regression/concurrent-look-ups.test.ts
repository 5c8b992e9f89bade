// Two reads that looked for allocated tables at the same time shared what they had found empty, so that a third read zeros for data.
// Two walks that took turns forgot for each other what they had found empty, and looked through the whole L1 table for each batch.
import t from 'tap'
import { diskOf } from '../../lib/image/image.js'
import { buildImage } from '../fixtures/image-builder.js'
import { opened, readBytes } from '../fixtures/opened-image.js'
import { pattern } from '../fixtures/patterns.js'
import { RecordingSource } from '../fixtures/recording-source.js'
import { SparseSource } from '../fixtures/sparse-source.js'
import { turns } from '../fixtures/turns.js'

const CLUSTER = 4096
const REACH = 512 * CLUSTER

t.test('reads at the same time leave each other what they found', async (t) => {
  const built = buildImage({
    clusterBits: 12,
    virtualSize: 4 * REACH,
    clusters: [
      [512, { kind: 'data', bytes: pattern(1, CLUSTER) }],
      [1024, { kind: 'data', bytes: pattern(2, CLUSTER) }],
    ],
  })
  const places = [0, REACH, 2 * REACH, 3 * REACH]
  for (const first of places) {
    for (const second of places) {
      // Each read of the file takes its time, the look at the L1 table first of all.
      const source = new RecordingSource(built.bytes, { beforeRead: () => turns(2) })
      const image = await opened(t, source)
      await Promise.all([readBytes(image, first, 512), readBytes(image, second, 512)])
      for (const place of places) {
        const found = await readBytes(image, place, 512)
        if (!found.equals(built.guest.subarray(place, place + 512))) t.fail(`${place} after ${first} and ${second}`)
      }
      const kinds: string[] = []
      for await (const { offset, kind } of image.extents()) if (kind === 'data') kinds.push(String(offset))
      if (kinds.join() !== `${REACH},${2 * REACH}`) t.fail(`extents ${kinds.join()} after ${first} and ${second}`)
      await image.close()
    }
  }
  t.pass('every pair')
})

t.test('walks at the same time do not look through the tables again for each batch', async (t) => {
  // 2 GiB over a raw file, and eight pieces of an L1 table with one entry in the middle.
  const virtualSize = 2 ** 31
  const { bytes } = buildImage({
    clusterBits: 9,
    virtualSize,
    clusters: [[virtualSize / 1024, { kind: 'zero' }]],
    backingFile: { name: 'base', format: 'raw' },
  })
  const source = new RecordingSource(bytes)
  // The cache has room for a piece of each walk, not for all of them.
  const image = await opened(t, source, { backingFile: new SparseSource(virtualSize), tableCacheBytes: 4 * 65536 })
  const { chain } = diskOf(image)
  const walks = [chain.map(0, virtualSize / 2), chain.map(virtualSize / 2, virtualSize)]
  let batches = 0
  while ((await Promise.all(walks.map((walk) => walk.next()))).some(({ done }) => done !== true)) batches++
  t.ok(batches > 500, `${batches} batches`)
  t.ok(source.reads.length < 50, `${source.reads.length} reads`)
})
