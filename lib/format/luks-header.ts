/**
 * The LUKS header that a qcow2 image carries: how its sectors are encrypted, and where its key slots are.
 *
 * Knows the layout, neither passphrases nor ciphers. Invariant: every offset, count and length is checked before anybody
 * allocates or computes anything for it. Spec: "Full disk encryption header
 * pointer"; LUKS On-Disk Format 1, "PHDR".
 */
import { hex, Qcow2FormatError, Qcow2UnsupportedError, quoteText, type Qcow2ErrorFacts } from '../errors.js'
import { decodeName } from './extensions.js'
import { viewOf } from './units.js'

/** One of eight places for a passphrase. Spec: LUKS "key slot". */
export interface LuksKeySlot {
  /** Counts from 0. */
  readonly index: number
  readonly isActive: boolean
  /** Iterations of PBKDF2. */
  readonly iterations: number
  readonly salt: Uint8Array
  /** Bytes from the beginning of the LUKS header. */
  readonly keyMaterialOffset: number
}

/** The header's fields, by the names of the LUKS specification. */
export interface LuksHeader {
  readonly cipherName: string
  readonly cipherMode: string
  readonly hashSpec: string
  /** Length of the master key in bytes. */
  readonly keyBytes: number
  readonly mkDigest: Uint8Array
  readonly mkDigestSalt: Uint8Array
  /** Iterations of PBKDF2. */
  readonly mkDigestIterations: number
  /** Bytes from the beginning of the LUKS header to where encrypted data would be in a file of its own. */
  readonly payloadOffset: number
  readonly uuid: string
  /** Eight of them. */
  readonly keySlots: readonly LuksKeySlot[]
}

/** Bytes of the header itself; the key material lies behind it. */
export const LUKS_HEADER_BYTES = 592
/** Parts that each key is split into; QEMU and cryptsetup know no other number. */
export const LUKS_STRIPES = 4000

const MAGIC = '4c554b53babe'
const SECTOR_BYTES = 512
// Where key material may begin: behind the header, on a page of its own.
const FIRST_KEY_MATERIAL = 4096
const MAX_KEY_BYTES = 64
const KEY_SLOTS = 8
const FIRST_SLOT = 208
const SLOT_BYTES = 48
const SLOT_ACTIVE = 0x00ac71f3
const SLOT_DISABLED = 0x0000dead

/** Bytes that the key material of one slot takes, in whole sectors. */
export const keyMaterialBytes = (keyBytes: number): number =>
  Math.ceil((keyBytes * LUKS_STRIPES) / SECTOR_BYTES) * SECTOR_BYTES

/**
 * The header as checked values.
 *
 * @param bytes The first bytes of the encryption header, {@link LUKS_HEADER_BYTES} of them, or as many as there are.
 * @param place What error messages call the image, where in it the header is, and how many bytes it has with its key
 *   material.
 * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_LUKS_HEADER`
 * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNSUPPORTED_ENCRYPTION`
 */
export function parseLuksHeader(
  bytes: Uint8Array,
  place: { layer: string; hostOffset: number; length: number },
): LuksHeader {
  const factsAt = (field: string, at: number, actual: unknown): Qcow2ErrorFacts => ({
    layer: place.layer,
    hostOffset: place.hostOffset + at,
    field,
    actual,
  })
  const refuse = (field: string, at: number, actual: string | number, allowed: string): never => {
    throw new Qcow2FormatError(
      'ERR_QCOW2_BAD_LUKS_HEADER',
      `LUKS header field ${field} at host offset ${hex(place.hostOffset + at)}: found ${actual}, allowed is ${allowed}`,
      factsAt(field, at, actual),
    )
  }
  const unsupported = (field: string, at: number, actual: number, what: string): never => {
    throw new Qcow2UnsupportedError('ERR_QCOW2_UNSUPPORTED_ENCRYPTION', what, factsAt(field, at, actual))
  }

  if (bytes.length < LUKS_HEADER_BYTES) {
    refuse('magic', 0, `a header of ${bytes.length} bytes`, `at least ${LUKS_HEADER_BYTES}`)
  }
  const magic = Buffer.from(bytes.subarray(0, 6)).toString('hex')
  if (magic !== MAGIC) {
    refuse('magic', 0, magic, MAGIC)
  }
  const view = viewOf(bytes)
  // `slice` of a Buffer would share its memory.
  const copy = (at: number, length: number): Uint8Array => Uint8Array.from(bytes.subarray(at, at + length))
  const version = view.getUint16(6)
  if (version !== 1) {
    unsupported('version', 6, version, `the image is encrypted with LUKS version ${version}; version 1 is read`)
  }
  const name = (field: string, at: number): string => {
    const stored = bytes.subarray(at, at + 32)
    return stored.includes(0)
      ? decodeName(stored)
      : refuse(field, at, quoteText(decodeName(stored)), 'a name that ends')
  }
  const positive = (field: string, at: number): number => view.getUint32(at) || refuse(field, at, 0, '1 to 2^32 - 1')

  const payloadSector = view.getUint32(104)
  if (payloadSector === 0) {
    unsupported('payloadOffset', 104, 0, 'the image is encrypted with a detached LUKS header, which is not read')
  }
  const payloadOffset = payloadSector * SECTOR_BYTES
  if (payloadOffset < FIRST_KEY_MATERIAL) {
    refuse('payloadOffset', 104, payloadSector, `at least ${FIRST_KEY_MATERIAL / SECTOR_BYTES} sectors`)
  }
  const keyBytes = view.getUint32(108)
  if (keyBytes < 1 || keyBytes > MAX_KEY_BYTES) {
    refuse('keyBytes', 108, keyBytes, `1 to ${MAX_KEY_BYTES}`)
  }

  const materialBytes = keyMaterialBytes(keyBytes)
  // Material must end before the payload begins, and lie in what the image says its encryption header is.
  const materialEnd = Math.min(payloadOffset, place.length)
  const keySlots = Array.from({ length: KEY_SLOTS }, (_, index): LuksKeySlot => {
    const at = FIRST_SLOT + index * SLOT_BYTES
    const field = (of: string): string => `keySlots[${index}].${of}`
    const state = view.getUint32(at)
    if (state !== SLOT_ACTIVE && state !== SLOT_DISABLED) {
      refuse(field('active'), at, hex(state), `${hex(SLOT_ACTIVE)} or ${hex(SLOT_DISABLED)}`)
    }
    const isActive = state === SLOT_ACTIVE
    const iterations = isActive ? positive(field('iterations'), at + 4) : view.getUint32(at + 4)
    const stripes = view.getUint32(at + 44)
    if (stripes !== LUKS_STRIPES) {
      refuse(field('stripes'), at + 44, stripes, String(LUKS_STRIPES))
    }
    const keyMaterialOffset = view.getUint32(at + 40) * SECTOR_BYTES
    if (keyMaterialOffset < FIRST_KEY_MATERIAL || keyMaterialOffset + materialBytes > materialEnd) {
      const allowed = `${materialBytes} bytes between ${FIRST_KEY_MATERIAL} and ${materialEnd}`
      refuse(field('keyMaterialOffset'), at + 40, keyMaterialOffset, allowed)
    }
    return { index, isActive, iterations, salt: copy(at + 8, 32), keyMaterialOffset }
  })
  const inOrder = [...keySlots].sort((a, b) => a.keyMaterialOffset - b.keyMaterialOffset)
  inOrder.forEach(({ index, keyMaterialOffset }, i) => {
    const before = inOrder[i - 1]
    if (before !== undefined && keyMaterialOffset < before.keyMaterialOffset + materialBytes) {
      const at = FIRST_SLOT + index * SLOT_BYTES + 40
      const end = before.keyMaterialOffset + materialBytes
      refuse(`keySlots[${index}].keyMaterialOffset`, at, keyMaterialOffset, `${end} on, behind slot ${before.index}`)
    }
  })

  return {
    cipherName: name('cipherName', 8),
    cipherMode: name('cipherMode', 40),
    hashSpec: name('hashSpec', 72),
    keyBytes,
    mkDigest: copy(112, 20),
    mkDigestSalt: copy(132, 32),
    mkDigestIterations: positive('mkDigestIterations', 164),
    payloadOffset,
    uuid: decodeName(bytes.subarray(168, 208)),
    keySlots,
  }
}
