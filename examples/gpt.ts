/**
 * The partitions of the disk inside an image, from its GUID Partition Table (UEFI specification: "GUID Partition Table (GPT) Disk
 * Layout"):
 *
 *     import { Qcow2Image } from 'qcow2'
 *     import { readPartitions } from './gpt.js'
 *
 *     await using image = await Qcow2Image.open('disk.qcow2')
 *     console.log(await readPartitions(image))
 *
 * Invariant: nothing in the table is believed before its checksums are right, and no length or count that it names is used before
 * it is bounded.
 */
import { crc32 } from 'node:zlib'
import type { Qcow2Image } from 'qcow2'

const SECTOR_SIZES = [512, 4096]
const LEAST_HEADER_BYTES = 92
const LEAST_ENTRY_BYTES = 128
// Usual are 128 entries of 128 bytes.
const MAX_TABLE_BYTES = 2 ** 20
const NO_TYPE = '00000000-0000-0000-0000-000000000000'

export interface Partition {
  /** From 1 on; those that are not in use are counted too. */
  readonly number: number
  readonly name: string
  readonly type: string
  readonly firstLba: number
  /** Inclusive. */
  readonly lastLba: number
  /** Its bytes on the disk, half-open; undefined if they are not on the disk. */
  readonly range: { readonly start: number; readonly end: number } | undefined
}

export interface PartitionTable {
  readonly partitions: readonly Partition[]
  /** What is wrong with the table at the beginning of the disk, if the one at its end had to be taken. */
  readonly damage: string | undefined
}

/**
 * The partitions of an open image.
 *
 * @throws An `Error` if there is no table without damage; the errors of `Qcow2Image.read`
 */
export async function readPartitions(image: Qcow2Image): Promise<PartitionTable> {
  const damages: string[] = []
  for (const kind of ['primary', 'backup'] as const) {
    for (const sectorSize of SECTOR_SIZES) {
      const lba = kind === 'primary' ? 1 : Math.floor(image.virtualSize / sectorSize) - 1
      const found = await readTable(image, sectorSize, lba)
      if (Array.isArray(found)) {
        const damage = damages.length > 0 ? damages.join('; ') : 'no primary GPT header'
        return { partitions: found, damage: kind === 'primary' ? undefined : damage }
      }
      if (found !== undefined) {
        damages.push(`${kind} GPT header at LBA ${lba} of ${sectorSize} bytes: ${found}`)
      }
    }
  }
  throw new Error(
    damages.length > 0 ? damages.join('; ') : 'the disk has no GPT, neither at its beginning nor at its end',
  )
}

/** The partitions of one of the tables; what is wrong with it; or undefined, if there is none. */
async function readTable(
  image: Qcow2Image,
  sectorSize: number,
  lba: number,
): Promise<Partition[] | string | undefined> {
  const header = lba < 1 ? undefined : await readBytes(image, lba * sectorSize, sectorSize)
  if (header?.toString('latin1', 0, 8) !== 'EFI PART') {
    return undefined
  }
  const headerBytes = header.readUInt32LE(12)
  if (headerBytes < LEAST_HEADER_BYTES || headerBytes > sectorSize) {
    return `length: found ${headerBytes}, allowed are ${LEAST_HEADER_BYTES} to ${sectorSize}`
  }
  const headerChecksum = header.readUInt32LE(16)
  // It is computed as if it were zero itself.
  header.writeUInt32LE(0, 16)
  if (crc32(header.subarray(0, headerBytes)) !== headerChecksum) {
    return 'its checksum is wrong'
  }
  const ownLba = offsetAt(header, 24)
  if (ownLba !== lba) {
    return `says that it is at LBA ${ownLba}`
  }
  const [entriesLba, count, entryBytes] = [offsetAt(header, 72), header.readUInt32LE(80), header.readUInt32LE(84)]
  if (entryBytes < LEAST_ENTRY_BYTES || count * entryBytes > MAX_TABLE_BYTES) {
    return `found ${count} entries of ${entryBytes} bytes, allowed are ${LEAST_ENTRY_BYTES} or more, in all ${MAX_TABLE_BYTES}`
  }
  const entries = await readBytes(image, entriesLba * sectorSize, count * entryBytes)
  if (entries === undefined) {
    return `its entries at LBA ${entriesLba} are not on the disk`
  }
  if (crc32(entries) !== header.readUInt32LE(88)) {
    return `the checksum of its entries at LBA ${entriesLba} is wrong`
  }
  return Array.from({ length: count }, (_, index) =>
    partitionOf(entries.subarray(index * entryBytes), index + 1, sectorSize, image.virtualSize),
  ).filter(({ type }) => type !== NO_TYPE)
}

/** Bytes of the disk; undefined if they are not all on it. */
async function readBytes(image: Qcow2Image, offset: number, length: number): Promise<Buffer | undefined> {
  if (offset + length > image.virtualSize) {
    return undefined
  }
  const bytes = Buffer.alloc(length)
  await image.read(bytes, offset)
  return bytes
}

/** A number of 64 bits, not exact beyond 2^53: there it is past the end of any disk. */
const offsetAt = (bytes: Buffer, at: number): number => Number(bytes.readBigUInt64LE(at))

function partitionOf(entry: Buffer, number: number, sectorSize: number, virtualSize: number): Partition {
  const [firstLba, lastLba] = [offsetAt(entry, 32), offsetAt(entry, 40)]
  const [start, end] = [firstLba * sectorSize, (lastLba + 1) * sectorSize]
  const [name = ''] = entry.toString('utf16le', 56, 128).split('\0')
  const range = start < end && end <= virtualSize ? { start, end } : undefined
  return { number, name, type: guidAt(entry), firstLba, lastLba, range }
}

/** The GUID at the beginning, as it is usually written: its first three groups are little-endian numbers. */
function guidAt(bytes: Buffer): string {
  const numbers = [bytes.subarray(0, 4), bytes.subarray(4, 6), bytes.subarray(6, 8)]
  const groups = [
    ...numbers.map((group) => Buffer.from(group).reverse()),
    bytes.subarray(8, 10),
    bytes.subarray(10, 16),
  ]
  return groups.map((group) => group.toString('hex').toUpperCase()).join('-')
}
