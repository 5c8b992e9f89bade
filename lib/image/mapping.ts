/**
 * One qcow2 layer's mapping: guest ranges in, extents out, through its L1 table and cached L2 tables.
 *
 * Knows one layer, not what lies below it. Invariant: tables are read through the cache, a whole L2 table in one read,
 * and what lies past the end of its file is an error, not zeros (unless the caller salvages). Spec: "Cluster mapping".
 */
import { hex, Qcow2FormatError } from '../errors.js'
import { decodeL1Entry, decodeL2Entries, describesNoData, type Geometry } from '../format/entries.js'
import { ExtentList, sliceExtent, type LayerExtent } from '../format/extents.js'
import type { GuestRange, HostOffset } from '../format/units.js'
import type { HostFile } from '../source/source.js'
import type { LoadingCache } from './loading-cache.js'
import { DamageList, type SalvageFunction } from './salvage.js'
import { refusePastEnd } from './stored-bytes.js'

/** Tables of all layers of a chain, as views over their bytes. */
export type TableCache = LoadingCache<DataView>

/** An L1 table's place. */
export interface L1Table {
  readonly offset: HostOffset
  /** Entries. */
  readonly size: number
}

// An L1 table can be 32 MiB long; it is read and cached in pieces, so that a chain of such images stays small.
const L1_PIECE_ENTRIES = 8192

// Tables of nothing but zeros, and tables that cannot be read, that are remembered; an image of some megabytes has no more of
// either.
const MAX_REMEMBERED_TABLES = 65536

export class Mapping {
  /**
   * Offsets of L2 tables that describe no data. All entries of a large L1 table can point to one such table: what is an
   * empty disk must not take the time of a full one.
   */
  readonly #emptyTables = new Set<number>()
  /** Tables that could not be read, by key, if the caller salvages: each try of a failing disk takes seconds. */
  readonly #failedTables = new Map<string, unknown>()

  constructor(
    private readonly file: HostFile,
    private readonly dataFile: HostFile,
    private readonly geometry: Geometry,
    private readonly l1: L1Table,
    private readonly tables: TableCache,
    private readonly depth: number,
    private readonly salvage: SalvageFunction | undefined,
  ) {}

  /**
   * The first guest offset from `from` on and before `to` that an L2 table describes; infinite if there is none.
   *
   * @param skipsZeros Whether a table that is known to describe nothing but zeros counts as none.
   * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_L1_ENTRY`, `ERR_QCOW2_TRUNCATED`
   */
  async nextAllocated(from: number, to: number, skipsZeros: boolean): Promise<number> {
    const { l2Reach } = this.geometry
    const last = Math.min(this.l1.size, Math.ceil(to / l2Reach))
    for (let index = Math.floor(from / l2Reach); index < last;) {
      const piece = Math.floor(index / L1_PIECE_ENTRIES)
      const end = Math.min((piece + 1) * L1_PIECE_ENTRIES, last)
      try {
        const entries = this.#peekL1(piece) ?? (await this.#loadL1(piece))
        while (index < end && this.#isEmpty(this.#l2TableOffset(entries, index), skipsZeros)) {
          index++
        }
      } catch (error) {
        // Whoever salvages hears of it when the range is mapped.
        if (!this.#isDamage(error)) {
          throw error
        }
      }
      if (index < end) {
        return Math.max(from, index * l2Reach)
      }
    }
    return Infinity
  }

  /**
   * How this layer stores each of the ranges, which are in guest order; extents of neighbouring ranges may be merged.
   *
   * @param keepsRoom As {@link ExtentList} takes it.
   * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_L1_ENTRY`, `ERR_QCOW2_BAD_L2_ENTRY`, `ERR_QCOW2_TRUNCATED`
   * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
   */
  async map(ranges: readonly GuestRange[], keepsRoom = false): Promise<LayerExtent[]> {
    const out = new ExtentList(this.depth, keepsRoom)
    const damage = new DamageList(this.salvage)
    const { l2Reach } = this.geometry
    for (const { guestOffset, length } of ranges) {
      const end = guestOffset + length
      for (let from: number = guestOffset; from < end;) {
        const index = Math.floor(from / l2Reach)
        const to = Math.min(end, (index + 1) * l2Reach)
        try {
          const tableOffset = await this.#findL2(index)
          if (tableOffset === 0) {
            out.unallocated(from, to - from)
          } else {
            const table =
              this.tables.peek(this.#keyOf('L2', tableOffset, this.geometry.clusterSize)) ??
              (await this.#loadL2(tableOffset, index))
            this.#decode(table, tableOffset, index * l2Reach, from, to, out, damage)
          }
        } catch (error) {
          damage.add(from, to - from, error)
          out.zero(from, to - from)
        }
        from = to
      }
    }
    const extents = this.#checkEnd(out.extents, damage)
    await damage.report()
    return extents
  }

  /** Adds what a table says; whoever salvages gets zeros for each entry that is no good, and what the others say. */
  #decode(
    table: DataView,
    tableOffset: number,
    tableGuestOffset: number,
    from: number,
    to: number,
    out: ExtentList,
    damage: DamageList,
  ): void {
    const place = { layer: this.file.label, tableOffset }
    for (let at = from; at < to;) {
      try {
        decodeL2Entries(table, tableGuestOffset, at, to, this.geometry, place, out)
        at = to
      } catch (error) {
        // Everything before the cluster that it names has been added.
        const { guestOffset } = error as Qcow2FormatError
        const start = Math.max(at, guestOffset!)
        at = Math.min(to, guestOffset! + this.geometry.clusterSize)
        damage.add(start, at - start, error)
        out.zero(start, at - start)
      }
    }
  }

  #isEmpty(tableOffset: number, skipsZeros: boolean): boolean {
    return tableOffset === 0 || (skipsZeros && this.#emptyTables.has(tableOffset))
  }

  async #findL2(index: number): Promise<number> {
    if (index >= this.l1.size) {
      return 0
    }
    const piece = Math.floor(index / L1_PIECE_ENTRIES)
    return this.#l2TableOffset(this.#peekL1(piece) ?? (await this.#loadL1(piece)), index)
  }

  #l2TableOffset(entries: DataView, index: number): number {
    const at = (index % L1_PIECE_ENTRIES) * 8
    const hi = entries.getUint32(at)
    const lo = entries.getUint32(at + 4)
    if (hi === 0 && lo === 0) {
      return 0
    }
    return decodeL1Entry(hi, lo, index, this.geometry, { layer: this.file.label, tableOffset: this.l1.offset })
  }

  #peekL1(piece: number): DataView | undefined {
    return this.tables.peek(this.#keyOf('L1', ...this.#l1Place(piece)))
  }

  #loadL1(piece: number): Promise<DataView> {
    return this.#load('L1', ...this.#l1Place(piece), 'the L1 table')
  }

  async #loadL2(offset: number, index: number): Promise<DataView> {
    const table = await this.#load('L2', offset, this.geometry.clusterSize, `the L2 table of L1 entry ${index}`)
    if (this.#emptyTables.size < MAX_REMEMBERED_TABLES && describesNoData(table, this.geometry)) {
      this.#emptyTables.add(offset)
    }
    return table
  }

  #l1Place(piece: number): [offset: number, length: number] {
    const first = piece * L1_PIECE_ENTRIES
    return [this.l1.offset + first * 8, Math.min(L1_PIECE_ENTRIES, this.l1.size - first) * 8]
  }

  /** A hostile image can have tables of different kinds and lengths at one place. */
  #keyOf(kind: 'L1' | 'L2', offset: number, length: number): string {
    return `${this.file.id}:${kind}:${offset}:${length}`
  }

  #load(kind: 'L1' | 'L2', offset: number, length: number, what: string): Promise<DataView> {
    refusePastEnd(this.file, offset, length, what, what)
    const key = this.#keyOf(kind, offset, length)
    if (this.#failedTables.has(key)) {
      throw this.#failedTables.get(key)
    }
    return this.tables.load(key, async () => {
      const bytes = new Uint8Array(length)
      try {
        await this.file.read(bytes, offset)
      } catch (error) {
        if (this.#failedTables.size < MAX_REMEMBERED_TABLES && this.#isDamage(error)) {
          this.#failedTables.set(key, error)
        }
        throw error
      }
      return new DataView(bytes.buffer)
    })
  }

  /** Whether the reading can go on after the error: a server that is not there now may be there later. */
  #isDamage(error: unknown): boolean {
    return new DamageList(this.salvage).accepts(error)
  }

  /** A cluster wholly past the end is a truncated image; the last one may be cut short and is padded with zeros. */
  #checkEnd(extents: LayerExtent[], damage: DamageList): LayerExtent[] {
    const { clusterSize } = this.geometry
    const end = Math.ceil(this.dataFile.size / clusterSize) * clusterSize
    if (extents.every((extent) => this.#isInside(extent, end))) {
      return extents
    }
    const out = new ExtentList(this.depth)
    const missing = (guest: number, length: number, host: number, hostLength: number): void => {
      damage.add(guest, length, this.#missingCluster(host, guest, hostLength))
      out.zero(guest, length)
    }
    for (const extent of extents) {
      const { kind, guestOffset, length } = extent
      if (this.#isInside(extent, end)) {
        out.add(extent)
      } else if (kind === 'data') {
        const there = Math.max(0, end - extent.hostOffset)
        if (there > 0) {
          out.add(sliceExtent(extent, guestOffset, there))
        }
        missing(guestOffset + there, length - there, extent.hostOffset + there, clusterSize)
      } else if (kind === 'compressed') {
        extent.hostOffsets.forEach((host, i) => {
          const cluster = extent.clusterGuestOffset + i * clusterSize
          const from = Math.max(cluster, guestOffset)
          const part = Math.min(cluster + clusterSize, guestOffset + length) - from
          if (host < this.dataFile.size) {
            out.add(sliceExtent(extent, from, part))
          } else {
            missing(from, part, host, extent.hostLengths[i]!)
          }
        })
      }
    }
    return out.extents
  }

  /** Whether no cluster of the extent lies wholly past the end; whole clusters reach up to `end`. */
  #isInside(extent: LayerExtent, end: number): boolean {
    switch (extent.kind) {
      case 'data':
        return extent.hostOffset + extent.length <= end
      case 'compressed':
        return extent.hostOffsets.every((offset) => offset < this.dataFile.size)
      default:
        return true
    }
  }

  #missingCluster(hostOffset: number, guestOffset: number, length: number): Qcow2FormatError {
    return new Qcow2FormatError(
      'ERR_QCOW2_TRUNCATED',
      `the cluster of guest offset ${hex(guestOffset)} at host offset ${hex(hostOffset)}, ${length} bytes, ` +
        `lies past the end of the file (${this.dataFile.size} bytes)`,
      { layer: this.dataFile.label, hostOffset, guestOffset, field: 'cluster', actual: this.dataFile.size },
    )
  }
}
