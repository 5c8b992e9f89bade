/**
 * The header extensions, between the header and the backing file's name in the first cluster.
 *
 * Knows each extension's layout, not what it is used for. Invariant: no length leads outside the bytes given, and
 * extensions of an unknown type are kept as they are. Spec: "Header extensions".
 */
import { hex, Qcow2FormatError } from '../errors.js'
import type { FeatureName } from './features.js'
import type { Qcow2Header } from './header.js'
import { HIGH_HALF, viewOf } from './units.js'

/** Where the persistent bitmaps are. Spec: "Bitmaps extension". */
export interface BitmapsExtension {
  readonly nbBitmaps: number
  /** Bytes. */
  readonly bitmapDirectorySize: number
  /** Host offset in bytes. */
  readonly bitmapDirectoryOffset: number
}

/** Where the encryption header is. Spec: "Full disk encryption header pointer". */
export interface CryptoHeaderPointer {
  /** Host offset in bytes. */
  readonly offset: number
  /** Bytes. */
  readonly length: number
}

/** An extension of a type this package does not know. */
export interface UnknownExtension {
  readonly type: number
  /** Its bytes; a copy that the caller may keep. */
  readonly data: Uint8Array
}

/** What the extensions say; absent ones are undefined. */
export interface HeaderExtensions {
  /** Format of the backing file, as stored. Spec: "String header extensions". */
  readonly backingFormat: string | undefined
  /** Name of the external data file, as stored. */
  readonly dataFileName: string | undefined
  readonly featureNames: readonly FeatureName[]
  /** Undefined also if the image does not vouch for them: they are inconsistent then. */
  readonly bitmaps: BitmapsExtension | undefined
  readonly cryptoHeader: CryptoHeaderPointer | undefined
  readonly unknown: readonly UnknownExtension[]
}

const END = 0
const BACKING_FORMAT = 0xe2792aca
const FEATURE_NAMES = 0x6803f857
const BITMAPS = 0x23852875
const CRYPTO_HEADER = 0x0537be77
const DATA_FILE_NAME = 0x44415441

const FEATURE_NAME_BYTES = 48
// QEMU has room for so many bytes of either.
const MAX_FORMAT_BYTES = 15
const MAX_DATA_FILE_NAME_BYTES = 1023
const MAX_BITMAPS = 65535
// There is a handful of types; each one that is not known is kept, and warned of.
const MAX_EXTENSIONS = 256
const MASKS = ['incompatible', 'compatible', 'autoclear'] as const

/**
 * The extensions of a header.
 *
 * @param firstCluster The image's first cluster, or as much of it as the file has.
 * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_EXTENSION`
 */
export function parseExtensions(firstCluster: Uint8Array, header: Qcow2Header, layer: string): HeaderExtensions {
  const areaEnd = header.backingFileOffset === 0 ? 2 ** header.clusterBits : header.backingFileOffset
  const end = Math.min(areaEnd, firstCluster.length)
  const view = viewOf(firstCluster)
  const seen = new Set<number>()
  const found: { -readonly [K in keyof HeaderExtensions]: HeaderExtensions[K] } & { unknown: UnknownExtension[] } = {
    backingFormat: undefined,
    dataFileName: undefined,
    featureNames: [],
    bitmaps: undefined,
    cryptoHeader: undefined,
    unknown: [],
  }

  let at = header.headerLength
  let count = 0
  while (at < end) {
    if (at + 8 > end) {
      throw new Qcow2FormatError(
        'ERR_QCOW2_BAD_EXTENSION',
        `header extensions: found ${end - at} bytes at host offset ${hex(at)}, allowed are none or at least 8 before ${hex(end)}`,
        { layer, hostOffset: at, field: 'header extensions', actual: end - at },
      )
    }
    const type = view.getUint32(at)
    const length = view.getUint32(at + 4)
    const where = at
    const refuse = (actual: string | number, allowed: string): never => {
      throw new Qcow2FormatError(
        'ERR_QCOW2_BAD_EXTENSION',
        `header extension ${hex(type)} at host offset ${hex(where)}: found ${actual}, allowed is ${allowed}`,
        { layer, hostOffset: where, field: `extension ${hex(type)}`, actual },
      )
    }
    if (length > end - at - 8) {
      refuse(`a length of ${length} bytes`, `up to ${end - at - 8}, what is left before host offset ${hex(end)}`)
    }
    if (type === END) {
      break
    }
    if (++count > MAX_EXTENSIONS) {
      refuse('one more', `${MAX_EXTENSIONS} of them`)
    }
    const data = firstCluster.subarray(at + 8, at + 8 + length)
    const once = (): void => {
      if (seen.has(type)) {
        refuse('a second one of this type', 'one')
      }
      seen.add(type)
    }
    switch (type) {
      case BACKING_FORMAT:
      case DATA_FILE_NAME: {
        once()
        const most = type === BACKING_FORMAT ? MAX_FORMAT_BYTES : MAX_DATA_FILE_NAME_BYTES
        if (length > most) {
          refuse(`a length of ${length} bytes`, `up to ${most}`)
        }
        found[type === BACKING_FORMAT ? 'backingFormat' : 'dataFileName'] = decodeName(data)
        break
      }
      case FEATURE_NAMES:
        once()
        found.featureNames = parseFeatureNames(data)
        break
      case BITMAPS:
        once()
        if (length !== 24) {
          refuse(`a length of ${length} bytes`, '24')
        }
        found.bitmaps = header.features.hasConsistentBitmaps
          ? bitmaps(data, 2 ** header.clusterBits, refuse)
          : undefined
        break
      case CRYPTO_HEADER:
        once()
        if (length !== 16) {
          refuse(`a length of ${length} bytes`, '16')
        }
        if (header.cryptMethod !== 2) {
          refuse(`crypt method ${header.cryptMethod}`, '2 (LUKS)')
        }
        found.cryptoHeader = {
          offset: uint64('the offset', data, 0, refuse),
          length: uint64('the length', data, 8, refuse),
        }
        if (found.cryptoHeader.offset % 2 ** header.clusterBits !== 0) {
          refuse(
            `a header at ${hex(found.cryptoHeader.offset)}`,
            `multiples of the cluster size ${2 ** header.clusterBits}`,
          )
        }
        break
      default:
        found.unknown.push({ type, data: Uint8Array.from(data) })
    }
    // Each extension is padded to a multiple of 8 bytes; the padding of the last one may be cut.
    at += 8 + Math.ceil(length / 8) * 8
  }
  return found
}

type Refuse = (actual: string | number, allowed: string) => never

function bitmaps(data: Uint8Array, clusterSize: number, refuse: Refuse): BitmapsExtension {
  const view = viewOf(data)
  const nbBitmaps = view.getUint32(0)
  if (nbBitmaps === 0 || nbBitmaps > MAX_BITMAPS) {
    refuse(`${nbBitmaps} bitmaps`, `1 to ${MAX_BITMAPS}`)
  }
  if (view.getUint32(4) !== 0) {
    refuse(`reserved bytes ${hex(view.getUint32(4))}`, '0')
  }
  const bitmapDirectoryOffset = uint64('the offset of the bitmap directory', data, 16, refuse)
  if (bitmapDirectoryOffset % clusterSize !== 0) {
    refuse(`a bitmap directory at ${hex(bitmapDirectoryOffset)}`, `multiples of the cluster size ${clusterSize}`)
  }
  return {
    nbBitmaps,
    bitmapDirectorySize: uint64('the size of the bitmap directory', data, 8, refuse),
    bitmapDirectoryOffset,
  }
}

function uint64(what: string, data: Uint8Array, at: number, refuse: Refuse): number {
  const view = viewOf(data)
  const value = view.getUint32(at) * HIGH_HALF + view.getUint32(at + 4)
  return value <= Number.MAX_SAFE_INTEGER ? value : refuse(`${what} ${hex(view.getBigUint64(at))}`, 'up to 2^53 - 1')
}

/** A name from the image as text: UTF-8 up to the first NUL, with U+FFFD where the bytes are not UTF-8. */
export function decodeName(bytes: Uint8Array): string {
  const nul = bytes.indexOf(0)
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(nul === -1 ? bytes : bytes.subarray(0, nul))
}

function parseFeatureNames(table: Uint8Array): FeatureName[] {
  const names: FeatureName[] = []
  for (let at = 0; at + FEATURE_NAME_BYTES <= table.length; at += FEATURE_NAME_BYTES) {
    const mask = MASKS[table[at]!]
    const bit = table[at + 1]!
    if (mask !== undefined && bit < 64) {
      names.push({ mask, bit, name: decodeName(table.subarray(at + 2, at + FEATURE_NAME_BYTES)) })
    }
  }
  return names
}
