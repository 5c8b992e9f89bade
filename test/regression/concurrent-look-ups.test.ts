// Two reads that looked for allocated tables at the same time shared what they had found empty, so that a third read zeros for data.
import t from 'tap'
import { buildImage } from '../fixtures/image-builder.js'
import { opened, readBytes } from '../fixtures/opened-image.js'
import { pattern } from '../fixtures/patterns.js'
import { RecordingSource } from '../fixtures/recording-source.js'
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
