/**
 * An open image: what it says about itself, its guest bytes at random, its extents.
 *
 * Knows a chain and a reader, and neither tables nor files. Invariant: nothing is read after `close`, and `close`
 * closes everything that opening opened.
 */
import { checkImage, type Qcow2CheckResult } from '../check/check.js'
import { defaultThreads } from '../decode/default-threads.js'
import type { HeaderExtensions } from '../format/extensions.js'
import type { Qcow2Header } from '../format/header.js'
import type { Qcow2Snapshot } from '../format/snapshots.js'
import type { Qcow2Input } from '../source/open-source.js'
import { checkOptionsOf, type Qcow2CheckOptions } from './check-options.js'
import { Disk } from './disk.js'
import { mergeExtents, type Qcow2Extent } from './extents.js'
import { chainInfo, type Qcow2FileInfo, type RawFileInfo } from './info.js'
import type { Qcow2Warning } from './metadata.js'
import { openChain } from './open-chain.js'
import { badOption, checkOffset, type Qcow2OpenOptions } from './options.js'
import { findHoles } from './preallocation.js'

const MAX_THREADS = 64

/** One file of a backing chain. */
export interface Qcow2ChainLink {
  /** Its path, or a description where it has none. */
  readonly file: string
  readonly format: 'qcow2' | 'raw'
  /** Bytes of the disk in it. */
  readonly virtualSize: number
  /** Path (or description) of its external data file; undefined if it has none. */
  readonly dataFile: string | undefined
  /** How its data is encrypted; undefined if it is not. */
  readonly encryption: 'luks' | 'aes' | undefined
}

/** The disk behind an image, for the rooms above. */
export let diskOf: (image: Qcow2Image) => Disk

/** A qcow2 image, open for reading; safe for concurrent calls. */
export class Qcow2Image implements AsyncDisposable {
  readonly #disk: Disk

  private constructor(disk: Disk) {
    this.#disk = disk
  }

  static {
    diskOf = (image) => image.#disk
  }

  /**
   * Opens an image and, as far as `references` allows, what it refers to.
   *
   * @param input A path, a `file:`, `http:` or `https:` URL, the image's bytes (they must not change), a `Blob` or `File`, a
   *   `FileHandle` (stays open), a source of the caller's own (closed with the image) or a stream (copied first).
   * @throws {Qcow2FormatError} if the image is malformed: `ERR_QCOW2_BAD_MAGIC`, `ERR_QCOW2_BAD_HEADER`,
   *   `ERR_QCOW2_BAD_EXTENSION`, `ERR_QCOW2_BAD_LUKS_HEADER`, `ERR_QCOW2_BAD_SNAPSHOT_TABLE`, `ERR_QCOW2_BAD_REFERENCE_NAME`, `ERR_QCOW2_TRUNCATED`,
   *   `ERR_QCOW2_BACKING_LOOP`, `ERR_QCOW2_CHAIN_TOO_DEEP`
   * @throws {Qcow2UnsupportedError} the `ERR_QCOW2_UNSUPPORTED_...` codes, `ERR_QCOW2_UNKNOWN_FEATURE` and
   *   `ERR_QCOW2_UNLOCKING_TOO_COSTLY`
   * @throws {Qcow2AccessError} `ERR_QCOW2_REFERENCE_REFUSED`, `ERR_QCOW2_WRONG_PASSPHRASE`
   * @throws {Qcow2SourceError} `ERR_QCOW2_OPEN_FAILED`, `ERR_QCOW2_NOT_A_FILE`, `ERR_QCOW2_READ_FAILED`,
   *   `ERR_QCOW2_REQUEST_FAILED`, `ERR_QCOW2_SOURCE_CHANGED`, `ERR_QCOW2_SPOOL_FAILED`
   * @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT`, `ERR_QCOW2_SNAPSHOT_NOT_FOUND`, `ERR_QCOW2_DATA_FILE_REQUIRED`
   */
  static async open(input: Qcow2Input, options: Qcow2OpenOptions = {}): Promise<Qcow2Image> {
    const { threads, salvage } = options
    if (threads !== undefined && (!Number.isInteger(threads) || threads < 0 || threads > MAX_THREADS)) {
      throw badOption('threads', threads, `an integer from 0 to ${MAX_THREADS}`)
    }
    const opened = await openChain(input, options)
    return new Qcow2Image(new Disk(opened, threads ?? defaultThreads(opened.files), salvage))
  }

  /** Size of the disk that is read (the snapshot's, if one was chosen), in bytes; any integer from 0 on. */
  get virtualSize(): number {
    return this.#disk.virtualSize
  }

  /** Cluster size of the image itself in bytes: a power of two, 512 to 2 MiB. Spec: "Header", cluster_bits. */
  get clusterSize(): number {
    return 2 ** this.header.clusterBits
  }

  /** The image's header, by the specification's names. Spec: "Header". */
  get header(): Qcow2Header {
    return this.#disk.opened.metadata.header
  }

  /** What the image's header extensions say. Spec: "Header extensions". */
  get extensions(): HeaderExtensions {
    return this.#disk.opened.metadata.extensions
  }

  /** The internal snapshots, in the image's order. Spec: "Snapshots". */
  get snapshots(): readonly Qcow2Snapshot[] {
    return this.#disk.opened.metadata.snapshots
  }

  /** The snapshot that is read; undefined if it is the active disk. */
  get snapshot(): Qcow2Snapshot | undefined {
    return this.#disk.opened.snapshot
  }

  /** What was odd about the image or its chain, yet did not keep it from being read. */
  get warnings(): readonly Qcow2Warning[] {
    return this.#disk.opened.warnings
  }

  /** The files that were opened, from the image itself down. */
  get backingChain(): readonly Qcow2ChainLink[] {
    return this.#disk.chain.layers.map(({ file, dataFile, format, virtualSize, encryption }) => ({
      file: file.label,
      format,
      virtualSize,
      dataFile: dataFile === file ? undefined : dataFile.label,
      encryption: encryption?.method,
    }))
  }

  /** Name of the backing file as the image stores it; undefined if it has none. Text of whoever made the image. */
  get backingFile(): string | undefined {
    return this.#disk.opened.metadata.backingFile
  }

  /** Name of the external data file as the image stores it; undefined if it has none. */
  get dataFile(): string | undefined {
    return this.#disk.opened.metadata.extensions.dataFileName
  }

  /**
   * Reads guest bytes from `guestOffset` on into `target` and resolves to how many: `target.length`, fewer only at the
   * end of the disk, 0 past it. Any alignment; unallocated bytes are written as zeros. Spec: "Cluster mapping".
   *
   * @param guestOffset Bytes, an integer from 0 to 2^53 - 1.
   * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_L1_ENTRY`, `ERR_QCOW2_BAD_L2_ENTRY`, `ERR_QCOW2_BAD_COMPRESSED_CLUSTER`,
   *   `ERR_QCOW2_TRUNCATED`; what `target` holds then is undefined
   * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
   * @throws {Qcow2AccessError} `ERR_QCOW2_REFERENCE_REFUSED` if `references: 'none'` kept a file closed,
   *   `ERR_QCOW2_PASSPHRASE_REQUIRED` if a layer is encrypted and there was no passphrase
   * @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT`, `ERR_QCOW2_CLOSED`
   */
  async read(target: Uint8Array, guestOffset: number): Promise<number> {
    if (!(target instanceof Uint8Array)) {
      throw badOption('target', target, 'a Uint8Array')
    }
    checkOffset('guestOffset', guestOffset)
    const length = Math.max(0, Math.min(target.length, this.virtualSize - guestOffset))
    return this.#disk.use(async (disk) => {
      const { chain, reader } = disk.readable()
      for await (const extents of chain.map(guestOffset, guestOffset + length, { mergesZeros: true })) {
        const first = extents[0]!
        const last = extents[extents.length - 1]!
        const part = target.subarray(first.guestOffset - guestOffset, last.guestOffset + last.length - guestOffset)
        await reader.read(extents, part, first.guestOffset)
      }
      return length
    })
  }

  /**
   * How the disk is stored: extents in guest order that tile the asked range exactly, each as long as it can be. It takes no
   * passphrase to know that.
   *
   * @param range Bytes: `offset` from 0 on (default 0), `length` (default: to the end); clipped to the disk. With `isDetailed`
   *   (default false) extents are shorter and tell of holes of the host's files and of room that is kept, as `qemu-img map` does.
   * @throws As {@link read}, except for compressed clusters, which are not decoded, and for passphrases
   */
  async *extents(
    range: { offset?: number; length?: number; isDetailed?: boolean } = {},
  ): AsyncGenerator<Qcow2Extent, void, undefined> {
    const { offset = 0, length = Infinity, isDetailed = false } = range
    checkOffset('offset', offset)
    if (length !== Infinity) {
      checkOffset('length', length)
    }
    const { chain } = this.#disk.mappable()
    const { layers } = chain
    const hasHoles = isDetailed ? await findHoles(layers) : undefined
    const end = Math.min(offset + length, this.virtualSize)
    yield* mergeExtents(chain.map(offset, end, { keepsRoom: isDetailed }), layers, hasHoles)
  }

  /**
   * What each opened file of the chain says about itself, from the image down: all of its metadata. Nothing more is opened.
   *
   * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_LUKS_HEADER`, `ERR_QCOW2_TRUNCATED`
   * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
   * @throws {Qcow2UsageError} `ERR_QCOW2_CLOSED`
   */
  async info(): Promise<(Qcow2FileInfo | RawFileInfo)[]> {
    return this.#disk.use(({ chain }) => chainInfo(chain.layers))
  }

  /**
   * Whether the image is consistent in itself: what uses each of its host clusters, and what its refcounts say. The verdict is that of
   * `qemu-img check`, of the image as a whole, whichever snapshot was opened; docs/format-notes.md has what differs. Only the
   * image's own file is read, so that neither a passphrase nor its backing and data files are needed: `references: 'none'` will
   * do. Nothing is repaired, and what lies in clusters of data is not looked at. It takes
   * time in proportion to the length of the image file, holes included; the event loop has its turn meanwhile. An image that cannot be opened cannot be checked.
   * {@link close} waits for it.
   *
   * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNSUPPORTED_SIZE` if counting takes more than `memoryBytes`
   * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`; of a server `ERR_QCOW2_REQUEST_FAILED`, `ERR_QCOW2_SOURCE_CHANGED`
   * @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT`, `ERR_QCOW2_CLOSED`
   */
  async check(options: Qcow2CheckOptions = {}): Promise<Qcow2CheckResult> {
    const { signal, memoryBytes } = checkOptionsOf(options)
    const { header, extensions, snapshots } = this.#disk.opened.metadata
    return this.#disk.use(({ chain }) => {
      const { file } = chain.layers[0]
      return checkImage({ file, header, extensions, snapshots }, memoryBytes, signal)
    })
  }

  /** Closes the image and every file that opening it opened, once reads under way have ended; may be called twice. */
  close(): Promise<void> {
    return this.#disk.close()
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
