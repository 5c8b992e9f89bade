/**
 * The header: bytes 0 to `headerLength` of the image, as numbers that have been checked one by one.
 *
 * Knows nothing of the file's length nor of what tables hold. Invariant: what `parseHeader` returns can be computed with;
 * every size is bounded and every table offset sits on a cluster boundary. Spec: "Header".
 */
import { hex, Qcow2FormatError, Qcow2UnsupportedError } from '../errors.js'
import { decodeFeatures, type Features } from './features.js'
import { HIGH_HALF, hostOffset, viewOf, type HostOffset } from './units.js'

/** The fixed fields, by the specification's names; offsets and sizes are in bytes. Spec: "Header". */
export interface Qcow2Header {
  readonly version: 2 | 3
  /** Where the backing file's name stands; 0 if there is none. */
  readonly backingFileOffset: HostOffset
  /** Length of that name in bytes, 0 .. 1023. */
  readonly backingFileSize: number
  /** The cluster size is 2^`clusterBits`; 9 .. 21. */
  readonly clusterBits: number
  /** Virtual size of the active disk. */
  readonly size: number
  /** 0 none, 1 AES, 2 LUKS. */
  readonly cryptMethod: 0 | 1 | 2
  /** Entries in the active L1 table. */
  readonly l1Size: number
  readonly l1TableOffset: HostOffset
  readonly refcountTableOffset: HostOffset
  readonly refcountTableClusters: number
  /** Internal snapshots, 0 .. 65536. */
  readonly nbSnapshots: number
  readonly snapshotsOffset: HostOffset
  /** Bit masks as stored; version 2 has none set. */
  readonly incompatibleFeatures: bigint
  readonly compatibleFeatures: bigint
  readonly autoclearFeatures: bigint
  /** A refcount is 2^`refcountOrder` bits wide; 0 .. 6. */
  readonly refcountOrder: number
  readonly headerLength: number
  /** How compressed clusters are compressed: 0 zlib, 1 zstd; other values are kept for the one who refuses them. */
  readonly compressionType: number
  /** The three masks as facts. */
  readonly features: Features
}

const MAGIC = 0x514649fb
const VERSION_2_LENGTH = 72
const VERSION_3_LENGTH = 104
const MAX_L1_BYTES = 32 * 2 ** 20
const MAX_REFCOUNT_TABLE_BYTES = 8 * 2 ** 20
const MAX_SNAPSHOTS = 65536
const MAX_NAME_BYTES = 1023

/** Whether the bytes begin as every version of qcow2 does. */
export const hasQcow2Magic = (bytes: Uint8Array): boolean => bytes.length >= 4 && viewOf(bytes).getUint32(0) === MAGIC

/**
 * The header as checked numbers.
 *
 * @param bytes The first bytes of the image, 105 of them (more are ignored) or as many as the file has.
 * @param layer What error messages call the image.
 * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_MAGIC`, `ERR_QCOW2_BAD_HEADER`, `ERR_QCOW2_TRUNCATED`
 * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNSUPPORTED_VERSION`, `ERR_QCOW2_UNSUPPORTED_SIZE`
 */
export function parseHeader(bytes: Uint8Array, layer: string): Qcow2Header {
  const view = viewOf(bytes)
  if (!hasQcow2Magic(bytes)) {
    const found = bytes.length === 0 ? 'it is empty' : 'it does not begin with "QFI\\xfb"'
    throw new Qcow2FormatError('ERR_QCOW2_BAD_MAGIC', `not a qcow2 image: ${found}`, { layer, hostOffset: 0 })
  }
  const needs = (length: number): void => {
    if (bytes.length < length) {
      throw new Qcow2FormatError(
        'ERR_QCOW2_TRUNCATED',
        `the file ends inside the header: found ${bytes.length} bytes, needed ${length}`,
        { layer, hostOffset: bytes.length },
      )
    }
  }
  needs(8)
  const version = view.getUint32(4)
  if (version !== 2 && version !== 3) {
    throw new Qcow2UnsupportedError('ERR_QCOW2_UNSUPPORTED_VERSION', `qcow version ${version}; 2 and 3 are read`, {
      layer,
      hostOffset: 4,
      field: 'version',
      actual: version,
    })
  }
  needs(version === 2 ? VERSION_2_LENGTH : VERSION_3_LENGTH)

  const refuse = (field: string, at: number, actual: string | number, allowed: string): never => {
    throw new Qcow2FormatError(
      'ERR_QCOW2_BAD_HEADER',
      `header field ${field} at host offset ${hex(at)}: found ${actual}, allowed is ${allowed}`,
      { layer, hostOffset: at, field, actual },
    )
  }
  const uint64 = (field: string, at: number): number => {
    const value = view.getUint32(at) * HIGH_HALF + view.getUint32(at + 4)
    if (value > Number.MAX_SAFE_INTEGER) {
      throw new Qcow2UnsupportedError(
        'ERR_QCOW2_UNSUPPORTED_SIZE',
        `header field ${field} at host offset ${hex(at)}: found ${hex(view.getBigUint64(at))}, supported is up to 2^53 - 1`,
        { layer, hostOffset: at, field, actual: view.getBigUint64(at) },
      )
    }
    return value
  }
  const within = (field: string, at: number, value: number, low: number, high: number, what = ''): number =>
    value >= low && value <= high ? value : refuse(field, at, value, `${low} to ${high}${what}`)

  const clusterBits = within('clusterBits', 20, view.getUint32(20), 9, 21)
  const clusterSize = 2 ** clusterBits
  const tableOffset = (field: string, at: number): HostOffset => {
    const value = uint64(field, at)
    return hostOffset(
      value % clusterSize === 0
        ? value
        : refuse(field, at, hex(value), `a multiple of the cluster size ${clusterSize}`),
    )
  }

  const has3 = version === 3
  const incompatibleFeatures = has3 ? view.getBigUint64(72) : 0n
  const compatibleFeatures = has3 ? view.getBigUint64(80) : 0n
  const autoclearFeatures = has3 ? view.getBigUint64(88) : 0n
  const features = decodeFeatures(incompatibleFeatures, compatibleFeatures, autoclearFeatures)

  const headerLength = has3
    ? within('headerLength', 100, view.getUint32(100), VERSION_3_LENGTH, clusterSize, ' (the cluster size)')
    : VERSION_2_LENGTH
  if (headerLength % 8 !== 0) {
    refuse('headerLength', 100, headerLength, 'a multiple of 8')
  }
  if (headerLength > 104) {
    needs(105)
  }
  const compressionType = headerLength > 104 ? view.getUint8(104) : 0
  if (features.hasCompressionType && compressionType === 0) {
    refuse('compressionType', 104, 0, 'another value, as incompatible feature bit 3 (compression type) is set')
  }
  if (!features.hasCompressionType && compressionType !== 0) {
    refuse('compressionType', 104, compressionType, '0, as incompatible feature bit 3 (compression type) is not set')
  }
  if (features.hasExtendedL2 && clusterBits < 14) {
    refuse('clusterBits', 20, clusterBits, '14 to 21, as the image has extended L2 entries')
  }
  if (features.isExternalDataFileRaw && !features.hasExternalDataFile) {
    refuse('autoclearFeatures', 88, hex(autoclearFeatures), 'bit 1 (raw external data) only with an external data file')
  }

  const backingFileOffset = hostOffset(uint64('backingFileOffset', 8))
  const backingFileSize =
    backingFileOffset === 0 ? 0 : within('backingFileSize', 16, view.getUint32(16), 0, MAX_NAME_BYTES)
  if (backingFileOffset !== 0) {
    if (backingFileOffset < headerLength || backingFileOffset + backingFileSize > clusterSize) {
      const allowed = `between the end of the header and the end of the first cluster (${headerLength} to ${clusterSize})`
      refuse('backingFileOffset', 8, `${backingFileOffset} for ${backingFileSize} bytes`, allowed)
    }
    if (features.isExternalDataFileRaw && backingFileSize > 0) {
      refuse('backingFileOffset', 8, backingFileOffset, '0, as the image has a raw external data file')
    }
  }

  const size = uint64('size', 24)
  const cryptMethod = view.getUint32(32)
  if (cryptMethod !== 0 && cryptMethod !== 1 && cryptMethod !== 2) {
    return refuse('cryptMethod', 32, cryptMethod, '0 to 2')
  }
  const l1Size = within('l1Size', 36, view.getUint32(36), 0, MAX_L1_BYTES / 8)
  const l1TableOffset = tableOffset('l1TableOffset', 40)
  const l1Needed = Math.ceil(size / l1Reach(clusterSize, features.hasExtendedL2))
  if (l1Size < l1Needed) {
    refuse('l1Size', 36, l1Size, `at least ${l1Needed} for a disk of ${size} bytes`)
  }
  if (l1TableOffset === 0 && l1Needed > 0) {
    refuse('l1TableOffset', 40, 0, 'a cluster after the header')
  }
  const refcountTableOffset = tableOffset('refcountTableOffset', 48)
  const maxRefcountClusters = MAX_REFCOUNT_TABLE_BYTES / clusterSize
  const refcountTableClusters = within('refcountTableClusters', 56, view.getUint32(56), 1, maxRefcountClusters)
  const nbSnapshots = within('nbSnapshots', 60, view.getUint32(60), 0, MAX_SNAPSHOTS)
  const snapshotsOffset = tableOffset('snapshotsOffset', 64)
  const refcountOrder = has3 ? within('refcountOrder', 96, view.getUint32(96), 0, 6) : 4

  return {
    version,
    backingFileOffset,
    backingFileSize,
    clusterBits,
    size,
    cryptMethod,
    l1Size,
    l1TableOffset,
    refcountTableOffset,
    refcountTableClusters,
    nbSnapshots,
    snapshotsOffset,
    incompatibleFeatures,
    compatibleFeatures,
    autoclearFeatures,
    refcountOrder,
    headerLength,
    compressionType,
    features,
  }
}

/** Bytes of the virtual disk that one L1 entry covers. Spec: "Cluster mapping". */
export const l1Reach = (clusterSize: number, hasExtendedL2: boolean): number =>
  clusterSize * (clusterSize / (hasExtendedL2 ? 16 : 8))
