/**
 * The table of internal snapshots: entries of variable length, one after another.
 *
 * Knows the entries, not the L1 tables they point to. Invariant: at most `nbSnapshots` entries are looked at, and
 * no bytes but those that were given. Spec: "Snapshots".
 */
import { hex, Qcow2FormatError } from '../errors.js'
import { decodeName } from './extensions.js'
import { l1Reach, type Qcow2Header } from './header.js'
import { HIGH_HALF, hostOffset, viewOf, type HostOffset } from './units.js'

/** An internal snapshot. Spec: "Snapshots". */
export interface Qcow2Snapshot {
  /** Unique id; text from the image, to be quoted before it is shown. */
  readonly id: string
  /** Name; text from the image, to be quoted before it is shown. Not necessarily unique. */
  readonly name: string
  /** Virtual size of the disk in the snapshot, in bytes. */
  readonly virtualSize: number
  /** When it was taken, to the millisecond. */
  readonly date: Date
  /** Nanoseconds of that second, as stored; from 0 on, below 10^9 if it is well-formed. */
  readonly dateNanoseconds: number
  /** How long the guest had run, in nanoseconds. */
  readonly vmClockNanoseconds: bigint
  /** Size of the saved machine state in bytes; 0 if there is none. */
  readonly vmStateSize: number
  /** Instruction count of record/replay; undefined where it is not recorded. */
  readonly icount: bigint | undefined
  /** Host offset of the snapshot's L1 table, in bytes. */
  readonly l1TableOffset: HostOffset
  /** Entries in that table. */
  readonly l1Size: number
  /** Bytes of the snapshot's entry in the snapshot table, padding included; a multiple of 8. */
  readonly tableEntrySize: number
  /** Bytes of extra data in that entry. */
  readonly extraDataSize: number
}

const FIXED_BYTES = 40
const MAX_EXTRA_BYTES = 1024
const MAX_L1_ENTRIES = (32 * 2 ** 20) / 8
const NO_ICOUNT = 0xffff_ffff_ffff_ffffn

/**
 * The snapshots in `table`, or undefined if the table goes on past the end of these bytes.
 *
 * @param table Bytes from `header.snapshotsOffset` on.
 * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_SNAPSHOT_TABLE`
 */
export function parseSnapshots(table: Uint8Array, header: Qcow2Header, layer: string): Qcow2Snapshot[] | undefined {
  const view = viewOf(table)
  const clusterSize = 2 ** header.clusterBits
  const reach = l1Reach(clusterSize, header.features.hasExtendedL2)
  const snapshots: Qcow2Snapshot[] = []
  let at = 0
  for (let index = 0; index < header.nbSnapshots; index++) {
    if (at + FIXED_BYTES > table.length) {
      return undefined
    }
    const where = header.snapshotsOffset + at
    const refuse = (field: string, actual: string | number, allowed: string): never => {
      throw new Qcow2FormatError(
        'ERR_QCOW2_BAD_SNAPSHOT_TABLE',
        `snapshot table entry ${index} at host offset ${hex(where)}: ${field} is ${actual}, allowed is ${allowed}`,
        { layer, hostOffset: where, field, actual },
      )
    }
    const size64 = (field: string, offset: number): number => {
      const value = view.getUint32(offset) * HIGH_HALF + view.getUint32(offset + 4)
      return value <= Number.MAX_SAFE_INTEGER ? value : refuse(field, hex(view.getBigUint64(offset)), 'up to 2^53 - 1')
    }
    const l1TableOffset = size64('the L1 table offset', at)
    const l1Size = view.getUint32(at + 8)
    const idLength = view.getUint16(at + 12)
    const nameLength = view.getUint16(at + 14)
    const extraLength = view.getUint32(at + 36)
    if (extraLength > MAX_EXTRA_BYTES) {
      refuse('the size of its extra data', extraLength, `up to ${MAX_EXTRA_BYTES}`)
    }
    const idAt = at + FIXED_BYTES + extraLength
    const end = idAt + idLength + nameLength
    if (end > table.length) {
      return undefined
    }
    const extra = (field: string, from: number): number | undefined =>
      extraLength >= from + 8 - FIXED_BYTES ? size64(field, at + from) : undefined
    // Version 2 may leave the size out, and the disk may have grown since: then the L1 table may be too short for it.
    const recordedSize = extra('the virtual disk size', 48)
    const virtualSize = recordedSize ?? header.size
    const icount = extraLength >= 24 ? view.getBigUint64(at + 56) : NO_ICOUNT
    if (l1TableOffset % clusterSize !== 0) {
      refuse('the L1 table offset', hex(l1TableOffset), `a multiple of the cluster size ${clusterSize}`)
    }
    const l1Needed = recordedSize === undefined ? 0 : Math.ceil(recordedSize / reach)
    if (l1Size < l1Needed || l1Size > MAX_L1_ENTRIES) {
      refuse('the number of L1 entries', l1Size, `${l1Needed} to ${MAX_L1_ENTRIES}`)
    }
    if (l1TableOffset === 0 && l1Size > 0) {
      refuse('the L1 table offset', 0, 'a cluster after the header')
    }
    const next = Math.ceil(end / 8) * 8
    snapshots.push({
      id: decodeName(table.subarray(idAt, idAt + idLength)),
      name: decodeName(table.subarray(idAt + idLength, end)),
      virtualSize,
      date: new Date(view.getUint32(at + 16) * 1000 + Math.floor(view.getUint32(at + 20) / 1e6)),
      dateNanoseconds: view.getUint32(at + 20),
      vmClockNanoseconds: view.getBigUint64(at + 24),
      vmStateSize: extra('the VM state size', 40) ?? view.getUint32(at + 32),
      icount: icount === NO_ICOUNT ? undefined : icount,
      l1TableOffset: hostOffset(l1TableOffset),
      l1Size,
      tableEntrySize: next - at,
      extraDataSize: extraLength,
    })
    at = next
  }
  return snapshots
}
