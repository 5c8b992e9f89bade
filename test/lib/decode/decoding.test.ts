/**
 * Where clusters are decoded: here and now if there are few or threads are not wanted.
 */
import t from 'tap'
import { Decoding } from '../../../lib/decode/decoding.js'
import { makeClusters } from '../../fixtures/batches.js'
import { runningThreads, startedThreads } from '../../fixtures/worker-threads.js'

const compressions = ['zlib', 'zstd'] as const

for (const compression of compressions) {
  t.test(`decodes ${compression} without threads, however much`, async (t) => {
    const decoding = new Decoding(0)
    for (const count of [1, 8]) {
      const { clusters, read, expected } = makeClusters({ compression, count })
      t.equal(await decoding.decode(clusters, read), undefined)
      t.ok(expected.equals(clusters.target), `${count} clusters`)
    }
    await decoding.close()
    t.equal(startedThreads(), 0)
  })

  t.test(`names the first damaged cluster of ${compression} without threads`, async (t) => {
    const decoding = new Decoding(0)
    const damaged = makeClusters({ compression, count: 8, damaged: [5, 6] })
    const failure = await decoding.decode(damaged.clusters, damaged.read)
    t.equal(failure?.cluster, 5)
    t.type(failure?.reason, 'string')
    const { clusters, read, expected } = makeClusters({ compression, count: 8 })
    t.equal(await decoding.decode(clusters, read), undefined, 'the next ones are decoded')
    t.ok(expected.equals(clusters.target))
  })
}

t.test('decodes clusters of both types at once', async (t) => {
  const decoding = new Decoding(0)
  const all = [...compressions, ...compressions].map((compression) => makeClusters({ compression, clusterSize: 4096 }))
  const failures = await Promise.all(all.map(({ clusters, read }) => decoding.decode(clusters, read)))
  t.strictSame(failures, new Array(4).fill(undefined))
  t.ok(all.every(({ clusters, expected }) => expected.equals(clusters.target)))
})

t.test('starts no thread for less than 128 KiB', async (t) => {
  const decoding = new Decoding(2)
  const { clusters, read, expected } = makeClusters({ clusterSize: 4096, count: 31 })
  t.equal(await decoding.decode(clusters, read), undefined)
  t.ok(expected.equals(clusters.target))
  t.equal(startedThreads(), 0)
  await decoding.close()
})

t.test('decodes in place into memory of its own, and into ordinary memory by a copy', async (t) => {
  const decoding = new Decoding(0)
  const memory = decoding.memoryFor(4 * 65536)
  const piece = memory.take(4 * 65536)
  const inPlace = makeClusters({ target: piece.subarray(0, 4 * 65536) })
  t.equal(await decoding.decode(inPlace.clusters, inPlace.read), undefined)
  t.ok(inPlace.expected.equals(piece.subarray(0, 4 * 65536)))
  memory.give(piece)
  t.equal(memory.take(4 * 65536), piece, 'and it can be used again')
})

t.test('passes an error of the read on, and gives back what it took', async (t) => {
  const decoding = new Decoding(0)
  const { clusters, read, expected } = makeClusters()
  const lost = new Error('the disk is gone')
  for (let turn = 0; turn < 40; turn++) {
    await t.rejects(
      decoding.decode(clusters, () => Promise.reject(lost)),
      lost,
    )
  }
  t.equal(await decoding.decode(clusters, read), undefined)
  t.ok(expected.equals(clusters.target))
})

t.test('lets an error pass that is not about the bytes', async (t) => {
  const { clusters, read } = makeClusters({ count: 1 })
  const bug = { ...clusters, ranges: undefined as unknown as Uint32Array }
  await t.rejects(new Decoding(0).decode(bug, read), TypeError)
})

t.test('works on no more than 64 MiB at once, and on what is larger alone', async (t) => {
  const decoding = new Decoding(0)
  let [reading, most, done] = [0, 0, 0]
  const releases: (() => void)[] = []
  const hold = async (): Promise<void> => {
    reading++
    most = Math.max(most, reading)
    await new Promise<void>((resolve) => {
      releases.push(resolve)
    })
    reading--
    throw new Error('enough')
  }
  const storedLengths = [100, ...new Array<number>(12).fill(16), 100].map((mebibytes) => mebibytes * 2 ** 20)
  // One cluster of 512 bytes each: what counts is what is read for it.
  const target = new Uint8Array(512)
  const ranges = Uint32Array.of(0, 1)
  const all = storedLengths.map(async (storedLength) => {
    await decoding.decode({ compression: 'zlib', clusterSize: 512, storedLength, ranges, target }, hold).catch(() => {})
    done++
  })
  while (done < all.length) {
    await new Promise(setImmediate)
    if (reading === 1 && done === 0) t.equal(releases.length, 1, 'the large one is read alone')
    releases.shift()?.()
  }
  await Promise.all(all)
  t.ok(most > 1 && most <= 4, `up to ${most} at once`)
})

t.test('can be closed more than once, whether anything was decoded or not', async (t) => {
  const decoding = new Decoding(2)
  await decoding.close()
  await t.resolves(decoding.close())
  t.equal(runningThreads(), 0)
})
