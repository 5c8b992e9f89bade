/**
 * The refcounts that an image records, by way of its refcount table and blocks.
 *
 * Knows what is recorded, not what is true. Invariant: the table is in memory, at most 8 MiB, and a bit for each cluster that
 * says whether its refcount is one; blocks are read when they are asked for. Spec: "Host cluster management".
 */
import type { Qcow2Header } from '../format/header.js'
import {
  decodeRefcounts,
  hasReservedRefcountTableBits,
  refcountBlockOffset,
  refcountsPerBlock,
} from '../format/refcounts.js'
import type { HostFile } from '../source/source.js'
import { readView } from './host-reader.js'
import { PagedFile } from './paged-file.js'
import type { Turns } from './turns.js'

// Refcounts that are read and looked at in one step.
const STEP_REFCOUNTS = 65536

// A file that was cut off refers to clusters past its end: what is recorded of so many of them is looked at (4 TiB at 64 KiB).
const MAX_CLUSTERS_PAST_END = 2 ** 26

/** Bytes of memory that the refcounts of a file with so many clusters take, beside the table. */
export const bytesForRefcounts = (clusters: number): number => Math.ceil((clusters + MAX_CLUSTERS_PAST_END) / 8)

/** Neighbouring refcounts. */
export interface RefcountStep {
  /** Host cluster of the first. */
  readonly first: number
  readonly count: number
  /** `count` of them; undefined if they cannot be known, as their block has an impossible offset. Used again by the next step. */
  readonly refcounts: Float64Array | undefined
}

export class RecordedRefcounts {
  /** Refcounts in a block. */
  readonly perBlock: number
  /** Entries of the refcount table. */
  readonly tableSize: number
  readonly #pages: PagedFile
  #singles = new Uint8Array(0)
  /** Clusters that {@link isSingle} knows of. */
  #known = 0

  private constructor(
    private readonly file: HostFile,
    private readonly header: Qcow2Header,
    private readonly table: DataView,
  ) {
    this.perBlock = refcountsPerBlock(2 ** header.clusterBits, header.refcountOrder)
    this.tableSize = table.byteLength / 8
    this.#pages = new PagedFile(file)
  }

  /** Reads the refcount table. */
  static async read(file: HostFile, header: Qcow2Header): Promise<RecordedRefcounts> {
    const length = header.refcountTableClusters * 2 ** header.clusterBits
    return new RecordedRefcounts(file, header, await readView(file, header.refcountTableOffset, length))
  }

  /** Host offset of a refcount block in bytes, as its entry in the table has it; 0 if there is none. */
  blockOffset(index: number): number {
    return index < this.tableSize
      ? refcountBlockOffset(this.table.getUint32(index * 8), this.table.getUint32(index * 8 + 4))
      : 0
  }

  /** Whether the entry has reserved bits set. */
  hasReservedBits(index: number): boolean {
    return hasReservedRefcountTableBits(this.table.getUint32(index * 8 + 4))
  }

  /** All refcounts of the host clusters 0 to `clusters` - 1, in steps that do not reach over blocks. */
  async *steps(clusters: number): AsyncGenerator<RefcountStep, void, undefined> {
    const { clusterBits, refcountOrder } = this.header
    const all = new Float64Array(Math.min(STEP_REFCOUNTS, this.perBlock))
    let isZero = false
    for (let first = 0; first < clusters;) {
      const index = Math.floor(first / this.perBlock)
      const inBlock = first % this.perBlock
      const count = Math.min(STEP_REFCOUNTS, this.perBlock - inBlock, clusters - first)
      const offset = this.blockOffset(index)
      const refcounts = all.subarray(0, count)
      if (offset % 2 ** clusterBits !== 0) {
        yield { first, count, refcounts: undefined }
      } else {
        if (offset === 0 || offset >= this.file.size) {
          if (!isZero) {
            all.fill(0)
          }
          isZero = true
        } else {
          const bits = 2 ** refcountOrder
          const bytes = await this.#pages.view(offset + (inBlock * bits) / 8, Math.ceil((count * bits) / 8))
          decodeRefcounts(bytes, refcountOrder, refcounts)
          isZero = false
        }
        yield { first, count, refcounts }
      }
      first += count
    }
  }

  /** Learns which refcounts are one: of `clusters`, and of many past them, if there are any blocks for those. */
  async learnSingles(clusters: number, turns: Turns): Promise<void> {
    let end = this.tableSize
    while (end > 0 && this.blockOffset(end - 1) === 0) {
      end--
    }
    this.#known = Math.max(clusters, Math.min(end * this.perBlock, clusters + MAX_CLUSTERS_PAST_END))
    this.#singles = new Uint8Array(Math.ceil(this.#known / 8))
    for await (const { first, count, refcounts } of this.steps(this.#known)) {
      await turns.step()
      for (let i = 0; i < count; i++) {
        if (refcounts?.[i] === 1) {
          this.#singles[(first + i) >>> 3]! |= 1 << ((first + i) & 7)
        }
      }
    }
  }

  /** Whether a host cluster's refcount is one; undefined if that is not known. */
  isSingle(cluster: number): boolean | undefined {
    // Asked for each entry of each table, and mostly true.
    if (cluster < this.#known && ((this.#singles[cluster >>> 3]! >>> (cluster & 7)) & 1) === 1) {
      return true
    }
    const offset = this.blockOffset(Math.floor(cluster / this.perBlock))
    if (offset % 2 ** this.header.clusterBits !== 0) {
      return undefined
    }
    return cluster < this.#known || offset === 0 ? false : undefined
  }
}
