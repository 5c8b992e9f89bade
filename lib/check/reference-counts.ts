/**
 * How often each cluster of an image file is used: one number per host cluster, as wide as the image's own refcounts.
 *
 * Knows places, not who refers to them. Invariant: memory is bounded by the file's length, whatever its header claims: 1 byte per
 * cluster for refcounts of up to 8 bits, 2 for 16, 4 for more, and a bit that marks metadata.
 */
import { hex } from '../errors.js'
import { maxRefcount } from '../format/refcounts.js'
import type { Findings } from './findings.js'

const MAX_UINT32 = 2 ** 32 - 1

const countBytes = (refcountOrder: number): 1 | 2 | 4 => (refcountOrder <= 3 ? 1 : refcountOrder === 4 ? 2 : 4)

// A compressed cluster may reach into the one behind the last.
const clustersOf = (fileSize: number, clusterSize: number): number => Math.ceil(fileSize / clusterSize) + 1

/** Bytes of memory that counting takes for a file of `fileSize` bytes. */
export function bytesToCount(fileSize: number, clusterSize: number, refcountOrder: number): number {
  const clusters = clustersOf(fileSize, clusterSize)
  return clusters * countBytes(refcountOrder) + Math.ceil(clusters / 8)
}

export class ReferenceCounts {
  /** What is counted to, and no further: what a refcount of the image can hold, but at most 2^32 - 1. */
  readonly ceiling: number
  readonly #counts: Uint8Array | Uint16Array | Uint32Array
  readonly #metadata: Uint8Array

  /**
   * @param fileSize Bytes.
   * @param clusterSize Bytes.
   */
  constructor(
    private readonly fileSize: number,
    private readonly clusterSize: number,
    private readonly refcountOrder: number,
    private readonly findings: Findings,
  ) {
    const clusters = clustersOf(fileSize, clusterSize)
    const Counts = ({ 1: Uint8Array, 2: Uint16Array, 4: Uint32Array } as const)[countBytes(refcountOrder)]
    this.#counts = new Counts(clusters)
    this.#metadata = new Uint8Array(Math.ceil(clusters / 8))
    this.ceiling = Math.min(maxRefcount(refcountOrder), MAX_UINT32)
  }

  /** Host clusters to look at: those of the file, and the one behind it if something reaches into it. */
  get clusters(): number {
    const inFile = this.#counts.length - 1
    return this.#counts[inFile]! > 0 ? inFile + 1 : inFile
  }

  /** Uses of a host cluster that {@link clusters} counts in. */
  get(cluster: number): number {
    return this.#counts[cluster]!
  }

  /** Whether a host cluster was marked as metadata. */
  isMetadata(cluster: number): boolean {
    return ((this.#metadata[cluster >>> 3]! >>> (cluster & 7)) & 1) === 1
  }

  /**
   * Whether what ends at a host offset, in bytes, can be counted. The last cluster of a file may be cut short; what ends a cluster or
   * more behind the file is counted nowhere.
   */
  reaches(end: number): boolean {
    return end - this.fileSize < this.clusterSize
  }

  /**
   * Counts `times` uses of each cluster that a range touches.
   *
   * @param offset Host offset of the range in bytes, which is not empty.
   * @returns Whether it was counted: see {@link reaches}.
   */
  add(offset: number, length: number, times: number): boolean {
    if (!this.reaches(offset + length)) {
      return false
    }
    this.#count(Math.floor(offset / this.clusterSize), Math.ceil((offset + length) / this.clusterSize), times)
    return true
  }

  /**
   * As {@link add}, for a structure of the image itself, which shares its clusters with nothing; what cannot be counted is found.
   *
   * @param what The structure, in the message.
   */
  addMetadata(offset: number, length: number, times: number, what: string): void {
    if (this.reaches(offset + length)) {
      this.addMetadataClusters(
        Math.floor(offset / this.clusterSize),
        Math.ceil((offset + length) / this.clusterSize),
        times,
      )
    } else {
      this.findings.corruption(
        times,
        offset,
        () =>
          `${what} at host offset ${hex(offset)}, ${length} bytes, ends past the end of the file (${this.fileSize} bytes)`,
      )
    }
  }

  /** As {@link addMetadata}, for the host clusters `first` to `end` - 1, of which it is known that they can be counted. */
  addMetadataClusters(first: number, end: number, times: number): void {
    this.#count(first, end, times)
    for (let cluster = first; cluster < end; cluster++) {
      this.#metadata[cluster >>> 3]! |= 1 << (cluster & 7)
    }
  }

  #count(first: number, end: number, times: number): void {
    for (let cluster = first; cluster < end; cluster++) {
      const count = this.#counts[cluster]! + times
      this.#counts[cluster] = count <= this.ceiling ? count : this.#overflow(cluster, count)
    }
  }

  #overflow(cluster: number, count: number): number {
    // A refcount of 64 bits can hold more than is counted here: whoever compares says so.
    if (this.refcountOrder < 6) {
      const width = 2 ** this.refcountOrder
      this.findings.corruption(
        count - this.ceiling,
        cluster * this.clusterSize,
        () =>
          `host cluster at ${hex(cluster * this.clusterSize)}: more uses than a refcount of ${width} bits can count`,
      )
    }
    return this.ceiling
  }
}
