/**
 * One layer of a chain: a qcow2 image or a raw disk, mapped in its own terms.
 *
 * Knows its own file and data file, not what lies above or below. Invariant: `map` tiles the ranges it is given.
 */
import type { CompressionType } from '../decode/decoder.js'
import { geometryOf } from '../format/entries.js'
import type { LayerExtent } from '../format/extents.js'
import type { Qcow2Snapshot } from '../format/snapshots.js'
import { hostOffset, type GuestRange } from '../format/units.js'
import type { HostFile } from '../source/source.js'
import type { LayerEncryption } from './encryption.js'
import { Mapping, type TableCache } from './mapping.js'
import type { Metadata } from './metadata.js'
import type { SalvageFunction } from './salvage.js'

/** What a chain needs of a layer. */
export interface Layer {
  readonly format: 'qcow2' | 'raw'
  readonly file: HostFile
  /** What it says about itself; undefined if it is raw. */
  readonly metadata: Metadata | undefined
  /** Where its data extents are; the file itself unless the image has an external data file. */
  readonly dataFile: HostFile
  /** Bytes. */
  readonly virtualSize: number
  /** No extent that ends inside the layer's disk is shorter than this, in bytes. */
  readonly granularity: number
  readonly compression: CompressionType
  /** How its data extents are encrypted (compressed ones never are); undefined if they are not. */
  readonly encryption: LayerEncryption | undefined
  /**
   * First guest offset from `from` on and before `to` that the layer may say something about; infinite if none.
   *
   * @param skipsZeros Whether zeros count as nothing.
   */
  nextAllocated(from: number, to: number, skipsZeros: boolean): Promise<number>
  /**
   * How the layer stores the ranges, which are in guest order and inside its disk.
   *
   * @param keepsRoom Whether extents tell where room is kept for what is not stored.
   */
  map(ranges: readonly GuestRange[], keepsRoom: boolean): Promise<LayerExtent[]>
}

/** A layer in qcow2, as it is now or as it was in a snapshot. */
export function qcow2Layer(
  file: HostFile,
  dataFile: HostFile,
  metadata: Metadata,
  snapshot: Qcow2Snapshot | undefined,
  encryption: LayerEncryption | undefined,
  tables: TableCache,
  depth: number,
  salvage: SalvageFunction | undefined,
): Layer {
  const { header } = metadata
  const geometry = geometryOf(header)
  const l1 =
    snapshot === undefined
      ? { offset: header.l1TableOffset, size: header.l1Size }
      : { offset: snapshot.l1TableOffset, size: snapshot.l1Size }
  const mapping = new Mapping(file, dataFile, geometry, l1, tables, depth, salvage)
  return {
    format: 'qcow2',
    file,
    metadata,
    dataFile,
    virtualSize: snapshot?.virtualSize ?? header.size,
    granularity: geometry.hasExtendedL2 ? geometry.clusterSize / 32 : geometry.clusterSize,
    compression: header.compressionType === 1 ? 'zstd' : 'zlib',
    encryption,
    nextAllocated: (from, to, skipsZeros) => mapping.nextAllocated(from, to, skipsZeros),
    map: (ranges, keepsRoom) => mapping.map(ranges, keepsRoom),
  }
}

/** A layer that is its file, byte by byte. */
export function rawLayer(file: HostFile, depth: number): Layer {
  return {
    format: 'raw',
    file,
    metadata: undefined,
    dataFile: file,
    virtualSize: file.size,
    granularity: Infinity,
    compression: 'zlib',
    encryption: undefined,
    nextAllocated: (from) => Promise.resolve(from),
    map: (ranges) =>
      Promise.resolve(
        ranges.map(({ guestOffset, length }) => ({
          kind: 'data',
          depth,
          guestOffset,
          length,
          hostOffset: hostOffset(guestOffset),
        })),
      ),
  }
}
