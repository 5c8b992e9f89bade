/**
 * What is measured without a bar: how cost grows with the data and with the disk, and how fast the library reads.
 */
import { join } from 'node:path'
import { forAwait, ours, qemuImg, qemuImgToNothing, reads } from './commands.js'
import type { ImageName, Images, Scale } from './images.js'
import { median, seriesOf, type Sample, type Series, type Stopwatch } from './measure.js'
import { say } from './tools.js'

/** Wall time at one size. */
export interface GrowthPoint {
  /** Bytes of files in the disk, or of the disk itself. */
  readonly bytes: number
  readonly ours: Series
  readonly rival: Series
}

/** How fast `image.read` is. */
export interface ReadRate {
  readonly title: string
  readonly unit: 'MB/s' | 'reads/s'
  readonly best: number
  readonly median: number
  readonly peakBytes: number
}

/** Images of {@link measureGrowth}. */
export const growthImages = (scale: Scale): ImageName[] => [
  ...scale.growthDataBytes.map((bytes) => `data-${bytes}` as const),
  ...scale.growthDiskBytes.map((bytes) => `disk-${bytes}` as const),
]

/** Wall time against bytes of data (into a file), and against bytes of the disk (nothing is written). */
export function measureGrowth(
  images: Images,
  scale: Scale,
  folder: string,
  stopwatch: Stopwatch,
  count: number,
): { data: GrowthPoint[]; disk: GrowthPoint[] } {
  const output = join(folder, 'output.raw')
  const data = scale.growthDataBytes.map((bytes) => {
    say(`growth: ${bytes} bytes of data`)
    const image = images.pathOf(`data-${bytes}`)
    return { bytes, ...stopwatch.pairs(ours(image, output), qemuImg(image, output), count) }
  })
  const disk = scale.growthDiskBytes.map((bytes) => {
    say(`growth: ${bytes} bytes of disk`)
    const image = images.pathOf(`disk-${bytes}`)
    return { bytes, ...stopwatch.pairs(forAwait('chunks', image), qemuImgToNothing(image, bytes), count) }
  })
  return { data, disk }
}

/** Images of {@link measureReads}. */
export const READ_IMAGES = ['plain', 'zlib'] as const

const SEQUENTIAL_READS = 1024
const RANDOM_READS = { plain: 100_000, zlib: 20_000 }

/** `image.read`, in order and at random. */
export function measureReads(images: Images, stopwatch: Stopwatch, count: number): ReadRate[] {
  return READ_IMAGES.flatMap((name) => {
    const stored = name === 'plain' ? 'uncompressed' : name
    const image = images.pathOf(name)
    return [
      rate(`image.read in order, 1 MiB, ${stored}`, 'MB/s', reads('sequential', image, SEQUENTIAL_READS)),
      rate(
        `image.read at random, 4 KiB, 32 in flight, ${stored}`,
        'reads/s',
        reads('random', image, RANDOM_READS[name]),
      ),
    ]
  })

  function rate(title: string, unit: ReadRate['unit'], command: ReturnType<typeof reads>): ReadRate {
    say(title)
    const samples: Sample[] = []
    const rates: number[] = []
    for (let turn = 0; turn <= count; turn++) {
      const { sample, printed } = stopwatch.run(command)
      const seen = JSON.parse(printed) as { count: number; bytes: number; seconds: number }
      if (turn > 0) {
        samples.push(sample)
        rates.push((unit === 'MB/s' ? seen.bytes / 1e6 : seen.count) / seen.seconds)
      }
    }
    const { peakBytes } = seriesOf(samples)
    return { title, unit, best: Math.max(...rates), median: median(rates), peakBytes }
  }
}
