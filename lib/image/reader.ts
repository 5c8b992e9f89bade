/**
 * The only way from extents to bytes: reads what is stored, decodes what is compressed, fills in zeros.
 *
 * Knows a chain's files, not how extents were found. Invariant: when `fill` has settled nothing writes to its target
 * any more, and every byte of it was written.
 */
import type { BatchFailure } from '../decode/batch.js'
import type { Decoding } from '../decode/decoding.js'
import { assertNever, hex, Qcow2FormatError } from '../errors.js'
import type { CompressedExtent, LayerExtent } from '../format/extents.js'
import type { Layer } from './layer.js'
import { LoadingCache } from './loading-cache.js'

// Clusters of which only a part was asked for: the next read often wants another part.
const CLUSTER_CACHE_BYTES = 8 * 2 ** 20
// Compressed clusters are read together if what lies between them on the host is no longer than this, nor than a cluster.
const MAX_GAP_BYTES = 65536

export class Reader {
  readonly #clusters = new LoadingCache<Uint8Array>(CLUSTER_CACHE_BYTES)

  constructor(
    private readonly layers: readonly Layer[],
    private readonly decoding: Decoding,
  ) {}

  /**
   * Fills `target` with the guest's bytes from `guestOffset` on; `extents` tile exactly that range.
   *
   * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_COMPRESSED_CLUSTER`
   * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
   */
  async fill(extents: readonly LayerExtent[], target: Uint8Array, guestOffset: number): Promise<void> {
    const reads: Promise<void>[] = []
    for (const extent of extents) {
      const at = extent.guestOffset - guestOffset
      const part = target.subarray(at, at + extent.length)
      switch (extent.kind) {
        case 'zero':
        case 'unallocated':
          part.fill(0)
          break
        case 'data':
          reads.push(this.layers[extent.depth]!.dataFile.read(part, extent.hostOffset))
          break
        case 'compressed':
          reads.push(...this.#readCompressed(extent, part))
          break
        /* c8 ignore next 2 */
        default:
          assertNever(extent)
      }
    }
    // All must have ended before the caller may use, or reuse, the target.
    for (const result of await Promise.allSettled(reads)) {
      if (result.status === 'rejected') {
        throw result.reason
      }
    }
  }

  #readCompressed(extent: CompressedExtent, target: Uint8Array): Promise<void>[] {
    const { clusterSize } = extent
    const firstSkip = extent.guestOffset - extent.clusterGuestOffset
    const reads: Promise<void>[] = []
    for (const { from, to } of neighbours(extent, target.length)) {
      const start = from * clusterSize - firstSkip
      const end = to * clusterSize - firstSkip
      if (to - from === 1 && (start < 0 || end > target.length)) {
        const skip = Math.max(0, -start)
        const part = target.subarray(Math.max(0, start), end)
        reads.push(this.#copyCluster(extent, from, skip, part))
      } else {
        reads.push(this.#decodeClusters(extent, from, to, target.subarray(start, end)))
      }
    }
    return reads
  }

  async #copyCluster(extent: CompressedExtent, index: number, skip: number, target: Uint8Array): Promise<void> {
    const { dataFile } = this.layers[extent.depth]!
    const key = `${dataFile.id}:${extent.hostOffsets[index]}:${extent.hostLengths[index]}`
    let cluster = this.#clusters.peek(key)
    cluster ??= await this.#clusters.load(key, async () => {
      const decoded = new Uint8Array(extent.clusterSize)
      await this.#decodeClusters(extent, index, index + 1, decoded)
      return decoded
    })
    target.set(cluster.subarray(skip, skip + target.length))
  }

  /** Reads clusters `from` to `to` of the extent in one read and decodes them into `target`, which they fill. */
  async #decodeClusters(extent: CompressedExtent, from: number, to: number, target: Uint8Array): Promise<void> {
    const { dataFile, compression } = this.layers[extent.depth]!
    const { hostOffsets, hostLengths, clusterSize } = extent
    const start = hostOffsets[from]!
    // The last sector may reach past the end of the file; what is there is decoded.
    const length = Math.min(hostOffsets[to - 1]! + hostLengths[to - 1]!, dataFile.size) - start
    const ranges = new Uint32Array(2 * (to - from))
    for (let i = from; i < to; i++) {
      ranges[2 * (i - from)] = hostOffsets[i]! - start
      ranges[2 * (i - from) + 1] = Math.min(hostLengths[i]!, start + length - hostOffsets[i]!)
    }
    const memory = this.decoding.memory.take(length)
    try {
      const stored = memory.subarray(0, length)
      await dataFile.read(stored, start)
      const failure = await this.decoding.decode({ compression, clusterSize, stored, ranges, target })
      if (failure !== undefined) {
        throw clusterError(extent, from, failure, dataFile.label)
      }
    } finally {
      this.decoding.memory.give(memory)
    }
  }
}

function clusterError(extent: CompressedExtent, from: number, failure: BatchFailure, layer: string): Qcow2FormatError {
  const index = from + failure.cluster
  const guestOffset = extent.clusterGuestOffset + index * extent.clusterSize
  const hostOffset = extent.hostOffsets[index]!
  return new Qcow2FormatError(
    'ERR_QCOW2_BAD_COMPRESSED_CLUSTER',
    `the compressed cluster of guest offset ${hex(guestOffset)} at host offset ${hex(hostOffset)}, ` +
      `up to ${extent.hostLengths[index]} bytes: ${failure.reason}`,
    { layer, hostOffset, guestOffset, field: 'compressed cluster' },
  )
}

/**
 * Splits an extent's clusters into groups that follow each other closely on the host, each to be read at once. A
 * cluster of which only a part is wanted stands alone.
 */
function* neighbours(extent: CompressedExtent, length: number): Generator<{ from: number; to: number }> {
  const { hostOffsets, hostLengths, clusterSize } = extent
  const count = hostOffsets.length
  const skip = extent.guestOffset - extent.clusterGuestOffset
  const isPartial = (i: number): boolean => i * clusterSize < skip || (i + 1) * clusterSize > skip + length
  let from = 0
  for (let i = 1; i <= count; i++) {
    const previousEnd = hostOffsets[i - 1]! + hostLengths[i - 1]!
    const isNeighbour =
      i < count &&
      hostOffsets[i]! >= hostOffsets[i - 1]! &&
      hostOffsets[i]! + hostLengths[i]! >= previousEnd &&
      hostOffsets[i]! <= previousEnd + Math.min(MAX_GAP_BYTES, clusterSize) &&
      !isPartial(i - 1) &&
      !isPartial(i)
    if (!isNeighbour) {
      yield { from, to: i }
      from = i
    }
  }
}
