/**
 * Partitions of disks that fdisk has divided: listed as they are, and written as dd would write them.
 */
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { crc32 } from 'node:zlib'
import t, { type Test } from 'tap'
import { extractPartition } from '../../examples/extract-partition.js'
import { readPartitions, type PartitionTable } from '../../examples/gpt.js'
import { Qcow2Image, Qcow2UsageError } from 'qcow2'
import { rejection, expectError } from '../fixtures/expect-error.js'
import { buildImage } from '../fixtures/image-builder.js'
import { pattern } from '../fixtures/patterns.js'
import { firstDifference, noQemu, qemuImg } from '../fixtures/qemu.js'
import { missingPrograms, start, type Ended } from '../fixtures/run-command.js'
import { testNeeding } from '../fixtures/test-needing.js'

const MIB = 2 ** 20
const DISK_BYTES = 20 * MIB
const script = fileURLToPath(new URL('../../examples/extract-partition.js', import.meta.url))
// Debian has it where only root looks.
process.env['PATH'] = `${process.env['PATH']}:/usr/sbin:/sbin`
const noFdisk = missingPrograms('fdisk') || noQemu

// What fdisk is told: three partitions, the second of which is deleted again; names and a type are for experts.
const ANSWERS = ['g', 'n', '1', '', '+5M', 'n', '2', '', '+2M', 'n', '3', '', '+9M', 'd', '2', 't', '1', '1']
const NAMES = ['x', 'n', '1', 'boot', 'n', '3', 'dåta "3"\u202e', 'r', 'w', '']

/** A disk with partitions and data in them, as raw file and as image; where its partitions are. */
async function makeDisk(
  t: Test,
  sectorSize: number,
): Promise<{ folder: string; raw: Buffer; places: [number, number][] }> {
  const folder = t.testdir({ answers: [...ANSWERS, ...NAMES].join('\n') })
  const path = join(folder, 'disk.raw')
  {
    await using file = await open(path, 'w')
    await file.truncate(DISK_BYTES)
  }
  const words = ['-c', `fdisk --wipe never -b ${sectorSize} disk.raw < answers`]
  const { code, stderr } = await start('sh', words, { cwd: folder, env: { LC_ALL: 'C.UTF-8' } }).ended
  t.equal(code, 0, stderr)
  const list = await start('fdisk', ['-b', String(sectorSize), '-l', '-o', 'start,end', 'disk.raw'], { cwd: folder })
    .ended
  const places = [...list.stdout.toString().matchAll(/^ *(\d+) +(\d+)$/gm)].map(([, first, last]): [number, number] => [
    Number(first),
    Number(last),
  ])
  t.equal(places.length, 2, list.stdout.toString())
  const file = await open(path, 'r+')
  for (const [index, [first, last]] of places.entries()) {
    // Its first sectors, its last one, and around it.
    await file.write(pattern(index, 100_000), 0, 100_000, first * sectorSize)
    await file.write(pattern(index + 5, sectorSize * 2), 0, sectorSize * 2, last * sectorSize)
  }
  await file.close()
  await qemuImg(folder, 'convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'disk.qcow2')
  return { folder, raw: readFileSync(path), places }
}

/** The partitions of a raw disk. */
async function tableOf(disk: Uint8Array): Promise<PartitionTable> {
  const clusters = [0, Math.floor((disk.length - 1) / MIB)].map(
    (index) => [index, { kind: 'data', bytes: disk.subarray(index * MIB, (index + 1) * MIB) }] as const,
  )
  await using image = await Qcow2Image.open(buildImage({ clusterBits: 20, virtualSize: disk.length, clusters }).bytes)
  return await readPartitions(image)
}

const run = (cwd: string, ...words: string[]): Promise<Ended> =>
  start(process.execPath, [script, ...words], { cwd }).ended

for (const sectorSize of [512, 4096]) {
  testNeeding(noFdisk, `a disk of sectors of ${sectorSize} bytes`, async (t) => {
    const { folder, raw, places } = await makeDisk(t, sectorSize)
    const { code, stdout, stderr } = await run(folder, 'disk.qcow2')
    t.strictSame({ code, stderr }, { code: 0, stderr: '' })
    const [[first, last], [dataFirst, dataLast]] = places as [[number, number], [number, number]]
    t.strictSame(stdout.toString().split('\n'), [
      'number\tname\ttype\tfirst LBA\tlast LBA\tbytes',
      `1\t"boot"\tC12A7328-F81F-11D2-BA4B-00A0C93EC93B\t${first}\t${last}\t${5 * MIB}`,
      `3\t"dåta \\"3\\"\\u202e"\t0FC63DAF-8483-4772-8E79-3D69D8477DE4\t${dataFirst}\t${dataLast}\t${9 * MIB}`,
      '',
    ])
    for (const [wanted, index] of [
      ['1', 0],
      ['boot', 0],
      ['3', 1],
      ['dåta "3"\u202e', 1],
    ] as const) {
      const output = `${index}-${wanted.length}.img`
      const ended = await run(folder, 'disk.qcow2', wanted, output)
      t.strictSame([ended.code, ended.stdout.toString(), ended.stderr], [0, '', ''])
      const [from, to] = places[index]!
      const dd = ['if=disk.raw', 'of=dd.img', `bs=${sectorSize}`, `skip=${from}`, `count=${to + 1 - from}`]
      t.equal((await start('dd', dd, { cwd: folder }).ended).code, 0)
      t.equal(
        firstDifference(readFileSync(join(folder, output)), readFileSync(join(folder, 'dd.img'))),
        undefined,
        wanted,
      )
      t.ok(statSync(join(folder, output)).blocks * 512 < MIB, 'sparse')
    }

    const before = readdirSync(folder)
    for (const [words, message] of [
      [['disk.qcow2', '2', 'new.img'], '"2" is the number or name of 0 partitions, allowed is 1'],
      [['disk.qcow2', '1', 'dd.img'], '"dd.img": exists already; the option force replaces it'],
      [['disk.qcow2', '1'], 'usage: node dist/examples/extract-partition.js IMAGE [PARTITION OUTPUT]'],
      [[], 'usage: node dist/examples/extract-partition.js IMAGE [PARTITION OUTPUT]'],
    ] as const) {
      const ended = await run(folder, ...words)
      t.strictSame([ended.code, ended.stderr], [1, `extract-partition: ${message}\n`])
    }
    t.strictSame(readdirSync(folder), before)

    await damages(t, raw, sectorSize)

    raw.fill(0, sectorSize, sectorSize + 1)
    writeFileSync(join(folder, 'disk.raw'), raw)
    await qemuImg(folder, 'convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'disk.qcow2')
    const damaged = await run(folder, 'disk.qcow2', 'boot', 'backup.img')
    t.strictSame([damaged.code, damaged.stderr], [0, 'extract-partition: no primary GPT header; its backup is taken\n'])
    t.ok(readFileSync(join(folder, 'backup.img')).equals(readFileSync(join(folder, '0-1.img'))))
    raw.fill(0, raw.length - sectorSize)
    writeFileSync(join(folder, 'disk.raw'), raw)
    await qemuImg(folder, 'convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'disk.qcow2')
    const gone = await run(folder, 'disk.qcow2')
    t.equal(gone.code, 1)
    t.equal(gone.stderr, 'extract-partition: the disk has no GPT, neither at its beginning nor at its end\n')
  })
}

/** Gives a header the checksum that it should have. */
function seal(header: Buffer): void {
  header.writeUInt32LE(0, 16)
  header.writeUInt32LE(crc32(header.subarray(0, header.readUInt32LE(12))), 16)
}

/** Whatever is damaged, the backup serves; and without one, one line says what it is. */
async function damages(t: Test, raw: Buffer, sectorSize: number): Promise<void> {
  const intact = await tableOf(raw)
  t.equal(intact.damage, undefined)
  const where = `primary GPT header at LBA 1 of ${sectorSize} bytes: `
  const entries = raw.readUInt32LE(sectorSize + 72) * sectorSize
  for (const [change, message] of [
    [(header) => (header[60]! ^= 1), 'its checksum is wrong'],
    [(header) => (header[16]! ^= 1), 'its checksum is wrong'],
    [(header) => header.writeUInt32LE(91, 12), `length: found 91, allowed are 92 to ${sectorSize}`],
    [(header) => header.writeUInt32LE(2 ** 32 - 1, 12), `length: found 4294967295, allowed are 92 to ${sectorSize}`],
    [
      (header) => {
        header.writeUInt32LE(7, 24)
        seal(header)
      },
      'says that it is at LBA 7',
    ],
    [
      (header) => {
        header.writeUInt32LE(127, 84)
        seal(header)
      },
      'found 128 entries of 127 bytes, allowed are 128 or more, in all 1048576',
    ],
    [
      (header) => {
        header.writeUInt32LE(2 ** 32 - 1, 80)
        seal(header)
      },
      'found 4294967295 entries of 128 bytes, allowed are 128 or more, in all 1048576',
    ],
    [
      (header) => {
        header.fill(255, 72, 80)
        seal(header)
      },
      'its entries at LBA 18446744073709552000 are not on the disk',
    ],
    [(_, disk) => (disk[entries + 130]! ^= 1), 'the checksum of its entries at LBA 2 is wrong'],
  ] as [change: (header: Buffer, disk: Buffer) => unknown, message: string][]) {
    const disk = Buffer.from(raw)
    change(disk.subarray(sectorSize, sectorSize * 2), disk)
    const { partitions, damage } = await tableOf(disk)
    t.equal(damage, where + message)
    t.strictSame(partitions, intact.partitions)
    disk.fill(0, disk.length - sectorSize)
    await t.rejects(tableOf(disk), { message: where + message })
  }
  // Both.
  const disk = Buffer.from(raw)
  disk[sectorSize + 60]! ^= 1
  disk[disk.length - sectorSize + 60]! ^= 1
  const lba = disk.length / sectorSize - 1
  await t.rejects(tableOf(disk), {
    message: `${where}its checksum is wrong; backup GPT header at LBA ${lba} of ${sectorSize} bytes: its checksum is wrong`,
  })
}

t.test('disks without a table, of any length', async (t) => {
  for (const length of [0, 1, 512, 1023, 1024, 4096, 8192, MIB + 5]) {
    await t.rejects(tableOf(Buffer.alloc(length)), { message: /^the disk has no GPT/ }, String(length))
  }
})

/** A disk of 1 MiB with such entries. */
function diskWith(...entries: { name: string; first: bigint; last: bigint }[]): Buffer {
  const disk = Buffer.alloc(MIB)
  const header = disk.subarray(512, 1024)
  const table = disk.subarray(1024, 1024 + entries.length * 128)
  entries.forEach(({ name, first, last }, index) => {
    const entry = table.subarray(index * 128)
    entry[0] = 1
    entry.writeBigUInt64LE(first, 32)
    entry.writeBigUInt64LE(last, 40)
    entry.write(name, 56, 72, 'utf16le')
  })
  header.write('EFI PART')
  header.writeUInt32LE(92, 12)
  header.writeUInt32LE(1, 24)
  header.writeUInt32LE(2, 72)
  header.writeUInt32LE(entries.length, 80)
  header.writeUInt32LE(128, 84)
  header.writeUInt32LE(crc32(table), 88)
  seal(header)
  return disk
}

t.test('partitions that are not on the disk are listed, but not written', async (t) => {
  const entries = [
    { first: 34n, last: 2047n },
    { first: 2047n, last: 2048n },
    { first: 40n, last: 39n },
    { first: 40n, last: 2n ** 64n - 1n },
    { first: 2n ** 64n - 1n, last: 2n ** 64n - 1n },
  ]
  const table = await tableOf(diskWith(...entries.map((range) => ({ name: '', ...range }))))
  t.strictSame(
    table.partitions.map(({ range }) => range),
    [{ start: 34 * 512, end: MIB }, undefined, undefined, undefined, undefined],
  )
  const output = join(t.testdir(), 'out.img')
  for (const number of ['2', '3', '4', '5']) {
    await t.rejects(extractPartition('unread.qcow2', number, output, table), {
      message: /^partition \d: LBA .* is not on the disk$/,
    })
  }
  t.notOk(existsSync(output))
})

t.test('a number comes before a name, and a name must be that of one', async (t) => {
  const place = { first: 40n, last: 41n }
  const names = ['2', 'twice', 'twice', 'x'.repeat(36), '9']
  const table = await tableOf(
    diskWith(...names.map((name, index) => ({ name, first: 40n + BigInt(index), last: place.last + 9n }))),
  )
  t.strictSame(
    table.partitions.map(({ name }) => name),
    names,
  )
  const folder = t.testdir({ 'a.qcow2': buildImage({ virtualSize: MIB }).bytes })
  const lengths = async (wanted: string): Promise<number> => {
    const output = join(folder, `${wanted}.img`)
    await extractPartition(join(folder, 'a.qcow2'), wanted, output, table)
    return statSync(output).size / 512
  }
  t.equal(await lengths('2'), 10)
  t.equal(await lengths('9'), 7)
  await t.rejects(lengths('twice'), { message: '"twice" is the number or name of 2 partitions, allowed is 1' })
  expectError(t, await rejection(t, lengths('2')), Qcow2UsageError, 'ERR_QCOW2_OUTPUT_EXISTS')
})
