/**
 * Where clusters are decoded: here and now if there are few or threads are not wanted.
 */
import t from 'tap'
import { Decoding } from '../../../lib/decode/decoding.js'
import { makeClusters } from '../../fixtures/batches.js'
import { Gate, turns } from '../../fixtures/turns.js'
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
  t.equal(memory.take(4 * 65536).byteOffset, piece.byteOffset, 'and it can be used again')
})

t.test('puts clusters where they belong, beside each other or not, and leaves alone what lies between', async (t) => {
  for (const isInPlace of [false, true]) {
    const decoding = new Decoding(0)
    const length = 20 * 4096
    const whole = isInPlace ? decoding.memoryFor(length).take(length) : new Uint8Array(length)
    const target = whole.subarray(0, length).fill(0xa5)
    const { clusters, read, expected } = makeClusters({ clusterSize: 4096, count: 6 })
    const slots = [1, 2, 3, 7, 9, 10]
    const places = clusters.places.slice()
    for (const [index, slot] of slots.entries()) places[index * 3 + 2] = slot * 4096
    t.equal(await decoding.decode({ ...clusters, places, target }, read), undefined)
    const wanted = Buffer.alloc(length, 0xa5)
    for (const [index, slot] of slots.entries()) expected.copy(wanted, slot * 4096, index * 4096, (index + 1) * 4096)
    t.ok(wanted.equals(target), isInPlace ? 'in place' : 'by a copy')
  }
})

t.test('goes on after there was no memory to be had', async (t) => {
  const decoding = new Decoding(0)
  const { clusters, read, expected } = makeClusters()
  for (let turn = 0; turn < 3; turn++) {
    // WebAssembly's memory has 4 GiB at most.
    await t.rejects(decoding.decode({ ...clusters, storedLength: 5 * 2 ** 30 }, read), RangeError)
  }
  t.equal(await decoding.decode(clusters, read), undefined)
  t.ok(expected.equals(clusters.target))
})

t.test('a large batch is not overtaken for ever by small ones', async (t) => {
  const decoding = new Decoding(0)
  const order: string[] = []
  const { clusters } = makeClusters({ clusterSize: 512, count: 1 })
  const run = async (title: string, mebibytes: number): Promise<void> => {
    const read = async (): Promise<void> => {
      order.push(title)
      await turns(5)
      throw new Error('enough')
    }
    await decoding.decode({ ...clusters, storedLength: mebibytes * 2 ** 20 }, read).catch(() => {})
  }
  await Promise.all([run('first', 40), run('large', 50), run('small', 10), run('small', 10)])
  t.strictSame(order.slice(0, 2), ['first', 'large'])
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

t.test('begins no step that is not wanted any more', async (t) => {
  const decoding = new Decoding(0)
  const { clusters } = makeClusters()
  const untouched = Buffer.alloc(clusters.target.length, 7)
  clusters.target.set(untouched)
  let reads = 0
  let isWanted = false
  const read = async (): Promise<void> => {
    reads++
    isWanted = false
  }
  const unwanted = { message: /not wanted/ }
  await t.rejects(
    decoding.decode(clusters, read, () => isWanted),
    unwanted,
  )
  t.equal(reads, 0, 'nothing is read')
  isWanted = true
  await t.rejects(
    decoding.decode(clusters, read, () => isWanted),
    unwanted,
  )
  t.equal(reads, 1)
  t.ok(untouched.equals(clusters.target), 'nothing is decoded')
  const key = {} as Parameters<typeof decoding.decrypt>[0]
  await t.rejects(
    decoding.decrypt(key, clusters.target, Float64Array.of(0, 512, 0), () => false),
    unwanted,
  )
  t.ok(untouched.equals(clusters.target), 'nor decrypted')
})

t.test('what waits for its turn is not begun if it is not wanted any more by then', async (t) => {
  const decoding = new Decoding(0)
  const { clusters } = makeClusters()
  const gate = new Gate()
  let reads = 0
  let isWanted = true
  const large = { ...clusters, storedLength: 60 * 2 ** 20 }
  const first = decoding.decode(large, () => gate.opened.then(() => Promise.reject(new Error('enough'))))
  const second = decoding.decode(
    large,
    async () => {
      reads++
    },
    () => isWanted,
  )
  await turns(3)
  isWanted = false
  gate.open()
  await t.rejects(first, { message: 'enough' })
  await t.rejects(second, { message: /not wanted/ })
  t.equal(reads, 0)
})

t.test('lets an error pass that is not about the bytes', async (t) => {
  const { clusters, read } = makeClusters({ count: 1 })
  const bug = { ...clusters, places: null as unknown as Uint32Array }
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
  const places = Uint32Array.of(0, 1, 0)
  const all = storedLengths.map(async (storedLength) => {
    await decoding.decode({ compression: 'zlib', clusterSize: 512, storedLength, places, target }, hold).catch(() => {})
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
