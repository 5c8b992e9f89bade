/**
 * Bytes as the host has them, and what can be had of them where a read fails.
 *
 * Knows files and ranges, not what is stored in them. Invariant: when a read has settled nothing writes to its target any more.
 */
import { hex, Qcow2FormatError } from '../errors.js'
import type { HostFile } from '../source/source.js'
import type { DamageList } from './salvage.js'

/** Bytes of a file, and which of the guest's they are. */
export interface StoredRange {
  readonly guestOffset: number
  readonly hostOffset: number
  readonly length: number
}

// Where a read has failed, its halves are tried, and theirs, down to so many bytes of the host: sectors of disks are no longer.
const SALVAGE_BYTES = 4096

/**
 * Fills the target, with zeros for what cannot be read if `damage` lets it be.
 *
 * @param isWanted Asked while much is tried again; once it says no, what failed ends the call.
 * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
 */
export async function readStored(
  file: HostFile,
  range: StoredRange,
  target: Uint8Array,
  damage: DamageList,
  isWanted: () => boolean,
): Promise<void> {
  try {
    await file.read(target, range.hostOffset)
  } catch (error) {
    if (!damage.accepts(error)) {
      throw error
    }
    await salvageHalves(file, target, range, error, damage, isWanted)
  }
}

/**
 * Refuses a part of an image that does not lie within its file: what is cut off must not pass for zeros.
 *
 * @param what The part, in the message.
 * @throws {Qcow2FormatError} `ERR_QCOW2_TRUNCATED`
 */
export function refusePastEnd(file: HostFile, offset: number, length: number, what: string, field: string): void {
  if (offset + length > file.size) {
    throw new Qcow2FormatError(
      'ERR_QCOW2_TRUNCATED',
      `${what} at host offset ${hex(offset)}, ${length} bytes, lies past the end of the file (${file.size} bytes)`,
      { layer: file.label, hostOffset: offset, field, actual: file.size },
    )
  }
}

/** Waits for all, as what they write to may be used again afterwards, and then throws the first failure. */
export async function allSettled(reads: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(reads)) {
    if (result.status === 'rejected') {
      throw result.reason
    }
  }
}

/** Reads what can be read of bytes that could not be read at once, and leaves zeros for the rest. */
async function salvageHalves(
  file: HostFile,
  target: Uint8Array,
  { guestOffset, hostOffset, length }: StoredRange,
  error: unknown,
  damage: DamageList,
  isWanted: () => boolean,
): Promise<void> {
  const first = Math.floor(hostOffset / SALVAGE_BYTES)
  const end = Math.ceil((hostOffset + length) / SALVAGE_BYTES)
  if (end - first === 1) {
    damage.add(guestOffset, length, error)
    target.fill(0)
    return
  }
  const half = Math.floor((first + end) / 2) * SALVAGE_BYTES - hostOffset
  for (const [from, to] of [
    [0, half],
    [half, length],
  ] as const) {
    if (!isWanted()) {
      throw error
    }
    const part = target.subarray(from, to)
    try {
      await file.read(part, hostOffset + from)
    } catch (failure) {
      const range = { guestOffset: guestOffset + from, hostOffset: hostOffset + from, length: to - from }
      await salvageHalves(file, part, range, failure, damage, isWanted)
    }
  }
}
