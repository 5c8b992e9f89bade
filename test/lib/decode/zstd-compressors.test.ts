/**
 * zstd's clusters as the real libzstd compresses them: at every level, of any content, whole and damaged. Node 20 cannot
 * compress with zstd; the program of that name does it there.
 */
import { createHash } from 'node:crypto'
import t from 'tap'
import { createMemoryDecoder } from '../../fixtures/memory-decoder.js'
import { Qcow2Image } from '../../../lib/index.js'
import { decodeGuarded } from '../../fixtures/decode-outcome.js'
import { CONTENT_KINDS, contents } from '../../fixtures/disk-contents.js'
import { runs } from '../../fixtures/random-images.js'
import { randomNumbers } from '../../fixtures/random-writes.js'
import { sampleBytes, samples } from '../../fixtures/sample-images.js'
import { noZstdCompressor, zstdCompressors } from '../../fixtures/zstd-compressors.js'

const decoder = createMemoryDecoder('zstd')

/** What was not as it should be when `source` was decoded to `cluster`. */
function problemsWith(source: Uint8Array, cluster: Buffer): string[] {
  const { bytes, refusal, misdeeds } = decodeGuarded(decoder, source, cluster.length)
  if (refusal !== undefined) return [refusal, ...misdeeds]
  return bytes.equals(cluster) ? [...misdeeds] : ['the bytes are others', ...misdeeds]
}

t.test('the samples that QEMU compressed with zstd', async (t) => {
  const list = samples.images.filter(({ file }) => file.includes('zstd'))
  t.ok(list.length > 0, `${list.length} samples`)
  for (const { file, disks } of list) {
    await using image = await Qcow2Image.open(sampleBytes(file))
    const disk = Buffer.alloc(image.virtualSize)
    t.equal(await image.read(disk, 0), disks[0]?.virtualSize)
    t.equal(createHash('sha256').update(disk).digest('hex'), disks[0]?.sha256, file)
    let compressedBytes = 0
    for await (const { kind, length } of image.extents()) compressedBytes += kind === 'compressed' ? length : 0
    t.ok(compressedBytes > 0, `${compressedBytes} bytes of it are compressed`)
  }
})

t.test('what libzstd makes of any content, at every level', { skip: noZstdCompressor }, async (t) => {
  const { numRuns, seed } = runs(1)
  for (const { name, compress } of zstdCompressors) {
    const problems: string[] = []
    let count = 0
    for (let run = 0; run < numRuns; run++) {
      const random = randomNumbers(seed + run)
      for (let level = 1; level <= 22; level++) {
        for (const [index, kind] of CONTENT_KINDS.entries()) {
          const clusterBytes = 2 ** (9 + ((level + index * 3 + run) % 9))
          const cluster = contents(kind, clusterBytes, random)
          const settings = { level, hasChecksum: index % 2 === 0, hasSize: level % 2 === 0 }
          const found = problemsWith(compress(cluster, settings), cluster)
          problems.push(
            ...found.map((problem) => `${kind}, ${clusterBytes} bytes, ${JSON.stringify(settings)}: ${problem}`),
          )
          count++
        }
      }
    }
    t.strictSame(problems, [], `${count} clusters by ${name}`)
  }
})

t.test('clusters of 2 MiB', { skip: noZstdCompressor }, async (t) => {
  const random = randomNumbers(runs(1).seed)
  for (const { name, compress } of zstdCompressors) {
    for (const kind of CONTENT_KINDS) {
      const cluster = contents(kind, 2 ** 21, random)
      for (const level of [1, 3, 12]) {
        const source = compress(cluster, { level, hasChecksum: true, hasSize: level !== 3 })
        t.strictSame(problemsWith(source, cluster), [], `${kind}, level ${level}, by ${name}`)
      }
    }
  }
})

t.test('a cluster in several frames, by several compressors', { skip: noZstdCompressor }, async (t) => {
  const random = randomNumbers(7)
  for (const kind of CONTENT_KINDS) {
    const cluster = contents(kind, 65536, random)
    const frames = [0, 1, 2, 3].map((quarter) =>
      zstdCompressors[quarter % zstdCompressors.length]!.compress(
        cluster.subarray(quarter * 16384, (quarter + 1) * 16384),
        {
          level: 1 + quarter * 6,
          hasChecksum: quarter % 2 === 0,
          hasSize: quarter > 1,
        },
      ),
    )
    t.strictSame(problemsWith(Buffer.concat([...frames, cluster]), cluster), [], kind)
  }
})

t.test(
  'damaged frames: under a checksum they yield the right cluster or none',
  { skip: noZstdCompressor },
  async (t) => {
    const { numRuns, seed } = runs(80)
    const { compress } = zstdCompressors[0]!
    const problems: string[] = []
    const counts = { decoded: 0, refused: 0 }
    for (let run = 0; run < numRuns; run++) {
      const random = randomNumbers(seed + run)
      const upTo = (limit: number): number => Math.floor(random() * limit)
      const cluster = contents(CONTENT_KINDS[run % CONTENT_KINDS.length]!, 2 ** (9 + upTo(7)), random)
      const hasChecksum = run % 2 === 0
      const stream = compress(cluster, { level: 1 + upTo(19), hasChecksum, hasSize: run % 4 < 2 })
      for (let damage = 0; damage < 40; damage++) {
        const source = Buffer.from(stream)
        for (let places = 1 + upTo(3); places > 0; places--) {
          // The fifth byte says whether there is a checksum.
          const at = 5 + upTo(damage % 2 === 0 ? stream.length - 5 : Math.min(stream.length - 5, 60))
          source[at]! ^= upTo(2) === 0 ? 1 << upTo(8) : 1 + upTo(255)
        }
        const { bytes, refusal, misdeeds } = decodeGuarded(decoder, source, cluster.length)
        counts[refusal === undefined ? 'decoded' : 'refused']++
        const found = [...misdeeds]
        // Without a checksum not even libzstd's versions agree on what becomes of damage.
        if (hasChecksum && refusal === undefined && !bytes.equals(cluster)) found.push('the bytes are others')
        problems.push(
          ...found.map((problem) => `seed ${seed + run}, ${damage}: ${problem}, ${source.toString('hex', 0, 40)}`),
        )
      }
    }
    t.strictSame(problems, [])
    t.ok(counts.decoded > 0 && counts.refused > numRuns * 10, 'both were seen', counts)
  },
)
