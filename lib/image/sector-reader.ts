/**
 * Encrypted data of one layer: read as it is stored, then decrypted where it lies.
 *
 * Knows one layer and its list. Invariant: nothing that could not be read passes for plain bytes.
 */
import { SECTOR_BYTES } from '../crypto/cipher.js'
import type { Decoding } from '../decode/decoding.js'
import type { Layer } from './layer.js'
import type { DamageList } from './salvage.js'
import type { Fragment, SectorList } from './sector-list.js'
import { allSettled, readStored } from './stored-bytes.js'

/**
 * Reads and decrypts the sectors of a list into `target`, which begins at `guestOffset`.
 *
 * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
 */
export async function readSectors(
  layer: Layer,
  list: SectorList,
  decoding: Decoding,
  { target, guestOffset }: { target: Uint8Array; guestOffset: number },
  damage: DamageList,
  isWanted: () => boolean,
): Promise<void> {
  const { dataFile, encryption } = layer
  const { pieces, fragments } = list
  await allSettled([
    ...pieces.map((piece) => {
      const part = target.subarray(piece.at, piece.at + piece.length)
      return readStored(dataFile, piece, part, damage, isWanted)
    }),
    ...fragments.map((fragment) => readFragment(layer, fragment, decoding, target, damage, isWanted)),
  ])
  await decoding.decrypt(encryption!.key!, target, list.runs(), isWanted)
  // What was not read has been decrypted nevertheless.
  damage.clear(target, guestOffset)
  await damage.report()
}

/** Reads and decrypts the sector that a part of is wanted. */
async function readFragment(
  { dataFile, encryption }: Layer,
  { hostOffset, guestOffset, at, length, skip, sector }: Fragment,
  decoding: Decoding,
  target: Uint8Array,
  damage: DamageList,
  isWanted: () => boolean,
): Promise<void> {
  const bytes = new Uint8Array(SECTOR_BYTES)
  try {
    await dataFile.read(bytes, hostOffset - skip)
  } catch (error) {
    damage.add(guestOffset, length, error)
    return
  }
  await decoding.decrypt(encryption!.key!, bytes, Float64Array.of(0, SECTOR_BYTES, sector), isWanted)
  target.set(bytes.subarray(skip, skip + length), at)
}
