/**
 * What else qemu-img can do to an image: preallocation, refcounts of any width, lazy ones, crashes, bitmaps, resizing,
 * amending; and disks that are too large to compare byte by byte.
 */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { Qcow2Image } from '../../lib/index.js'
import { agreesWithQemu, mapDifferences, oracleTest, qemuImg, qemuIo, type MapRow } from '../fixtures/qemu.js'
import { randomWrites } from '../fixtures/random-writes.js'

const KIB = 1024

const SETTINGS: readonly [settings: string, clusterBytes: number][] = [
  ...['metadata', 'falloc', 'full'].flatMap((preallocation): [string, number][] => [
    [`preallocation=${preallocation}`, 65536],
    [`preallocation=${preallocation},cluster_size=512`, 512],
    [`preallocation=${preallocation},cluster_size=4096,compat=0.10`, 4096],
    [`preallocation=${preallocation},cluster_size=1M`, 2 ** 20],
    [`preallocation=${preallocation},extended_l2=on`, 65536],
  ]),
  ...[1, 2, 4, 8, 16, 32, 64].map((bits): [string, number] => [`refcount_bits=${bits},cluster_size=4096`, 4096]),
  ['lazy_refcounts=on', 65536],
  ['lazy_refcounts=on,cluster_size=512', 512],
  ['compat=0.10', 65536],
]

oracleTest('ways to create an image', async (t) => {
  await Promise.all(
    SETTINGS.map(([settings, clusterBytes], index) =>
      t.test(settings, { buffered: true }, async (t) => {
        const folder = t.testdir()
        const diskBytes = Math.max(500 * KIB, clusterBytes) + 512 * (index % 7)
        await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', settings, 'a.qcow2', String(diskBytes))
        await agreesWithQemu(t, folder, 'a.qcow2')
        await qemuIo(folder, 'a.qcow2', ...randomWrites(index, { clusterBytes, diskBytes, count: 12 }))
        await agreesWithQemu(t, folder, 'a.qcow2')
      }),
    ),
  )
})

oracleTest('an image whose writer was killed', async (t) => {
  const folder = t.testdir()
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', 'lazy_refcounts=on', 'a.qcow2', '500k')
  await t.rejects(qemuIo(folder, 'a.qcow2', ['write -P 1 1000 200000', 'write -z 64k 64k', 'flush', 'sigraise 9']))
  await using image = await Qcow2Image.open(join(folder, 'a.qcow2'))
  t.same(
    image.warnings.map(({ code }) => code),
    ['WARN_QCOW2_DIRTY'],
  )
  await agreesWithQemu(t, folder, 'a.qcow2')
})

oracleTest('bitmaps', async (t) => {
  const folder = t.testdir()
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
  for (const name of ['one', 'two']) await qemuImg(folder, 'bitmap', '--add', '-f', 'qcow2', 'a.qcow2', name)
  await qemuIo(folder, 'a.qcow2', ...randomWrites(1, { clusterBytes: 65536, diskBytes: 2 ** 20, count: 10 }))
  await qemuImg(folder, 'bitmap', '--disable', '-f', 'qcow2', 'a.qcow2', 'two')
  await agreesWithQemu(t, folder, 'a.qcow2')
  await using image = await Qcow2Image.open(join(folder, 'a.qcow2'))
  t.equal(image.extensions.bitmaps?.nbBitmaps, 2)
  t.same(image.warnings, [])
})

oracleTest('a disk that grows and shrinks', async (t) => {
  for (const settings of [
    'cluster_size=512',
    'cluster_size=65536',
    'cluster_size=65536,extended_l2=on',
    'compat=0.10',
  ]) {
    const folder = t.testdir()
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', settings, 'a.qcow2', '300k')
    await qemuIo(folder, 'a.qcow2', ['write -P 1 0 300k'])
    for (const size of ['1M', '700k', '3M', '100k', '512', '300k']) {
      await qemuImg(folder, 'resize', '-q', '-f', 'qcow2', '--shrink', 'a.qcow2', size)
      const disk = await agreesWithQemu(t, folder, 'a.qcow2')
      await qemuIo(folder, 'a.qcow2', [`write -P 2 ${disk.length - 500} 500`])
      await agreesWithQemu(t, folder, 'a.qcow2')
    }
  }
})

oracleTest('growing with preallocation', async (t) => {
  for (const preallocation of ['metadata', 'falloc', 'full']) {
    const folder = t.testdir()
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'a.qcow2', '100k')
    await qemuIo(folder, 'a.qcow2', ['write -P 1 0 100k'])
    await qemuImg(folder, 'resize', '-q', '-f', 'qcow2', `--preallocation=${preallocation}`, 'a.qcow2', '1M')
    await agreesWithQemu(t, folder, 'a.qcow2')
  }
})

oracleTest('an image whose version was changed', async (t) => {
  const folder = t.testdir()
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'a.qcow2', '600k')
  const writes = { clusterBytes: 65536, diskBytes: 600 * KIB, count: 12, isCompressed: true }
  await qemuIo(folder, 'a.qcow2', ...randomWrites(3, writes))
  const disk = await agreesWithQemu(t, folder, 'a.qcow2')
  for (const version of ['0.10', '1.1']) {
    await qemuImg(folder, 'amend', '-f', 'qcow2', '-o', `compat=${version}`, 'a.qcow2')
    t.ok((await agreesWithQemu(t, folder, 'a.qcow2')).equals(disk))
  }
})

oracleTest('the maps of disks that are too large to convert', async (t) => {
  for (const [settings, size, places] of [
    ['cluster_size=65536', '4T', ['0', '1T', '4194303M']],
    ['cluster_size=2M', '64T', ['17M', '33T', '67108862M']],
    ['cluster_size=512', '100G', ['5G', '107374181888']],
    ['cluster_size=65536,extended_l2=on', '1T', ['4K', '900G']],
  ] as const) {
    const folder = t.testdir()
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', settings, 'a.qcow2', size)
    await qemuIo(
      folder,
      'a.qcow2',
      places.map((place) => `write -P 1 ${place} 512`),
    )
    await using image = await Qcow2Image.open(join(folder, 'a.qcow2'))
    const extents = []
    for await (const extent of image.extents()) extents.push(extent)
    const rows = JSON.parse(await qemuImg(folder, 'map', '-f', 'qcow2', '--output=json', 'a.qcow2')) as MapRow[]
    t.same(mapDifferences(rows, extents), [], size)
    t.equal(extents.filter(({ kind }) => kind === 'data').length, places.length)
  }
})

oracleTest('the image is left as it is', async (t) => {
  const folder = t.testdir()
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
  await qemuIo(folder, 'a.qcow2', ['write -P 1 0 1000'])
  const before = statSync(join(folder, 'a.qcow2'), { bigint: true })
  await agreesWithQemu(t, folder, 'a.qcow2')
  const after = statSync(join(folder, 'a.qcow2'), { bigint: true })
  t.equal(after.mtimeNs, before.mtimeNs)
  t.equal(after.size, before.size)
})
