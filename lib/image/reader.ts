/**
 * The only way from extents to bytes: reads what is stored, decodes what is compressed, fills in zeros.
 *
 * Knows a chain's files, not how extents were found. Invariant: when `fill` has settled nothing writes to its target
 * any more, and every byte of it was written.
 */
import { RANGE_WORDS, type BatchFailure } from '../decode/batch.js'
import type { Decoding } from '../decode/decoding.js'
import { assertNever, hex, Qcow2FormatError } from '../errors.js'
import { sliceExtent, type CompressedExtent, type LayerExtent } from '../format/extents.js'
import type { Layer } from './layer.js'
import { LoadingCache } from './loading-cache.js'

// Clusters of which only a part was asked for: the next read often wants another part.
const CLUSTER_CACHE_BYTES = 8 * 2 ** 20
// Compressed clusters are read together if what lies between them on the host is no longer than this, nor than a cluster.
const MAX_GAP_BYTES = 65536

// What is decoded at once, as much as a run has, and what is read at once by those who ask for more.
const BATCH_BYTES = 2 * 2 ** 20
const PIECE_BYTES = 8 * 2 ** 20

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

  /** Whole clusters are decoded into the target; of the first and last only a part may be wanted. */
  #readCompressed(extent: CompressedExtent, target: Uint8Array): Promise<void>[] {
    const { clusterSize } = extent
    const count = extent.hostOffsets.length
    const skip = extent.guestOffset - extent.clusterGuestOffset
    const from = skip > 0 ? 1 : 0
    const to = Math.max(from, Math.floor((skip + target.length) / clusterSize))
    const reads: Promise<void>[] = []
    if (skip > 0) {
      reads.push(this.#copyCluster(extent, 0, skip, target.subarray(0, clusterSize - skip)))
    }
    const perBatch = Math.max(1, Math.floor(BATCH_BYTES / clusterSize))
    for (let first = from; first < to; first += perBatch) {
      const end = Math.min(first + perBatch, to)
      const whole = target.subarray(first * clusterSize - skip, end * clusterSize - skip)
      reads.push(this.#decodeClusters(extent, first, end, whole))
    }
    if (to < count) {
      reads.push(this.#copyCluster(extent, to, 0, target.subarray(to * clusterSize - skip)))
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

  /** Decodes clusters `from` to `to` of the extent into `target`, which they fill. */
  async #decodeClusters(extent: CompressedExtent, from: number, to: number, target: Uint8Array): Promise<void> {
    const { dataFile, compression } = this.layers[extent.depth]!
    const { clusterSize } = extent
    const { spans, storedLength, ranges } = hostSpans(extent, from, to, dataFile.size)
    const failure = await this.decoding.decode({ compression, clusterSize, storedLength, ranges, target }, (stored) =>
      allSettled(spans.map(({ host, at, length }) => dataFile.read(stored.subarray(at, at + length), host))),
    )
    if (failure !== undefined) {
      throw clusterError(extent, from, failure, dataFile.label)
    }
  }
}

/** Waits for all, as what they write to may be used again afterwards, and then throws the first failure. */
async function allSettled(reads: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(reads)) {
    if (result.status === 'rejected') {
      throw result.reason
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

/** Bytes of the host that are read at once, and where they go in the memory for all of them. */
interface HostSpan {
  readonly host: number
  readonly at: number
  length: number
}

/**
 * What to read for clusters `from` to `to`, and where in it each of them is. Writers store clusters in the order in which
 * they were compressed, which need not be the guest's.
 */
function hostSpans(
  { hostOffsets, hostLengths, clusterSize }: CompressedExtent,
  from: number,
  to: number,
  fileSize: number,
): { spans: HostSpan[]; storedLength: number; ranges: Uint32Array } {
  const order = Uint32Array.from({ length: to - from }, (_, i) => from + i)
  order.sort((a, b) => hostOffsets[a]! - hostOffsets[b]!)
  const maxGap = Math.min(MAX_GAP_BYTES, clusterSize)
  const ranges = new Uint32Array(RANGE_WORDS * order.length)
  const spans: HostSpan[] = []
  let storedLength = 0
  for (const index of order) {
    const host = hostOffsets[index]!
    // The last sector may reach past the end of the file; what is there is decoded.
    const length = Math.min(hostLengths[index]!, fileSize - host)
    let span = spans[spans.length - 1]
    if (span === undefined || host > span.host + span.length + maxGap) {
      span = { host, at: storedLength, length: 0 }
      spans.push(span)
    }
    span.length = Math.max(span.length, host + length - span.host)
    storedLength = span.at + span.length
    ranges.set([span.at + host - span.host, length], RANGE_WORDS * (index - from))
  }
  return { spans, storedLength, ranges }
}
