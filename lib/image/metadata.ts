/**
 * What stands in an image file beside its tables: header, extensions, names, snapshots.
 *
 * Knows the file, not what it refers to. Invariant: reads the first cluster and the snapshot table, nothing else, and
 * never more than 2 MiB and what a snapshot table may have. Spec: "Header", "Header extensions", "Snapshots".
 */
import { hex, Qcow2FormatError, quoteText } from '../errors.js'
import { decodeName, parseExtensions, type HeaderExtensions } from '../format/extensions.js'
import { refuseUnknownFeatures } from '../format/features.js'
import { parseHeader, type Qcow2Header } from '../format/header.js'
import { parseSnapshots, type Qcow2Snapshot } from '../format/snapshots.js'
import type { HostFile } from '../source/source.js'

/** Something odd that does not keep an image from being read. */
export interface Qcow2Warning {
  /** Stable, for programs. */
  readonly code:
    | 'WARN_QCOW2_DIRTY'
    | 'WARN_QCOW2_CORRUPT'
    | 'WARN_QCOW2_UNKNOWN_EXTENSION'
    | 'WARN_QCOW2_INCONSISTENT_BITMAPS'
    | 'WARN_QCOW2_BACKING_FORMAT_PROBED'
    | 'WARN_QCOW2_LEGACY_ENCRYPTION'
    | 'WARN_QCOW2_NO_RANGES'
  /** One line, safe to print. */
  readonly message: string
  /** Path (or description) of the file it is about. */
  readonly layer: string
}

/** What one image file says about itself. */
export interface Metadata {
  readonly header: Qcow2Header
  readonly extensions: HeaderExtensions
  readonly snapshots: readonly Qcow2Snapshot[]
  /** Name of the backing file as stored; undefined if there is none. */
  readonly backingFile: string | undefined
  readonly warnings: readonly Qcow2Warning[]
}

const FIRST_READ_BYTES = 65536

/**
 * Reads and checks it all.
 *
 * @param snapshotTableBytes The longest snapshot table that is read.
 * @throws {Qcow2FormatError} the codes of `parseHeader`, `parseExtensions` and `parseSnapshots`
 * @throws {Qcow2UnsupportedError} those of `parseHeader`, and `ERR_QCOW2_UNKNOWN_FEATURE`
 * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
 */
export async function readMetadata(file: HostFile, snapshotTableBytes: number): Promise<Metadata> {
  let start = await readUpTo(file, 0, FIRST_READ_BYTES)
  const header = parseHeader(start, file.label)
  const clusterSize = 2 ** header.clusterBits
  if (clusterSize > start.length && file.size > start.length) {
    start = await readUpTo(file, 0, clusterSize)
  }
  const firstCluster = start.subarray(0, clusterSize)
  const extensions = parseExtensions(firstCluster, header, file.label)
  refuseUnknownFeatures(header.incompatibleFeatures, extensions.featureNames, file.label)
  const backingFile = readBackingName(firstCluster, header, file.label)
  const snapshots = await readSnapshots(file, header, snapshotTableBytes)
  return { header, extensions, snapshots, backingFile, warnings: warningsOf(header, extensions, file.label) }
}

function readBackingName(firstCluster: Uint8Array, header: Qcow2Header, layer: string): string | undefined {
  const end = header.backingFileOffset + header.backingFileSize
  if (end > firstCluster.length) {
    throw new Qcow2FormatError('ERR_QCOW2_TRUNCATED', `the file ends before the backing file's name does`, {
      layer,
      hostOffset: header.backingFileOffset,
    })
  }
  const name = decodeName(firstCluster.subarray(header.backingFileOffset, end))
  return name === '' ? undefined : name
}

async function readSnapshots(file: HostFile, header: Qcow2Header, mostBytes: number): Promise<Qcow2Snapshot[]> {
  if (header.nbSnapshots === 0) {
    return []
  }
  // The table's length follows only from its entries: read some, and more as long as they go on.
  let length = Math.min(FIRST_READ_BYTES, mostBytes)
  let table = await readUpTo(file, header.snapshotsOffset, length)
  let snapshots = parseSnapshots(table, header, file.label)
  while (snapshots === undefined && table.length === length && length < mostBytes) {
    length = Math.min(length * 4, mostBytes)
    table = await readUpTo(file, header.snapshotsOffset, length)
    snapshots = parseSnapshots(table, header, file.label)
  }
  if (snapshots === undefined) {
    const isCut = table.length < length
    throw new Qcow2FormatError(
      isCut ? 'ERR_QCOW2_TRUNCATED' : 'ERR_QCOW2_BAD_SNAPSHOT_TABLE',
      `the snapshot table at host offset ${hex(header.snapshotsOffset)}, ${header.nbSnapshots} entries, ` +
        (isCut ? 'goes on past the end of the file' : `is longer than ${mostBytes} bytes`),
      { layer: file.label, hostOffset: header.snapshotsOffset, field: 'snapshotsOffset', actual: file.size },
    )
  }
  return snapshots
}

async function readUpTo(file: HostFile, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(Math.max(0, Math.min(length, file.size - offset)))
  await file.read(bytes, offset)
  return bytes
}

function warningsOf(header: Qcow2Header, extensions: HeaderExtensions, layer: string): Qcow2Warning[] {
  const warnings: Qcow2Warning[] = []
  const warn = (code: Qcow2Warning['code'], message: string): void => {
    warnings.push({ code, message: `${quoteText(layer, 300)}: ${message}`, layer })
  }
  if (header.features.isDirty) {
    warn(
      'WARN_QCOW2_DIRTY',
      'the image was not closed properly; its refcounts may be out of date (reading is not affected)',
    )
  }
  if (header.features.isCorrupt) {
    warn('WARN_QCOW2_CORRUPT', 'the image is marked corrupt: whoever wrote it last found damage in it')
  }
  if (header.features.hasConsistentBitmaps && extensions.bitmaps === undefined) {
    warn('WARN_QCOW2_INCONSISTENT_BITMAPS', 'the header says that bitmaps are consistent, but there are none')
  }
  if (header.cryptMethod === 1) {
    warn(
      'WARN_QCOW2_LEGACY_ENCRYPTION',
      'the image is encrypted in the old way (AES), which cannot tell a wrong passphrase: that gives garbage',
    )
  }
  for (const { type } of extensions.unknown) {
    warn('WARN_QCOW2_UNKNOWN_EXTENSION', `header extension ${hex(type)} is not known and ignored`)
  }
  return warnings
}
