/**
 * Every cluster size, version and way to store clusters, written here and there by qemu-io, with sizes that no cluster
 * divides: read as qemu-img reads it.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { convert } from '../../lib/index.js'
import { pattern, text } from '../fixtures/patterns.js'
import { agreesWithQemu, firstDifference, oracleTest, qemuImg, qemuIo } from '../fixtures/qemu.js'
import { randomWrites } from '../fixtures/random-writes.js'

const KIB = 1024
const MIB = 1024 * KIB

interface Kind {
  readonly title: string
  readonly create: string
  readonly isCompressed?: boolean
  readonly minClusterBits?: number
}

const KINDS: readonly Kind[] = [
  { title: 'version 2', create: 'compat=0.10' },
  { title: 'version 2, zlib', create: 'compat=0.10', isCompressed: true },
  { title: 'version 3', create: 'compat=1.1' },
  { title: 'version 3, zlib', create: 'compat=1.1', isCompressed: true },
  { title: 'version 3, zstd', create: 'compat=1.1,compression_type=zstd', isCompressed: true },
  { title: 'extended L2', create: 'extended_l2=on', minClusterBits: 14 },
  { title: 'extended L2, zlib', create: 'extended_l2=on', isCompressed: true, minClusterBits: 14 },
  {
    title: 'extended L2, zstd',
    create: 'extended_l2=on,compression_type=zstd',
    isCompressed: true,
    minClusterBits: 14,
  },
]

/** A disk of text, noise and zeros that alternate at odd places, in parts of about a cluster. */
function mixedDisk(diskBytes: number, clusterBytes: number, seed: number): Buffer {
  const disk = Buffer.alloc(diskBytes)
  const part = Math.min(clusterBytes, 256 * KIB) + 321
  for (let at = clusterBytes, i = 0; at < diskBytes; at += 3 * part, i++) {
    const bytes = i % 3 === 0 ? pattern(seed + i, part) : text(seed + i, part)
    bytes.copy(disk, at)
  }
  return disk
}

for (let clusterBits = 9; clusterBits <= 21; clusterBits++) {
  const clusterBytes = 2 ** clusterBits
  oracleTest(`clusters of ${clusterBytes} bytes`, async (t) => {
    const kinds = KINDS.filter(({ minClusterBits = 9 }) => clusterBits >= minClusterBits)
    await Promise.all(
      kinds.map((kind, index) =>
        t.test(kind.title, { buffered: true }, async (t) => {
          const seed = clusterBits * 100 + index
          // A few clusters, or a few L2 tables' worth of small ones; never a multiple of the cluster size.
          const clusters = clusterBytes >= 512 * KIB ? 4 : 7 + (seed % 5)
          const whole = Math.max(clusters * clusterBytes, 160 * KIB)
          const diskBytes = whole + (clusterBits === 9 ? 0 : 512 * (1 + (seed % (clusterBytes / 512 - 1))))
          const folder = t.testdir({ 'disk.raw': mixedDisk(diskBytes, clusterBytes, seed) })
          const { create, isCompressed = false } = kind
          const flags = isCompressed ? ['-c'] : []
          const settings = `cluster_size=${clusterBytes},${create}`
          await qemuImg(folder, 'convert', ...flags, '-f', 'raw', '-O', 'qcow2', '-o', settings, 'disk.raw', 'a.qcow2')
          await agreesWithQemu(t, folder, 'a.qcow2')

          const count = clusterBytes >= MIB ? 12 : 24
          await qemuIo(folder, 'a.qcow2', ...randomWrites(seed, { clusterBytes, diskBytes, isCompressed, count }))
          const disk = await agreesWithQemu(t, folder, 'a.qcow2')

          // QEMU rounds the size down to a multiple of 512 bytes, we keep it.
          const image = readFileSync(join(folder, 'a.qcow2'))
          const oddBytes = diskBytes - 1 - (seed % 511)
          image.writeBigUInt64BE(BigInt(oddBytes), 24)
          writeFileSync(join(folder, 'odd.qcow2'), image)
          await convert(join(folder, 'odd.qcow2'), join(folder, 'odd.raw'))
          const odd = readFileSync(join(folder, 'odd.raw'))
          t.equal(firstDifference(odd, disk.subarray(0, oddBytes)), undefined, `a size of ${oddBytes} bytes`)
          if (index === 0) {
            await qemuImg(folder, 'convert', '-f', 'qcow2', '-O', 'raw', 'odd.qcow2', 'rounded.raw')
            const rounded = readFileSync(join(folder, 'rounded.raw'))
            t.equal(rounded.length, oddBytes - (oddBytes % 512), 'QEMU rounds it down')
            t.equal(firstDifference(odd.subarray(0, rounded.length), rounded), undefined, 'what both have is the same')
          }
        }),
      ),
    )
  })
}
