/**
 * Checks an image: counts what uses each host cluster, and compares that with the refcounts.
 *
 * Knows the order of things, not how each is done. Invariant: memory is bounded by the length of the file and refused before it is
 * taken, and each byte of the file is read a few times at most. Spec: "Host cluster management", "Cluster mapping".
 */
import { Qcow2UnsupportedError } from '../errors.js'
import { geometryOf } from '../format/entries.js'
import type { HeaderExtensions } from '../format/extensions.js'
import type { Qcow2Header } from '../format/header.js'
import type { Qcow2Snapshot } from '../format/snapshots.js'
import type { HostFile } from '../source/source.js'
import { countBitmaps } from './bitmaps.js'
import type { CheckedImage } from './checked-image.js'
import { Findings, type Qcow2CheckFinding } from './findings.js'
import { countL1Tables } from './l1-tables.js'
import { countL2Tables } from './l2-tables.js'
import { Turns } from './turns.js'
import { bytesForRefcounts, RecordedRefcounts } from './recorded-refcounts.js'
import { compareRefcounts, countRefcountBlocks } from './refcount-blocks.js'
import { bytesToCount, ReferenceCounts } from './reference-counts.js'

/** What a check has found. The counts mean what those of `qemu-img check --output=json` mean. */
export interface Qcow2CheckResult {
  /** Clusters of the active disk. */
  readonly totalClusters: number
  /** Those of them that the image itself (or its data file) stores; zeros that have a place are stored. */
  readonly allocatedClusters: number
  /** Those of them that do not lie behind the one before them, and all that are compressed. */
  readonly fragmentedClusters: number
  /** Those of them that are compressed. */
  readonly compressedClusters: number
  /** Host offset behind the last cluster that is used, or has a refcount, in bytes. */
  readonly imageEndOffset: number
  /** Clusters whose refcount is greater than the number of their uses: lost space, and no harm. */
  readonly leaks: number
  /** Contradictions that can cost data once somebody writes. */
  readonly corruptions: number
  /** What could not be checked. */
  readonly checkErrors: number
  /** The first 1000 of what was found. What several L1 tables share is listed once, and counted once for each. */
  readonly findings: readonly Qcow2CheckFinding[]
  /** Everything that was found: leaks, corruptions and errors. */
  readonly findingCount: number
}

/** What of an open image is checked. */
export interface CheckInput {
  readonly file: HostFile
  readonly header: Qcow2Header
  readonly extensions: HeaderExtensions
  readonly snapshots: readonly Qcow2Snapshot[]
}

// Version 3 has at least the size of the machine's state and that of the disk.
const MIN_EXTRA_DATA_BYTES = 16

/**
 * The verdict on an image.
 *
 * @param memoryBytes Most bytes that counts may take.
 * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNSUPPORTED_SIZE`
 * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
 * @throws The signal's reason, once it is aborted
 */
export async function checkImage(
  input: CheckInput,
  memoryBytes: number,
  signal: AbortSignal | undefined,
): Promise<Qcow2CheckResult> {
  const { file, header, extensions } = input
  const clusterSize = 2 ** header.clusterBits
  const turns = new Turns(signal)
  await turns.step()
  const fixedBytes =
    bytesToCount(file.size, clusterSize, header.refcountOrder) + bytesForRefcounts(Math.ceil(file.size / clusterSize))
  const take = (tableBytes: number): void => refuseMemory(fixedBytes + tableBytes, memoryBytes, file)
  take(0)

  const findings = new Findings()
  const counts = new ReferenceCounts(file.size, clusterSize, header.refcountOrder, findings)
  const recorded = await RecordedRefcounts.read(file, header)
  await recorded.learnSingles(counts.clusters + 1, turns)
  const image: CheckedImage = { ...input, geometry: geometryOf(header), findings, counts, recorded, turns }

  counts.addMetadata(0, clusterSize, 1, 'the header')
  const tables = await countL1Tables(image, take)
  const totals = await countL2Tables(image, tables)
  countSnapshotTable(image)
  counts.addMetadata(header.refcountTableOffset, recorded.tableSize * 8, 1, 'the refcount table')
  const { cryptoHeader } = extensions
  if (cryptoHeader !== undefined && cryptoHeader.length > 0) {
    counts.addMetadata(cryptoHeader.offset, cryptoHeader.length, 1, 'the encryption header')
  }
  await countBitmaps(image)
  await countRefcountBlocks(image)
  const imageEndOffset = await compareRefcounts(image, tables)
  const { leaks, corruptions, checkErrors } = findings
  return {
    totalClusters: Math.ceil(header.size / clusterSize),
    allocatedClusters: totals.allocated,
    fragmentedClusters: totals.fragmented,
    compressedClusters: totals.compressed,
    imageEndOffset,
    leaks,
    corruptions,
    checkErrors,
    findings: findings.list,
    findingCount: leaks + corruptions + checkErrors,
  }
}

function countSnapshotTable({ header, snapshots, counts, findings }: CheckedImage): void {
  if (snapshots.length === 0) {
    return
  }
  const { snapshotsOffset, version, features } = header
  if (features.hasExternalDataFile) {
    findings.corruption(1, snapshotsOffset, () => 'internal snapshots in an image with an external data file')
  }
  let at: number = snapshotsOffset
  for (const [index, { tableEntrySize, extraDataSize }] of snapshots.entries()) {
    if (version === 3 && extraDataSize < MIN_EXTRA_DATA_BYTES) {
      const offset = at
      findings.corruption(1, offset, () => `snapshot table entry ${index}: its extra data is incomplete`)
    }
    at += tableEntrySize
  }
  counts.addMetadata(snapshotsOffset, at - snapshotsOffset, 1, 'the snapshot table')
}

function refuseMemory(bytes: number, memoryBytes: number, { label, size }: HostFile): void {
  if (bytes > memoryBytes) {
    throw new Qcow2UnsupportedError(
      'ERR_QCOW2_UNSUPPORTED_SIZE',
      `checking a file of ${size} bytes takes ${bytes} bytes of memory; the option memoryBytes allows ${memoryBytes}`,
      { layer: label, field: 'memoryBytes', actual: bytes },
    )
  }
}
