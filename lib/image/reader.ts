/**
 * The only way from extents to bytes: reads what is stored, decodes what is compressed, fills in zeros.
 *
 * Knows a chain's files, not how extents were found. Invariant: when `fill` has settled nothing writes to its target
 * any more, and every byte of it was written: as zeros, if the caller salvages and it cannot be read.
 */
import type { Decoding } from '../decode/decoding.js'
import { assertNever } from '../errors.js'
import { sliceExtent, type CompressedExtent, type DataExtent, type LayerExtent } from '../format/extents.js'
import { ClusterList } from './cluster-list.js'
import type { Layer } from './layer.js'
import { LoadingCache } from './loading-cache.js'
import { DamageList, type SalvageFunction } from './salvage.js'
import { SectorList } from './sector-list.js'
import { readSectors } from './sector-reader.js'
import { allSettled, readStored } from './stored-bytes.js'

// Clusters of which only a part was asked for: the next read often wants another part.
const CLUSTER_CACHE_BYTES = 8 * 2 ** 20

// What is decoded at once, as much as a run has, and what is read at once by those who ask for more.
const BATCH_BYTES = 4 * 2 ** 20
const PIECE_BYTES = 8 * 2 ** 20

export class Reader {
  readonly #clusters = new LoadingCache<Uint8Array>(CLUSTER_CACHE_BYTES)

  constructor(
    private readonly layers: readonly Layer[],
    private readonly decoding: Decoding,
    private readonly salvage: SalvageFunction | undefined,
  ) {}

  /**
   * Fills `target` with the guest's bytes from `guestOffset` on; `extents` tile exactly that range.
   *
   * @param isWanted Asked while much is tried again to salvage it; once it says no, what failed first ends the call.
   * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_COMPRESSED_CLUSTER`
   * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
   */
  async fill(
    extents: readonly LayerExtent[],
    target: Uint8Array,
    guestOffset: number,
    isWanted: () => boolean = () => true,
  ): Promise<void> {
    const reads: Promise<void>[] = []
    // What is compressed is decoded together, whatever lies between: by layer, as each has its own files and cluster size.
    const lists = new Map<number, ClusterList>()
    // And so is what is encrypted decrypted.
    const encrypted = new Map<number, SectorList>()
    for (const extent of extents) {
      const at = extent.guestOffset - guestOffset
      const part = target.subarray(at, at + extent.length)
      switch (extent.kind) {
        case 'zero':
        case 'unallocated':
          part.fill(0)
          break
        case 'data':
          if (!this.#addEncrypted(extent, at, encrypted)) {
            reads.push(this.#readPlain(extent, part, isWanted))
          }
          break
        case 'compressed':
          this.#addCompressed(extent, target, at, lists, reads, isWanted)
          break
        /* c8 ignore next 2 */
        default:
          assertNever(extent)
      }
    }
    for (const [depth, list] of lists) {
      reads.push(this.#decodeClusters(depth, list, target, isWanted))
    }
    for (const [depth, list] of encrypted) {
      const damage = new DamageList(this.salvage)
      reads.push(readSectors(this.layers[depth]!, list, this.decoding, { target, guestOffset }, damage, isWanted))
    }
    await allSettled(reads)
  }

  /** As {@link fill}, for ranges of any length: works through them in pieces, so that memory stays bounded. */
  async read(extents: readonly LayerExtent[], target: Uint8Array, guestOffset: number): Promise<void> {
    let piece: LayerExtent[] = []
    let start = guestOffset
    for (const extent of extents) {
      const end = extent.guestOffset + extent.length
      for (let at: number = extent.guestOffset; at < end;) {
        // Pieces end at multiples of their size, which are multiples of every cluster size.
        const pieceEnd = (Math.floor(start / PIECE_BYTES) + 1) * PIECE_BYTES
        const cut = Math.min(end, pieceEnd)
        piece.push(sliceExtent(extent, at, cut - at))
        at = cut
        if (cut === pieceEnd) {
          await this.fill(piece, target.subarray(start - guestOffset, cut - guestOffset), start)
          piece = []
          start = cut
        }
      }
    }
    await this.fill(piece, target.subarray(start - guestOffset), start)
  }

  async #readPlain(extent: DataExtent, target: Uint8Array, isWanted: () => boolean): Promise<void> {
    const damage = new DamageList(this.salvage)
    await readStored(this.layers[extent.depth]!.dataFile, extent, target, damage, isWanted)
    await damage.report()
  }

  /** Whether the extent is encrypted, and hence listed. */
  #addEncrypted(extent: DataExtent, at: number, lists: Map<number, SectorList>): boolean {
    const { encryption } = this.layers[extent.depth]!
    if (encryption === undefined) {
      return false
    }
    let list = lists.get(extent.depth)
    if (list === undefined) {
      list = new SectorList(encryption.method)
      lists.set(extent.depth, list)
    }
    list.add(extent, at)
    return true
  }

  /** A list for what will be found damaged, if the caller salvages and this can be. @throws The error, if not */
  #damageAfter(error: unknown): DamageList {
    const damage = new DamageList(this.salvage)
    if (!damage.accepts(error)) {
      throw error
    }
    return damage
  }

  /** Lists the clusters of an extent that begins `at` the target; of the first and the last only a part may be wanted. */
  #addCompressed(
    extent: CompressedExtent,
    target: Uint8Array,
    at: number,
    lists: Map<number, ClusterList>,
    reads: Promise<void>[],
    isWanted: () => boolean,
  ): void {
    const { clusterSize, depth } = extent
    const skip = extent.guestOffset - extent.clusterGuestOffset
    const end = at + extent.length
    for (let index = 0; index < extent.hostOffsets.length; index++) {
      const clusterAt = at - skip + index * clusterSize
      const [from, to] = [Math.max(at, clusterAt), Math.min(end, clusterAt + clusterSize)]
      if (to - from < clusterSize) {
        reads.push(this.#copyCluster(extent, index, from - clusterAt, target.subarray(from, to)))
        continue
      }
      let list = lists.get(depth)
      if (list === undefined || (list.length + 1) * clusterSize > BATCH_BYTES) {
        if (list !== undefined) {
          reads.push(this.#decodeClusters(depth, list, target, isWanted))
        }
        list = new ClusterList(clusterSize)
        lists.set(depth, list)
      }
      list.add(extent, index, clusterAt)
    }
  }

  async #copyCluster(extent: CompressedExtent, index: number, skip: number, target: Uint8Array): Promise<void> {
    const { dataFile } = this.layers[extent.depth]!
    const key = `${dataFile.id}:${extent.hostOffsets[index]}:${extent.hostLengths[index]}`
    try {
      let cluster = this.#clusters.peek(key)
      cluster ??= await this.#clusters.load(key, async () => {
        const decoded = new Uint8Array(extent.clusterSize)
        const list = new ClusterList(extent.clusterSize)
        list.add(extent, index, 0)
        await this.#decode(extent.depth, list, decoded)
        return decoded
      })
      target.set(cluster.subarray(skip, skip + target.length))
    } catch (error) {
      const damage = this.#damageAfter(error)
      damage.add(extent.clusterGuestOffset + index * extent.clusterSize + skip, target.length, error)
      target.fill(0)
      await damage.report()
    }
  }

  /** Decodes clusters of the layer into the target; one by one, if one of them fails and the caller salvages. */
  async #decodeClusters(depth: number, list: ClusterList, target: Uint8Array, isWanted: () => boolean): Promise<void> {
    try {
      await this.#decode(depth, list, target, isWanted)
    } catch (error) {
      const damage = this.#damageAfter(error)
      for (const { guestOffset, targetOffset, alone } of list.clusters()) {
        if (!isWanted()) {
          throw error
        }
        try {
          await this.#decode(depth, alone, target, isWanted)
        } catch (failure) {
          damage.add(guestOffset, list.clusterSize, failure)
          target.fill(0, targetOffset, targetOffset + list.clusterSize)
        }
      }
      await damage.report()
    }
  }

  async #decode(depth: number, list: ClusterList, target: Uint8Array, isWanted?: () => boolean): Promise<void> {
    const { dataFile, compression } = this.layers[depth]!
    const { clusterSize } = list
    const { spans, storedLength, places } = list.plan(dataFile.size)
    const read = (stored: Uint8Array): Promise<void> =>
      allSettled(spans.map(({ hostOffset, at, length }) => dataFile.read(stored.subarray(at, at + length), hostOffset)))
    const clusters = { compression, clusterSize, storedLength, places, target }
    const failure = await this.decoding.decode(clusters, read, isWanted)
    if (failure !== undefined) {
      throw list.errorOf(failure, dataFile.label)
    }
  }
}
