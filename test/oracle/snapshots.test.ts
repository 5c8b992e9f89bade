/**
 * Internal snapshots: each is read as the disk that qemu-img gets by going back to it on a copy.
 */
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { Qcow2Image } from '../../lib/index.js'
import { agreesWithQemu, oracleTest, qemuImg, qemuIo } from '../fixtures/qemu.js'
import { randomWrites } from '../fixtures/random-writes.js'

const KIB = 1024

/** Compares the active disk and every snapshot; returns how many different disks there are. */
async function agreeOnAll(t: Test, folder: string): Promise<number> {
  await using image = await Qcow2Image.open(join(folder, 'a.qcow2'))
  const disks = [await agreesWithQemu(t, folder, 'a.qcow2')]
  for (const { id, name, virtualSize } of image.snapshots) {
    copyFileSync(join(folder, 'a.qcow2'), join(folder, 'copy.qcow2'))
    await qemuImg(folder, 'snapshot', '-q', '-a', name, 'copy.qcow2')
    for (const snapshot of [name, id]) {
      const disk = await agreesWithQemu(t, folder, 'a.qcow2', { options: { snapshot }, qemuName: 'copy.qcow2' })
      t.equal(disk.length, virtualSize)
      if (snapshot === name) disks.push(disk)
    }
  }
  return new Set(disks.map((disk) => disk.toString('latin1'))).size
}

const SETTINGS: readonly [settings: string, clusterBytes: number][] = [
  ['cluster_size=512', 512],
  ['cluster_size=4096,compat=0.10', 4096],
  ['cluster_size=65536', 65536],
  ['cluster_size=65536,compression_type=zstd', 65536],
  ['cluster_size=32768,extended_l2=on', 32768],
  ['cluster_size=2M', 2 ** 21],
]

oracleTest('snapshots', async (t) => {
  await Promise.all(
    SETTINGS.map(([settings, clusterBytes], index) =>
      t.test(settings, { buffered: true }, async (t) => {
        const folder = t.testdir()
        const diskBytes = Math.max(600 * KIB, clusterBytes + 1536)
        await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', settings, 'a.qcow2', String(diskBytes))
        for (let round = 0; round < 3; round++) {
          const writes = { clusterBytes, diskBytes, count: 8, isCompressed: round === 0 }
          await qemuIo(folder, 'a.qcow2', ...randomWrites(index * 10 + round, writes))
          await qemuImg(folder, 'snapshot', '-q', '-c', `round ${round}`, 'a.qcow2')
        }
        await qemuIo(folder, 'a.qcow2', ['write -P 9 1000 5000', 'discard 64k 128k'])
        t.equal(await agreeOnAll(t, folder), 4)
      }),
    ),
  )
})

oracleTest('snapshots of a disk that grew and shrank', async (t) => {
  const folder = t.testdir()
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=1024', 'a.qcow2', '100k')
  await qemuIo(folder, 'a.qcow2', ['write -P 1 0 90k'])
  await qemuImg(folder, 'snapshot', '-q', '-c', 'small', 'a.qcow2')
  await qemuImg(folder, 'resize', '-q', 'a.qcow2', '300k')
  await qemuIo(folder, 'a.qcow2', ['write -P 2 95k 190k'])
  await qemuImg(folder, 'snapshot', '-q', '-c', 'large', 'a.qcow2')
  await qemuImg(folder, 'snapshot', '-q', '-a', 'small', 'a.qcow2')
  await qemuIo(folder, 'a.qcow2', ['write -P 3 10k 10k'])
  await qemuImg(folder, 'snapshot', '-q', '-c', 'small again', 'a.qcow2')
  await qemuImg(folder, 'snapshot', '-q', '-d', 'small', 'a.qcow2')
  t.equal(await agreeOnAll(t, folder), 2)
})

oracleTest('snapshots over a backing file', async (t) => {
  const folder = t.testdir({ 'base.raw': Buffer.alloc(200 * KIB, 7) })
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'a.qcow2', '300k')
  await qemuIo(folder, 'a.qcow2', ['write -P 1 0 70k'])
  await qemuImg(folder, 'snapshot', '-q', '-c', 'first', 'a.qcow2')
  await qemuIo(folder, 'a.qcow2', ['write -P 2 10k 100k', 'write -z 128k 64k'])
  await qemuImg(folder, 'snapshot', '-q', '-c', 'second', 'a.qcow2')
  await qemuIo(folder, 'a.qcow2', ['write -P 3 0 300k'])
  t.equal(await agreeOnAll(t, folder), 3)
})

oracleTest('many snapshots', async (t) => {
  const folder = t.testdir()
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4096', 'a.qcow2', '1M')
  for (let index = 1; index <= 20; index++) {
    await qemuIo(folder, 'a.qcow2', [`write -P ${index} ${index * 4096} 4096`])
    await qemuImg(folder, 'snapshot', '-q', '-c', `ünï ${'long name '.repeat(index)}`, 'a.qcow2')
  }
  await using image = await Qcow2Image.open(join(folder, 'a.qcow2'))
  const listed = JSON.parse(await qemuImg(folder, 'info', '--output=json', 'a.qcow2')) as {
    snapshots: { id: string; name: string; 'date-sec': number; 'date-nsec': number; 'vm-state-size': number }[]
  }
  t.same(
    image.snapshots.map(({ id, name, date, vmStateSize }) => [
      id,
      name,
      Math.floor(date.getTime() / 1000),
      vmStateSize,
    ]),
    listed.snapshots.map((row) => [row.id, row.name, row['date-sec'], row['vm-state-size']]),
  )
  for (const index of [0, 10, 19]) {
    const snapshot = image.snapshots[index]!
    copyFileSync(join(folder, 'a.qcow2'), join(folder, 'copy.qcow2'))
    await qemuImg(folder, 'snapshot', '-q', '-a', snapshot.name, 'copy.qcow2')
    await agreesWithQemu(t, folder, 'a.qcow2', { options: { snapshot: snapshot.id }, qemuName: 'copy.qcow2' })
  }
})
