/**
 * Opens an image and what it refers to, from the image itself down.
 *
 * Knows which file comes next, not how layers map. Invariant: nothing that an image names is opened unless the policy
 * allows it, and if anything fails, everything opened so far is closed.
 */
import {
  Qcow2FormatError,
  Qcow2UnsupportedError,
  Qcow2UsageError,
  quoteText,
  type Qcow2AccessError,
} from '../errors.js'
import type { Qcow2Snapshot } from '../format/snapshots.js'
import { openFile, realDirectory } from '../source/file.js'
import { openSource, type Qcow2Input } from '../source/open-source.js'
import type { HostFile } from '../source/source.js'
import { Chain } from './chain.js'
import { qcow2Layer, rawLayer, type Layer } from './layer.js'
import { checkLimits } from './limits.js'
import { LoadingCache } from './loading-cache.js'
import type { TableCache } from './mapping.js'
import { readMetadata, type Metadata, type Qcow2Warning } from './metadata.js'
import { badOption, type Qcow2OpenOptions } from './options.js'
import { probeFormat } from './probe.js'
import { checkPolicy, localPaths, refusedByPolicy, resolveReference, type ReferencePolicy } from './reference-policy.js'

const MAX_LISTED = 10
const DEFAULT_TABLE_CACHE_BYTES = 16 * 2 ** 20

/** An open chain, and what was found on the way. */
export interface OpenedChain {
  readonly chain: Chain
  /** The image's own metadata. */
  readonly metadata: Metadata
  readonly snapshot: Qcow2Snapshot | undefined
  readonly warnings: readonly Qcow2Warning[]
  /** Why the disk cannot be read: a reference that `references: 'none'` kept closed. */
  readonly unreadable: Qcow2AccessError | undefined
  /** Every file that was opened. */
  readonly files: readonly HostFile[]
  /** Local files that the image itself names, whether they were opened or an option replaced them. */
  readonly namedPaths: readonly string[]
}

/** Opens the chain; the caller closes `files`. */
export async function openChain(input: Qcow2Input, options: Qcow2OpenOptions): Promise<OpenedChain> {
  const opener = new ChainOpener(options)
  try {
    return await opener.open(input)
  } catch (error) {
    await Promise.allSettled(opener.files.map((file) => file.close()))
    throw error
  }
}

/** A layer's file that has been found, and what it is to be read as. */
interface NextLayer {
  readonly file: HostFile
  readonly format: 'qcow2' | 'raw'
}

class ChainOpener {
  readonly files: HostFile[] = []
  readonly #warnings: Qcow2Warning[] = []
  readonly #policy: ReferencePolicy
  readonly #limits: ReturnType<typeof checkLimits>
  readonly #tables: TableCache
  #directory: Promise<string> | undefined
  #top: HostFile | undefined
  #unreadable: Qcow2AccessError | undefined

  constructor(private readonly options: Qcow2OpenOptions) {
    this.#policy = checkPolicy(options.references)
    this.#limits = checkLimits(options.limits)
    const { tableCacheBytes = DEFAULT_TABLE_CACHE_BYTES, salvage } = options
    if (salvage !== undefined && typeof salvage !== 'function') {
      throw badOption('salvage', salvage, 'a function')
    }
    if (!Number.isSafeInteger(tableCacheBytes) || tableCacheBytes < 1) {
      throw badOption('tableCacheBytes', tableCacheBytes, 'integers from 1 to 2^53 - 1')
    }
    this.#tables = new LoadingCache(tableCacheBytes)
  }

  async open(input: Qcow2Input): Promise<OpenedChain> {
    const top = this.#keep(await openSource(input))
    this.#top = top
    const metadata = await this.#readMetadata(top)
    const snapshot = findSnapshot(metadata, this.options.snapshot, top)
    this.#refuseSize(snapshot?.virtualSize ?? metadata.header.size, top)
    const layers: [Layer, ...Layer[]] = [await this.#qcow2Layer(top, metadata, snapshot, 0)]
    const seen = new Set([top.identity])

    let above = { file: top, metadata }
    for (let depth = 1; ; depth++) {
      const next = await this.#openBacking(above.file, above.metadata, depth - 1)
      if (next === undefined) {
        break
      }
      const { file, format } = next
      refuseLoop(seen, file, above.file)
      const { chainDepth } = this.#limits
      if (depth >= chainDepth) {
        throw new Qcow2FormatError('ERR_QCOW2_CHAIN_TOO_DEEP', `the chain has more than ${chainDepth} layers`, {
          layer: above.file.label,
        })
      }
      if (format === 'raw') {
        layers.push(rawLayer(file, depth))
        break
      }
      above = { file, metadata: await this.#readMetadata(file) }
      layers.push(await this.#qcow2Layer(file, above.metadata, undefined, depth))
    }
    return {
      chain: new Chain(layers),
      metadata,
      snapshot,
      warnings: this.#warnings,
      unreadable: this.#unreadable,
      files: this.files,
      namedPaths: localPaths([metadata.backingFile, metadata.extensions.dataFileName], top),
    }
  }

  #refuseSize(virtualSize: number, { label }: HostFile): void {
    const most = this.#limits.virtualSize
    if (virtualSize > most) {
      throw new Qcow2UnsupportedError(
        'ERR_QCOW2_UNSUPPORTED_SIZE',
        `the disk has ${virtualSize} bytes; the option limits.virtualSize allows ${most}`,
        { layer: label, field: 'limits.virtualSize', actual: virtualSize },
      )
    }
  }

  #keep(file: HostFile): HostFile {
    this.files.push(file)
    return file
  }

  async #readMetadata(file: HostFile): Promise<Metadata> {
    const metadata = await readMetadata(file, this.#limits.snapshotTableBytes)
    const { cryptMethod, compressionType } = metadata.header
    if (cryptMethod !== 0) {
      throw new Qcow2UnsupportedError(
        'ERR_QCOW2_UNSUPPORTED_ENCRYPTION',
        `the image is encrypted (${cryptMethod === 1 ? 'AES' : 'LUKS'}), which cannot be read yet`,
        { layer: file.label, hostOffset: 32, field: 'cryptMethod', actual: cryptMethod },
      )
    }
    if (compressionType > 1) {
      throw new Qcow2UnsupportedError(
        'ERR_QCOW2_UNSUPPORTED_COMPRESSION',
        `compression type ${compressionType}; 0 (zlib) and 1 (zstd) are read`,
        { layer: file.label, hostOffset: 104, field: 'compressionType', actual: compressionType },
      )
    }
    for (const warning of metadata.warnings) {
      this.#warnings.push(warning)
    }
    return metadata
  }

  async #qcow2Layer(
    file: HostFile,
    metadata: Metadata,
    snapshot: Qcow2Snapshot | undefined,
    depth: number,
  ): Promise<Layer> {
    const dataFile = metadata.header.features.hasExternalDataFile
      ? ((await this.#openDataFile(file, metadata, depth)) ?? file)
      : file
    return qcow2Layer(file, dataFile, metadata, snapshot, this.#tables, depth, this.options.salvage)
  }

  async #openDataFile(image: HostFile, metadata: Metadata, depth: number): Promise<HostFile | undefined> {
    if (depth === 0 && this.options.dataFile !== undefined) {
      return this.#keep(await openSource(this.options.dataFile))
    }
    const name = metadata.extensions.dataFileName
    if (name === undefined || name === '') {
      throw new Qcow2UsageError(
        'ERR_QCOW2_DATA_FILE_REQUIRED',
        'the image keeps its data in an external file without naming it; name it with the option dataFile',
        { layer: image.label, field: 'dataFile' },
      )
    }
    if (this.#policy === 'none') {
      this.#unreadable ??= refusedByPolicy('data-file', name, image.label, 'none')
      return undefined
    }
    return this.#openReference('data-file', name, image, depth)
  }

  /** The layer below `image`, which is at `depth`; undefined if there is none, or none may be opened. */
  async #openBacking(image: HostFile, metadata: Metadata, depth: number): Promise<NextLayer | undefined> {
    const { backingFile, backingFormat } = depth === 0 ? this.options : {}
    if (backingFile === null) {
      return undefined
    }
    if (backingFile === undefined && metadata.backingFile === undefined) {
      return undefined
    }
    if (backingFile === undefined && this.#policy === 'none') {
      this.#unreadable ??= refusedByPolicy('backing-file', metadata.backingFile!, image.label, 'none')
      return undefined
    }
    const recorded = backingFormat ?? metadata.extensions.backingFormat ?? ''
    const format = recorded === '' ? undefined : formatNamed(recorded, image)
    const file =
      backingFile === undefined
        ? await this.#openReference('backing-file', metadata.backingFile!, image, depth)
        : this.#keep(await openSource(backingFile))
    return { file, format: format ?? (await this.#probe(file, image)) }
  }

  async #probe(file: HostFile, image: HostFile): Promise<'qcow2' | 'raw'> {
    const format = await probeFormat(file)
    this.#warnings.push({
      code: 'WARN_QCOW2_BACKING_FORMAT_PROBED',
      message: `${image.quoted}: the format of the backing file is not recorded; ${file.quoted} is read as ${format}`,
      layer: image.label,
    })
    return format
  }

  async #openReference(
    kind: 'backing-file' | 'data-file',
    name: string,
    image: HostFile,
    depth: number,
  ): Promise<HostFile> {
    const policy = this.#policy
    const reference = resolveReference(kind, name, image, depth, policy)
    if (typeof policy === 'function' && !(await policy(reference))) {
      throw refusedByPolicy(kind, name, image.label, policy)
    }
    const within = policy === 'same-directory' ? await this.#topDirectory() : undefined
    if (policy === 'same-directory' && within === undefined) {
      throw refusedByPolicy(kind, name, image.label, policy)
    }
    return this.#keep(await openFile(reference.path, { within }))
  }

  /** The folder of the top image; undefined if it was not opened by a path. */
  async #topDirectory(): Promise<string | undefined> {
    const path = this.#top?.path
    if (path !== undefined) {
      this.#directory ??= realDirectory(path)
    }
    return this.#directory
  }
}

/** What there is to choose from, in words. */
function listOf(snapshots: readonly Qcow2Snapshot[]): string {
  const named = snapshots.slice(0, MAX_LISTED).map(({ id, name }) => `${quoteText(id)} (${quoteText(name)})`)
  const more = snapshots.length - named.length
  return named.length === 0 ? 'none' : named.join(', ') + (more > 0 ? ` and ${more} more` : '')
}

function findSnapshot(metadata: Metadata, wanted: string | undefined, file: HostFile): Qcow2Snapshot | undefined {
  if (wanted === undefined) {
    return undefined
  }
  const byId = metadata.snapshots.filter(({ id }) => id === wanted)
  const found = byId.length > 0 ? byId : metadata.snapshots.filter(({ name }) => name === wanted)
  if (found.length !== 1) {
    const problem =
      found.length === 0
        ? `no internal snapshot has the id or name ${quoteText(wanted)}; there are ${listOf(metadata.snapshots)}`
        : `${found.length} internal snapshots are called ${quoteText(wanted)}; choose one by its id`
    throw new Qcow2UsageError('ERR_QCOW2_SNAPSHOT_NOT_FOUND', problem, {
      layer: file.label,
      field: 'snapshot',
      actual: wanted,
    })
  }
  return found[0]
}

// Old images record the protocol instead of the format.
const RAW_FORMATS = new Set(['raw', 'file', 'host_device'])

function formatNamed(format: string, image: HostFile): 'qcow2' | 'raw' {
  if (format === 'qcow2' || RAW_FORMATS.has(format)) {
    return format === 'qcow2' ? 'qcow2' : 'raw'
  }
  throw new Qcow2UnsupportedError(
    'ERR_QCOW2_UNSUPPORTED_BACKING_FORMAT',
    `the backing file has the format ${quoteText(format)}; "raw" and "qcow2" are read`,
    { layer: image.label, field: 'backingFormat', actual: format },
  )
}

function refuseLoop(seen: Set<string | undefined>, file: HostFile, above: HostFile): void {
  if (file.identity === undefined) {
    return
  }
  if (seen.has(file.identity)) {
    throw new Qcow2FormatError('ERR_QCOW2_BACKING_LOOP', `backing file ${file.quoted} is part of the chain already`, {
      layer: above.label,
      field: 'backingFile',
      actual: file.label,
    })
  }
  seen.add(file.identity)
}
