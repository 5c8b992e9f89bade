/**
 * External data files, raw and not, as qemu-img makes them.
 */
import { mkdirSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { convert } from '../../lib/index.js'
import { text } from '../fixtures/patterns.js'
import { agreesWithQemu, firstDifference, oracleTest, qemuImg, qemuIo } from '../fixtures/qemu.js'
import { randomWrites } from '../fixtures/random-writes.js'

const KIB = 1024

const SETTINGS: readonly [settings: string, clusterBytes: number][] = [
  ['cluster_size=512', 512],
  ['cluster_size=4096', 4096],
  ['cluster_size=65536', 65536],
  ['cluster_size=2M', 2 ** 21],
  ['cluster_size=65536,extended_l2=on', 65536],
  ['cluster_size=65536,preallocation=metadata', 65536],
  ['cluster_size=16384,preallocation=falloc', 16384],
]

for (const isRaw of [false, true]) {
  oracleTest(isRaw ? 'data files that are raw disks as well' : 'data files that are not raw', async (t) => {
    await Promise.all(
      SETTINGS.map(([settings, clusterBytes], index) =>
        t.test(settings, { buffered: true }, async (t) => {
          const folder = t.testdir()
          const diskBytes = Math.max(700 * KIB, clusterBytes) + 512 * (1 + index)
          const all = `${settings},data_file=data.raw,data_file_raw=${isRaw ? 'on' : 'off'}`
          await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', all, 'a.qcow2', String(diskBytes))
          await agreesWithQemu(t, folder, 'a.qcow2')
          const writes = { clusterBytes, diskBytes, count: 20 }
          await qemuIo(folder, 'a.qcow2', ...randomWrites(index + (isRaw ? 100 : 0), writes))
          const disk = await agreesWithQemu(t, folder, 'a.qcow2')
          if (isRaw) {
            const data = readFileSync(join(folder, 'data.raw')).subarray(0, diskBytes)
            t.equal(firstDifference(data, disk), undefined, 'the data file is the disk')
          }
        }),
      ),
    )
  })
}

oracleTest('a data file beside the image, wherever that is', async (t) => {
  const folder = t.testdir()
  mkdirSync(join(folder, 'made'))
  const made = join(folder, 'made')
  await qemuImg(made, 'create', '-q', '-f', 'qcow2', '-o', 'data_file=data.raw', 'a.qcow2', '300k')
  await qemuIo(made, 'a.qcow2', ['write -P 1 100 100000', 'write -z 64k 64k'])
  const disk = await agreesWithQemu(t, made, 'a.qcow2')
  renameSync(made, join(folder, 'moved'))
  t.ok((await agreesWithQemu(t, join(folder, 'moved'), 'a.qcow2')).equals(disk))
})

oracleTest('a data file over a backing file, and below another image', async (t) => {
  const folder = t.testdir({ 'base.raw': text(1, 400 * KIB) })
  const create = (name: string, ...words: string[]): Promise<string> =>
    qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...words, name, '500k')
  await create('b.qcow2', '-b', 'base.raw', '-F', 'raw', '-o', 'data_file=data.raw')
  await qemuIo(folder, 'b.qcow2', ...randomWrites(1, { clusterBytes: 65536, diskBytes: 500 * KIB, count: 10 }))
  await agreesWithQemu(t, folder, 'b.qcow2')
  await create('a.qcow2', '-b', 'b.qcow2', '-F', 'qcow2', '-o', 'cluster_size=4096')
  await qemuIo(folder, 'a.qcow2', ...randomWrites(2, { clusterBytes: 4096, diskBytes: 500 * KIB, count: 10 }))
  await agreesWithQemu(t, folder, 'a.qcow2')
})

oracleTest('another data file that the caller names', async (t) => {
  const folder = t.testdir()
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', 'data_file=data.raw', 'a.qcow2', '300k')
  await qemuIo(folder, 'a.qcow2', ['write -P 1 100 100000'])
  const disk = await agreesWithQemu(t, folder, 'a.qcow2')
  mkdirSync(join(folder, 'elsewhere'))
  renameSync(join(folder, 'data.raw'), join(folder, 'elsewhere', 'other.raw'))
  const fileAt = (filename: string): object => ({ driver: 'file', filename })
  const both = { driver: 'qcow2', file: fileAt('a.qcow2'), 'data-file': fileAt('elsewhere/other.raw') }
  await qemuImg(folder, 'convert', '-O', 'raw', `json:${JSON.stringify(both)}`, 'theirs.raw')
  t.ok(readFileSync(join(folder, 'theirs.raw')).equals(disk))
  const dataFile = join(folder, 'elsewhere', 'other.raw')
  await convert(join(folder, 'a.qcow2'), join(folder, 'ours.raw'), { dataFile })
  t.ok(readFileSync(join(folder, 'ours.raw')).equals(disk))
})
