// How the disk is cut into runs: they tile the range, end at multiples of their size, and cut no compressed cluster.
import t from 'tap'
import { Qcow2Image } from '../../../lib/index.js'
import { diskOf } from '../../../lib/image/image.js'
import { planRuns, type Run, type RunSizes } from '../../../lib/stream/plan.js'
import { buildImage, type ClusterSpec, type ImageSpec } from '../../fixtures/image-builder.js'
import { pattern, text } from '../../fixtures/patterns.js'

const KIB = 1024
const MIB = 2 ** 20

/** The runs as kind, guest offset and length; checks that what each holds tiles it. */
async function plan(
  spec: ImageSpec,
  from: number,
  to: number,
  runBytes: number | RunSizes,
): Promise<[string, number, number][]> {
  const sizes = typeof runBytes === 'number' ? { plain: runBytes, decoded: runBytes } : runBytes
  await using image = await Qcow2Image.open(buildImage(spec).bytes, { backingFile: null })
  const runs: Run[] = []
  for await (const run of planRuns(diskOf(image).chain, from, to, sizes)) {
    // A run that is handed over does not change any more.
    runs.push(Object.freeze(run))
    if (run.kind === 'data') Object.freeze(run.extents)
  }
  for (const run of runs) {
    if (run.kind === 'zeros') continue
    let at = run.guestOffset
    for (const extent of run.extents) {
      t.equal(extent.guestOffset, at, 'extents of a run follow each other')
      at += extent.length
    }
    t.equal(at, run.guestOffset + run.length, 'extents of a run fill it')
  }
  return runs.map(({ kind, guestOffset, length }) => [kind, guestOffset, length])
}

/** Clusters of one kind at consecutive indexes. */
function clustersOf(kind: 'data' | 'compressed' | 'zero', first: number, count: number, size: number): ClusterPairs {
  return Array.from({ length: count }, (_, i) => [
    first + i,
    kind === 'zero' ? { kind } : { kind, bytes: kind === 'data' ? pattern(i, size) : text(i, size) },
  ])
}
type ClusterPairs = [number, ClusterSpec][]

t.test('plans nothing for an empty range', async (t) => {
  const spec = { clusterBits: 12, clusters: clustersOf('data', 0, 4, 4096) }
  t.same(await plan(spec, 0, 0, MIB), [])
  t.same(await plan(spec, 16_384, 16_384, MIB), [])
  t.same(await plan(spec, 20_000, 16_384, MIB), [])
})

t.test('ends runs of data at multiples of their size, wherever the range begins', async (t) => {
  const spec = { clusterBits: 12, clusters: clustersOf('data', 0, 12, 4096) }
  t.same(await plan(spec, 0, 49_152, 16_384), [
    ['data', 0, 16_384],
    ['data', 16_384, 16_384],
    ['data', 32_768, 16_384],
  ])
  t.same(await plan(spec, 1000, 40_001, 16_384), [
    ['data', 1000, 15_384],
    ['data', 16_384, 16_384],
    ['data', 32_768, 7233],
  ])
  t.same(await plan(spec, 5000, 5001, 16_384), [['data', 5000, 1]])
  t.same(await plan(spec, 0, 49_152, 10_000), [
    ['data', 0, 10_000],
    ['data', 10_000, 10_000],
    ['data', 20_000, 10_000],
    ['data', 30_000, 10_000],
    ['data', 40_000, 9152],
  ])
})

t.test('ends runs with something to be decoded in them at multiples of a size of their own', async (t) => {
  const clusters = [...clustersOf('compressed', 0, 5, 4096), ...clustersOf('data', 5, 11, 4096)]
  const sizes = { plain: 32_768, decoded: 8192 }
  t.same(await plan({ clusterBits: 12, clusters }, 0, 65_536, sizes), [
    ['data', 0, 8192],
    ['data', 8192, 8192],
    ['data', 16_384, 8192],
    ['data', 24_576, 8192],
    ['data', 32_768, 32_768],
  ])
  // Zeros in front, and clusters that are not compressed in between, or before so many that the run is longer already.
  const mixed = [
    ...clustersOf('compressed', 1, 2, 4096),
    ...clustersOf('data', 3, 1, 4096),
    ...clustersOf('compressed', 4, 1, 4096),
  ]
  const late = [...clustersOf('data', 8, 5, 4096), ...clustersOf('compressed', 13, 2, 4096)]
  const spec = {
    clusterBits: 12,
    virtualSize: 65_536,
    clusters: [...clustersOf('zero', 0, 1, 4096), ...mixed, ...late],
  }
  t.same(await plan(spec, 0, 65_536, sizes), [
    ['zeros', 0, 4096],
    ['data', 4096, 4096],
    ['data', 8192, 8192],
    ['data', 16_384, 8192],
    ['data', 24_576, 8192],
    ['data', 32_768, 20_480],
    ['data', 53_248, 4096],
    ['data', 57_344, 8192],
  ])
})

t.test('makes a run of its own of zeros between data that are long enough', async (t) => {
  const around = (zeroClusters: number, kind: 'zero' | 'nothing'): ImageSpec => ({
    clusterBits: 12,
    clusters: [
      ...clustersOf('data', 0, 1, 4096),
      ...(kind === 'zero' ? clustersOf('zero', 1, zeroClusters, 4096) : []),
      ...clustersOf('data', 1 + zeroClusters, 1, 4096),
    ],
  })
  for (const kind of ['zero', 'nothing'] as const) {
    t.same(
      await plan(around(16, kind), 0, 18 * 4096, MIB),
      [
        ['data', 0, 4096],
        ['zeros', 4096, 65_536],
        ['data', 69_632, 4096],
      ],
      `64 KiB of ${kind}`,
    )
    t.same(await plan(around(15, kind), 0, 17 * 4096, MIB), [['data', 0, 17 * 4096]], `60 KiB of ${kind}`)
  }
})

t.test('makes one run of zeros of neighbours that are zeros for different reasons', async (t) => {
  const clusters: ClusterPairs = [
    ...clustersOf('zero', 1, 3, 4096),
    [6, { kind: 'zero', preallocated: true }],
    ...clustersOf('data', 9, 1, 4096),
  ]
  t.same(await plan({ clusterBits: 12, clusters, virtualSize: 12 * 4096 }, 100, 12 * 4096, MIB), [
    ['zeros', 100, 9 * 4096 - 100],
    ['data', 9 * 4096, 3 * 4096],
  ])
})

t.test('makes one run of a hole that is mapped in many batches', async (t) => {
  const clusters = [
    ...clustersOf('data', 0, 1, 512),
    ...clustersOf('zero', 1, 19_999, 512),
    ...clustersOf('data', 20_000, 1, 512),
  ]
  t.same(await plan({ clusterBits: 9, clusters }, 0, 20_001 * 512, MIB), [
    ['data', 0, 512],
    ['zeros', 512, 19_999 * 512],
    ['data', 20_000 * 512, 512],
  ])
})

t.test('never cuts a compressed cluster', async (t) => {
  const spec = { clusterBits: 16, clusters: clustersOf('compressed', 0, 6, 65_536) }
  t.same(await plan(spec, 0, 6 * 65_536, 150_000), [
    ['data', 0, 131_072],
    ['data', 131_072, 65_536],
    ['data', 196_608, 65_536],
    ['data', 262_144, 65_536],
    ['data', 327_680, 65_536],
  ])
  t.same(await plan(spec, 70_000, 380_000, 131_072), [
    ['data', 70_000, 61_072],
    ['data', 131_072, 131_072],
    ['data', 262_144, 117_856],
  ])
})

t.test('puts a compressed cluster that does not fit behind other data into the next run', async (t) => {
  const clusters = [...clustersOf('data', 0, 1, 65_536), ...clustersOf('compressed', 1, 2, 65_536)]
  t.same(await plan({ clusterBits: 16, clusters }, 0, 196_608, 100_000), [
    ['data', 0, 65_536],
    ['data', 65_536, 65_536],
    ['data', 131_072, 65_536],
  ])
})

t.test('makes a longer run of a compressed cluster that is longer than a run', async (t) => {
  const clusters = [
    ...clustersOf('compressed', 0, 2, 65_536),
    ...clustersOf('data', 2, 1, 65_536),
    ...clustersOf('compressed', 3, 1, 65_536),
  ]
  t.same(await plan({ clusterBits: 16, clusters }, 10_000, 250_000, 40_000), [
    ['data', 10_000, 55_536],
    ['data', 65_536, 65_536],
    ['data', 131_072, 28_928],
    ['data', 160_000, 36_608],
    ['data', 196_608, 53_392],
  ])
})

t.test('goes on behind the last L2 table with zeros', async (t) => {
  t.same(await plan({ virtualSize: 5 * MIB, clusterBits: 9 }, 3, 5 * MIB, MIB), [['zeros', 3, 5 * MIB - 3]])
  const spec = { virtualSize: 2 ** 45, clusterBits: 16, clusters: clustersOf('data', 1, 1, 64 * KIB) }
  t.same(await plan(spec, 0, 2 ** 45, MIB), [
    ['zeros', 0, 65_536],
    ['data', 65_536, 65_536],
    ['zeros', 131_072, 2 ** 45 - 131_072],
  ])
})
