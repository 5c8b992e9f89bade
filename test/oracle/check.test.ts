/**
 * The verdicts of `qemu-img check`, in numbers: on clean images of all kinds, on damage of each kind, and on damage at random.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { agreesWithQemuCheck, ourVerdict, qemuVerdict, type Verdict } from '../fixtures/qemu-check.js'
import { createEncrypted, encryptedIo, LUKS, SECRET } from '../fixtures/encrypted-images.js'
import { encryptedSource } from '../fixtures/qemu-source.js'
import { oracleTest, qemuImg, qemuIo } from '../fixtures/qemu.js'
import { runCommand, start } from '../fixtures/run-command.js'
import { randomNumbers, randomWrites } from '../fixtures/random-writes.js'

const KIB = 1024
const DISK = 700 * KIB

const SETTINGS: readonly [settings: string, clusterBytes: number][] = [
  ['cluster_size=65536', 65536],
  ['cluster_size=512', 512],
  ['cluster_size=2M', 2 ** 21],
  ['compat=0.10', 65536],
  ['compat=0.10,cluster_size=1024', 1024],
  ['compression_type=zstd,cluster_size=4096', 4096],
  ['extended_l2=on,cluster_size=16384', 16384],
  ['preallocation=metadata,cluster_size=1024', 1024],
  ['preallocation=full,cluster_size=4096,compat=0.10', 4096],
  ['preallocation=metadata,extended_l2=on', 65536],
  ['data_file=a.data,cluster_size=4096', 4096],
  ['data_file=a.data,data_file_raw=on,preallocation=metadata,cluster_size=4096', 4096],
  ...[1, 2, 4, 8, 32, 64].map((bits): [string, number] => [`refcount_bits=${bits},cluster_size=1024`, 1024]),
]

/** Makes an image with all kinds of clusters; a data file gets the name of the image. */
async function written(folder: string, name: string, settings: string, clusterBytes: number, seed = 1): Promise<void> {
  const diskBytes = Math.max(DISK, 2 * clusterBytes)
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', settings, name, String(diskBytes))
  const isCompressed = !/data_file|refcount_bits=1,/.test(settings)
  await qemuIo(folder, name, ...randomWrites(seed, { clusterBytes, diskBytes, count: 12, isCompressed }))
}

async function isClean(t: Test, folder: string, name: string, what?: string): Promise<Verdict> {
  const verdict = await agreesWithQemuCheck(t, folder, name, what)
  t.equal(verdict.leaks + verdict.corruptions + verdict.checkErrors, 0, 'clean')
  return verdict
}

oracleTest('clean images of all kinds', async (t) => {
  await Promise.all(
    SETTINGS.map(([settings, clusterBytes], seed) =>
      t.test(settings, { buffered: true }, async (t) => {
        const folder = t.testdir()
        await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', settings, 'empty.qcow2', '1M')
        await isClean(t, folder, 'empty.qcow2')
        await written(folder, 'a.qcow2', settings, clusterBytes, seed)
        const { allocatedClusters } = await isClean(t, folder, 'a.qcow2')
        t.ok(allocatedClusters > 0)
      }),
    ),
  )
})

oracleTest('an image that was converted with compression', async (t) => {
  const folder = t.testdir()
  writeFileSync(join(folder, 'a.raw'), Buffer.from('all that is compressed is shorter\n'.repeat(40000)))
  for (const settings of ['cluster_size=65536', 'compression_type=zstd,cluster_size=4096', 'extended_l2=on']) {
    await qemuImg(folder, 'convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', settings, 'a.raw', 'a.qcow2')
    const { compressedClusters, fragmentedClusters } = await isClean(t, folder, 'a.qcow2', settings)
    t.ok(compressedClusters > 0 && fragmentedClusters >= compressedClusters)
  }
})

oracleTest('snapshots', async (t) => {
  for (const [settings, clusterBytes] of [
    ['cluster_size=1024', 1024],
    ['cluster_size=512,refcount_bits=8', 512],
    ['compat=0.10', 65536],
    ['extended_l2=on', 65536],
  ] as const) {
    const folder = t.testdir()
    await written(folder, 'a.qcow2', settings, clusterBytes)
    for (const [seed, name] of ['one', 'two', 'three'].entries()) {
      await qemuImg(folder, 'snapshot', '-c', name, 'a.qcow2')
      await isClean(t, folder, 'a.qcow2', settings)
      await qemuIo(folder, 'a.qcow2', ...randomWrites(10 + seed, { clusterBytes, diskBytes: DISK, count: 5 }))
      await isClean(t, folder, 'a.qcow2', settings)
    }
    await qemuImg(folder, 'snapshot', '-d', 'two', 'a.qcow2')
    await isClean(t, folder, 'a.qcow2', settings)
  }
})

oracleTest('bitmaps', async (t) => {
  const folder = t.testdir()
  await written(folder, 'a.qcow2', 'cluster_size=1024', 1024)
  for (const [name, granularity] of [
    ['fine', '512'],
    ['coarse', '1M'],
  ] as const) {
    await qemuImg(folder, 'bitmap', '--add', '-g', granularity, '-f', 'qcow2', 'a.qcow2', name)
    await qemuIo(folder, 'a.qcow2', ...randomWrites(3, { clusterBytes: 1024, diskBytes: DISK, count: 5 }))
    await isClean(t, folder, 'a.qcow2', name)
  }
})

oracleTest('encrypted images, without a passphrase', async (t) => {
  for (const settings of [LUKS, `${LUKS},cluster_size=4096`, 'encrypt.format=aes']) {
    const folder = t.testdir()
    await createEncrypted(folder, 'a.qcow2', { settings, size: DISK, secret: SECRET })
    const source = encryptedSource('a.qcow2', 'secret')
    await encryptedIo(folder, source, ...randomWrites(5, { clusterBytes: 4096, diskBytes: DISK, count: 8 }))
    const verdict = await agreesWithQemuCheck(t, folder, 'a.qcow2', settings, [...source.flags, source.name])
    t.match(verdict, { leaks: 0, corruptions: 0 })
  }
})

oracleTest('an overlay whose backing file is gone', async (t) => {
  const folder = t.testdir()
  await written(folder, 'base.qcow2', 'cluster_size=65536', 65536)
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'base.qcow2', 'a.qcow2')
  await qemuIo(folder, 'a.qcow2', ['write -P 3 1000 9000'])
  t.match(await isClean(t, folder, 'a.qcow2'), { allocatedClusters: 1 })
})

oracleTest('an image whose writer was killed', async (t) => {
  const folder = t.testdir()
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', 'lazy_refcounts=on,cluster_size=4096', 'a.qcow2', '500k')
  await t.rejects(qemuIo(folder, 'a.qcow2', ['write -P 1 1000 200000', 'write -z 64k 64k', 'flush', 'sigraise 9']))
  const { corruptions } = await agreesWithQemuCheck(t, folder, 'a.qcow2')
  t.ok(corruptions > 0)
})

/** Where things are in a real image, as far as damage needs it. */
function placesOf(bytes: Buffer): {
  readonly clusterSize: number
  readonly l1: number
  readonly l2: number
  readonly refcountTable: number
  readonly block: number
  readonly stepBytes: number
  readonly usedEntries: readonly number[]
} {
  const clusterSize = 2 ** bytes.readUInt32BE(20)
  const offset = (at: number): number => Number(bytes.readBigUInt64BE(at) & 0x00ff_ffff_ffff_fe00n)
  const [l1, refcountTable] = [offset(40), offset(48)]
  const l1Size = bytes.readUInt32BE(36)
  const l2Tables = Array.from({ length: l1Size }, (_, index) => offset(l1 + index * 8)).filter((table) => table > 0)
  const stepBytes = bytes.readUInt32BE(4) === 3 && (bytes.readUInt32BE(76) & 16) !== 0 ? 16 : 8
  const usedEntries = l2Tables
    .flatMap((table) => Array.from({ length: clusterSize / stepBytes }, (_, index) => table + index * stepBytes))
    .filter((at) => offset(at) > 0 && (bytes.readUInt8(at) & 0x40) === 0)
  return { clusterSize, l1, l2: l2Tables[0]!, refcountTable, block: offset(refcountTable), stepBytes, usedEntries }
}

type Damage = (bytes: Buffer, places: ReturnType<typeof placesOf>) => Buffer | undefined

const entry = (bytes: Buffer, at: number, change: (entry: bigint) => bigint): undefined => {
  bytes.writeBigUInt64BE(change(bytes.readBigUInt64BE(at)), at)
  return undefined
}

const DAMAGE: Readonly<Record<string, Damage>> = {
  'refcounts raised': (bytes, { block }) => void bytes.fill(0xff, block + 4, block + 9),
  'refcounts lowered': (bytes, { block }) => void bytes.fill(0, block + 4, block + 9),
  'an L2 entry twice': (bytes, { usedEntries: [a = 0, b = 0] }) => void bytes.copy(bytes, b, a, a + 8),
  'bit 63 of L2 entries': (bytes, { usedEntries }) => {
    for (const at of usedEntries.slice(0, 3)) bytes[at]! ^= 0x80
    return undefined
  },
  'bit 63 of an L1 entry': (bytes, { l1 }) => void (bytes[l1]! ^= 0x80),
  'a cluster that is the header': (bytes, { usedEntries: [at = 0], clusterSize }) =>
    entry(bytes, at, () => BigInt(clusterSize) | (1n << 63n)),
  'a cluster that is the L1 table': (bytes, { usedEntries: [at = 0], l1 }) =>
    entry(bytes, at, () => BigInt(l1) | (1n << 63n)),
  'a cluster that is an L2 table': (bytes, { usedEntries: [at = 0], l2 }) =>
    entry(bytes, at, () => BigInt(l2) | (1n << 63n)),
  'a cluster that nobody uses': (bytes, { usedEntries: [at = 0] }) => entry(bytes, at, () => 0n),
  'reserved bits of an L2 entry': (bytes, { usedEntries: [at = 0] }) => entry(bytes, at, (word) => word | (1n << 57n)),
  'reserved bits of an L1 entry': (bytes, { l1 }) => entry(bytes, l1, (word) => word | (1n << 57n) | 1n),
  'a cluster in mid-cluster': (bytes, { usedEntries: [at = 0] }) => entry(bytes, at, (word) => word + 512n),
  'a cluster past the end': (bytes, { usedEntries: [at = 0] }) => entry(bytes, at, () => (1n << 40n) | (1n << 63n)),
  'a compressed cluster past the end': (bytes, { usedEntries: [at = 0] }) =>
    entry(bytes, at, () => BigInt(bytes.length + 511) | (1n << 62n)),
  'a compressed cluster with bit 63': (bytes, { usedEntries: [at = 0] }) =>
    entry(bytes, at, (word) => word | (3n << 62n)),
  'an L2 table past the end': (bytes, { l1 }) => entry(bytes, l1, () => (1n << 40n) | (1n << 63n)),
  'a refcount block past the end': (bytes, { refcountTable }) => entry(bytes, refcountTable, () => 1n << 40n),
  'a refcount block in mid-cluster': (bytes, { refcountTable }) => entry(bytes, refcountTable, (word) => word + 512n),
  'reserved bits of a refcount block': (bytes, { refcountTable }) => entry(bytes, refcountTable, (word) => word + 1n),
  'no refcount block': (bytes, { refcountTable }) => entry(bytes, refcountTable, () => 0n),
  'a refcount block twice': (bytes, { refcountTable }) =>
    void bytes.copy(bytes, refcountTable + 8, refcountTable, refcountTable + 8),
  'a table of L1 entries that are the same': (bytes, { l1 }) => void bytes.copy(bytes, l1 + 8, l1, l1 + 8),
  'a file that was cut off': (bytes) => bytes.subarray(0, Math.floor(bytes.length * 0.6) - 100),
  'clusters behind the end that nobody uses': (bytes) => Buffer.concat([bytes, Buffer.alloc(200_000)]),
}

oracleTest('damage of each kind', async (t) => {
  const images = SETTINGS.filter(([settings]) => !/2M|raw=on/.test(settings))
  for (const [settings, clusterBytes] of images) {
    await t.test(settings, async (t) => {
      const folder = t.testdir()
      await written(folder, 'a.qcow2', settings, clusterBytes)
      const good = readFileSync(join(folder, 'a.qcow2'))
      const places = placesOf(good)
      t.ok(places.usedEntries.length > 3)
      for (const [what, damage] of Object.entries(DAMAGE)) {
        // An offset of half a cluster is one of no cluster.
        if (what.endsWith('in mid-cluster') && places.clusterSize === 512) continue
        const bytes = Buffer.from(good)
        writeFileSync(join(folder, 'b.qcow2'), damage(bytes, places) ?? bytes)
        await agreesWithQemuCheck(t, folder, 'b.qcow2', what)
      }
    })
  }
})

oracleTest('damage at random', async (t) => {
  const random = randomNumbers(20)
  const upTo = (limit: number): number => Math.floor(random() * limit)
  let damaged = 0
  for (const [settings, clusterBytes] of [
    ['refcount_bits=4,cluster_size=1024', 1024],
    ['cluster_size=512', 512],
    ['compat=0.10', 65536],
    ['refcount_bits=64,cluster_size=1024', 1024],
    ['extended_l2=on,cluster_size=16384', 16384],
  ] as const) {
    const folder = t.testdir()
    await written(folder, 'a.qcow2', settings, clusterBytes)
    await qemuImg(folder, 'snapshot', '-c', 'one', 'a.qcow2')
    await qemuIo(folder, 'a.qcow2', ...randomWrites(9, { clusterBytes, diskBytes: DISK, count: 5 }))
    const good = readFileSync(join(folder, 'a.qcow2'))
    const { block, clusterSize, l2, usedEntries, stepBytes } = placesOf(good)
    for (let round = 0; round < 25; round++) {
      const bytes = Buffer.from(good)
      for (let flips = 1 + upTo(4); flips > 0; flips--) {
        bytes[block + upTo(Math.min(clusterSize, 200))]! ^= 1 << upTo(8)
        bytes[usedEntries[upTo(usedEntries.length)]! + upTo(8)]! ^= 1 << upTo(8)
        bytes.copy(bytes, l2 + upTo(clusterSize / stepBytes) * stepBytes, usedEntries[0], usedEntries[0]! + stepBytes)
      }
      writeFileSync(join(folder, 'b.qcow2'), bytes)
      const { leaks, corruptions } = await agreesWithQemuCheck(t, folder, 'b.qcow2', `${settings}, round ${round}`)
      damaged += leaks + corruptions > 0 ? 1 : 0
    }
  }
  t.ok(damaged > 100, `${damaged} of 125 were damaged`)
})

oracleTest('where both differ', async (t) => {
  const folder = t.testdir()
  await written(folder, 'a.qcow2', 'cluster_size=1024', 1024)
  const good = readFileSync(join(folder, 'a.qcow2'))
  const places = placesOf(good)
  const verdicts = async (damage: Damage): Promise<[ours: Verdict, theirs: Verdict | undefined]> => {
    const bytes = Buffer.from(good)
    writeFileSync(join(folder, 'b.qcow2'), damage(bytes, places) ?? bytes)
    return [await ourVerdict(t, join(folder, 'b.qcow2')), (await qemuVerdict(folder, '-f', 'qcow2', 'b.qcow2')).verdict]
  }
  await t.test('an L2 table in mid-cluster is not read', async (t) => {
    const [ours, theirs] = await verdicts((bytes, { l1 }) => entry(bytes, l1, (word) => word + 512n))
    t.ok(ours.corruptions > 0)
    t.ok(theirs!.corruptions > 0 && theirs!.corruptions !== ours.corruptions)
  })
  await t.test('the header is no L2 table', async (t) => {
    const [ours, theirs] = await verdicts((bytes, { l1 }) => entry(bytes, l1, () => 1n << 63n))
    t.equal(ours.corruptions, 1)
    t.ok(theirs!.corruptions > 1)
  })
  await t.test('metadata that is used otherwise as well, with a refcount for both', async (t) => {
    const [ours, theirs] = await verdicts((bytes, { usedEntries: [at = 0], l1, block, clusterSize }) => {
      bytes.writeUInt16BE(2, block + (l1 / clusterSize) * 2)
      entry(bytes, at, () => BigInt(l1))
      return undefined
    })
    t.match(theirs, { corruptions: 0, leaks: 1 })
    t.match(ours, { corruptions: 1, leaks: 1 })
  })
  await t.test('a virtual size that is no multiple of 512', async (t) => {
    const [ours, theirs] = await verdicts((bytes) => entry(bytes, 24, (size) => size + 100n))
    t.equal(ours.totalClusters, theirs!.totalClusters + 1)
    t.equal(ours.corruptions, theirs!.corruptions)
  })
  await t.test('bitmaps whose directory is malformed', async (t) => {
    await qemuImg(folder, 'bitmap', '--add', '-f', 'qcow2', 'a.qcow2', 'one')
    const bytes = readFileSync(join(folder, 'a.qcow2'))
    const directory = Number(bytes.readBigUInt64BE(bytes.indexOf(Buffer.from('2385287500000018', 'hex')) + 24))
    const [ours, theirs] = await verdicts(() => {
      bytes[directory + 16] = 9
      return bytes
    })
    t.equal(theirs, undefined)
    t.equal(ours.corruptions, 1)
  })
})

oracleTest('the command prints what qemu-img prints, and findings', async (t) => {
  const folder = t.testdir()
  await written(folder, 'a.qcow2', 'cluster_size=4096', 4096)
  const clean = readFileSync(join(folder, 'a.qcow2'))
  const blockOffset = Number(clean.readBigUInt64BE(Number(clean.readBigUInt64BE(48))))
  for (const [refcount, exitCode] of [
    [undefined, 0],
    [7, 7],
    [0, 3],
  ] as const) {
    const bytes = Buffer.from(clean)
    // Of the L1 table.
    if (refcount !== undefined)
      bytes.writeUInt16BE(refcount, blockOffset + 2 * (Number(bytes.readBigUInt64BE(40)) / 4096))
    writeFileSync(join(folder, 'b.qcow2'), bytes)
    const ours = await runCommand(['--check', '--json', 'b.qcow2'], { command: 'qcow2-info', cwd: folder })
    const theirs = await start('qemu-img', ['check', '--output=json', '-f', 'qcow2', 'b.qcow2'], { cwd: folder }).ended
    const { findings, ...rest } = JSON.parse(ours.stdout.toString()) as Record<string, unknown>
    t.strictSame(rest, JSON.parse(theirs.stdout.toString()), `a refcount of ${refcount}`)
    t.equal(Array.isArray(findings) && findings.length > 0, refcount !== undefined)
    t.equal(ours.code, exitCode)
  }
})
