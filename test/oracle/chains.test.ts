/**
 * Backing chains as qemu-img makes them: layers of other cluster sizes, lengths, versions and formats over each other.
 */
import { closeSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { Qcow2Image } from '../../lib/index.js'
import { pattern, text } from '../fixtures/patterns.js'
import { agreesWithQemu, oracleTest, qemuImg, qemuIo } from '../fixtures/qemu.js'
import { randomNumbers, randomWrites } from '../fixtures/random-writes.js'

const KIB = 1024

/** A layer from the bottom up; the first may be raw. */
interface LayerSpec {
  readonly settings?: string
  readonly clusterBytes?: number
  readonly diskBytes: number
  readonly isRaw?: boolean
  readonly isCompressed?: boolean
}

const CHAINS: Record<string, readonly LayerSpec[]> = {
  'qcow2 over raw': [
    { isRaw: true, diskBytes: 700 * KIB },
    { clusterBytes: 65536, diskBytes: 700 * KIB },
  ],
  'qcow2 over qcow2 over raw, larger each': [
    { isRaw: true, diskBytes: 300 * KIB },
    { clusterBytes: 65536, diskBytes: 512 * KIB },
    { clusterBytes: 4096, diskBytes: 900 * KIB },
  ],
  'qcow2 over qcow2 over raw, smaller each': [
    { isRaw: true, diskBytes: 900 * KIB },
    { clusterBytes: 4096, diskBytes: 513 * KIB },
    { clusterBytes: 65536, diskBytes: 300 * KIB + 512 },
  ],
  'a short layer hides what lies below its end': [
    { clusterBytes: 16384, diskBytes: 800 * KIB },
    { clusterBytes: 8192, diskBytes: 200 * KIB + 512 },
    { clusterBytes: 4096, diskBytes: 800 * KIB },
  ],
  'clusters of 512 bytes over 2 MiB': [
    { clusterBytes: 2 ** 21, diskBytes: 5000 * KIB },
    { clusterBytes: 512, diskBytes: 5000 * KIB },
  ],
  'clusters of 2 MiB over 512 bytes': [
    { clusterBytes: 512, diskBytes: 300 * KIB },
    { clusterBytes: 2 ** 21, diskBytes: 5000 * KIB },
  ],
  'extended L2 over 512 bytes': [
    { clusterBytes: 512, diskBytes: 600 * KIB },
    { clusterBytes: 65536, diskBytes: 600 * KIB, settings: 'extended_l2=on' },
  ],
  'extended L2 over extended L2 over raw': [
    { isRaw: true, diskBytes: 300 * KIB },
    { clusterBytes: 16384, diskBytes: 900 * KIB, settings: 'extended_l2=on' },
    { clusterBytes: 131072, diskBytes: 800 * KIB, settings: 'extended_l2=on' },
  ],
  'extended L2 and zstd over version 2 and zlib': [
    { clusterBytes: 4096, diskBytes: 600 * KIB, settings: 'compat=0.10', isCompressed: true },
    { clusterBytes: 32768, diskBytes: 600 * KIB, settings: 'extended_l2=on,compression_type=zstd', isCompressed: true },
  ],
  'version 2 over version 3 and zstd': [
    { clusterBytes: 65536, diskBytes: 700 * KIB, settings: 'compression_type=zstd', isCompressed: true },
    { clusterBytes: 8192, diskBytes: 700 * KIB, settings: 'compat=0.10' },
  ],
  'eight layers': Array.from({ length: 8 }, (_, i) => ({
    clusterBytes: [4096, 65536, 512, 32768][i % 4]!,
    diskBytes: (400 + ((i * 37) % 100)) * KIB,
    isCompressed: i % 3 === 0,
  })),
}

const nameOf = (depth: number, isRaw = false): string => `layer-${depth}.${isRaw ? 'raw' : 'qcow2'}`

/** Makes the layers and writes into each of them here and there; returns the name of the top one. */
async function makeChain(folder: string, layers: readonly LayerSpec[], seed: number): Promise<string> {
  let below: string[] = []
  let name = ''
  for (const [index, layer] of layers.entries()) {
    const { settings, clusterBytes = 65536, diskBytes, isRaw = false, isCompressed = false } = layer
    name = nameOf(index, isRaw)
    const all = [`cluster_size=${clusterBytes}`, settings].filter(Boolean).join()
    const how = isRaw ? ['-f', 'raw'] : ['-f', 'qcow2', '-o', all, ...below]
    await qemuImg(folder, 'create', '-q', ...how, name, String(diskBytes))
    const groups = randomWrites(seed + index, { clusterBytes, diskBytes, isCompressed, count: 10 })
    if (isRaw) {
      writeParts(join(folder, name), seed + index, diskBytes)
    } else {
      await qemuIo(folder, name, ...groups)
    }
    below = ['-b', name, '-F', isRaw ? 'raw' : 'qcow2']
  }
  return name
}

/** Writes about half of a raw disk and leaves holes in between. */
function writeParts(path: string, seed: number, diskBytes: number): void {
  const fd = openSync(path, 'r+')
  for (let at = 0, i = 0; at + 20_001 <= diskBytes; at += 40_961, i++) {
    writeSync(fd, pattern(seed + i, 20_001), 0, 20_001, at)
  }
  closeSync(fd)
}

oracleTest('chains', async (t) => {
  await Promise.all(
    Object.entries(CHAINS).flatMap(([title, layers], index) =>
      [1, 2].map((round) =>
        t.test(`${title}, round ${round}`, { buffered: true }, async (t) => {
          const folder = t.testdir()
          const top = await makeChain(folder, layers, round * 1000 + index * 10)
          await agreesWithQemu(t, folder, top)
          await using image = await Qcow2Image.open(join(folder, top))
          t.equal(image.backingChain.length, layers.length)
        }),
      ),
    ),
  )
})

oracleTest('a raw base of any length', async (t) => {
  for (const length of [0, 1, 511, 513, 65536, 100_077]) {
    const folder = t.testdir({ 'base.raw': pattern(length, length) })
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'a.qcow2', '200k')
    await qemuIo(folder, 'a.qcow2', ['write -P 1 300 100', 'write -P 2 100000 60', 'write -z 70000 5000'])
    // QEMU takes the file for longer, up to the end of its last sector.
    await agreesWithQemu(t, folder, 'a.qcow2', { comparesMaps: length % 512 === 0 })
  }
})

oracleTest('names that lead to other folders', async (t) => {
  const folder = t.testdir({ top: {}, base: { 'base.raw': text(1, 100_352) } })
  mkdirSync(join(folder, 'top', 'below'))
  const create = (cwd: string, name: string, base: string, format: string): Promise<string> =>
    qemuImg(join(folder, cwd), 'create', '-q', '-f', 'qcow2', '-b', base, '-F', format, name, '1M')
  await create('top/below', 'c.qcow2', '../../base/base.raw', 'raw')
  await create('top', 'b.qcow2', './below/c.qcow2', 'qcow2')
  await create('top', 'a.qcow2', join(folder, 'top', 'b.qcow2'), 'qcow2')
  await qemuIo(join(folder, 'top'), 'b.qcow2', ['write -P 1 300k 70k'])
  await agreesWithQemu(t, join(folder, 'top'), 'a.qcow2', { options: { references: 'any' } })
})

oracleTest('bases that were exchanged without a look at them', async (t) => {
  const folder = t.testdir({ 'one.raw': pattern(1, 400_896), 'two.raw': pattern(2, 600_064) })
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'one.raw', '-F', 'raw', 'base.qcow2', '500k')
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'a.qcow2', '700k')
  await qemuIo(folder, 'base.qcow2', ['write -P 1 0 100k', 'write -z 100k 64k'])
  await qemuIo(folder, 'a.qcow2', ['write -P 2 50k 70k', 'write -z 300k 64k'])
  const rebase = (...words: string[]): Promise<string> => qemuImg(folder, 'rebase', '-u', ...words, 'a.qcow2')
  const disks = [await agreesWithQemu(t, folder, 'a.qcow2')]
  await rebase('-b', 'two.raw', '-F', 'raw')
  disks.push(await agreesWithQemu(t, folder, 'a.qcow2'))
  await rebase('-b', '')
  disks.push(await agreesWithQemu(t, folder, 'a.qcow2'))
  t.ok(
    disks.every((disk, i) => disks.findIndex((other) => other.equals(disk)) === i),
    'three different disks',
  )
})

oracleTest('bases that were rebased and committed to in earnest', async (t) => {
  const folder = t.testdir({ 'one.raw': text(1, 400_896), 'two.raw': text(2, 600_064) })
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'one.raw', '-F', 'raw', 'base.qcow2', '500k')
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'a.qcow2', '700k')
  await qemuIo(folder, 'a.qcow2', ...randomWrites(7, { clusterBytes: 65536, diskBytes: 700 * KIB, count: 12 }))
  const before = await agreesWithQemu(t, folder, 'a.qcow2')
  await qemuImg(folder, 'rebase', '-b', 'two.raw', '-F', 'raw', 'a.qcow2')
  t.ok((await agreesWithQemu(t, folder, 'a.qcow2')).equals(before))
  await qemuImg(folder, 'commit', '-q', 'a.qcow2')
  await agreesWithQemu(t, folder, 'a.qcow2')
  t.ok(readFileSync(join(folder, 'two.raw')).equals(before), 'all went into the raw base')
})

oracleTest('random chains of two', async (t) => {
  const random = randomNumbers(20)
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
  const layer = (): LayerSpec => ({
    clusterBytes: pick([512, 1024, 4096, 16384, 65536, 262144]),
    diskBytes: 512 * (100 + Math.floor(random() * 2000)),
    isCompressed: random() < 0.5,
    settings: pick(['compat=0.10', 'compat=1.1', 'compression_type=zstd']),
  })
  const chains = Array.from({ length: 12 }, () => [layer(), layer()])
  await Promise.all(
    chains.map((layers, index) =>
      t.test(`chain ${index}`, { buffered: true }, async (t) => {
        const folder = t.testdir()
        await agreesWithQemu(t, folder, await makeChain(folder, layers, 5000 + index * 10))
      }),
    ),
  )
})
