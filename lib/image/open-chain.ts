/**
 * Opens an image and what it refers to, from the image itself down.
 *
 * Knows which file comes next, neither how references are found nor how layers map. Invariant: if anything fails,
 * everything opened so far is closed.
 */
import {
  Qcow2FormatError,
  Qcow2UnsupportedError,
  Qcow2UsageError,
  quoteText,
  type Qcow2AccessError,
} from '../errors.js'
import type { Qcow2Snapshot } from '../format/snapshots.js'
import { holdErrors } from '../source/caller-stream.js'
import { openSource, type Qcow2Input, type SourceOptions } from '../source/open-source.js'
import type { HostFile } from '../source/source.js'
import { Chain } from './chain.js'
import { qcow2Layer, rawLayer, type Layer } from './layer.js'
import { Encryption } from './encryption.js'
import { checkLimits } from './limits.js'
import { LoadingCache } from './loading-cache.js'
import type { TableCache } from './mapping.js'
import { readMetadata, type Metadata, type Qcow2Warning } from './metadata.js'
import { badOption, checkFunction, type Qcow2OpenOptions } from './options.js'
import { checkPolicy, localPaths, type ReferencePolicy } from './reference-policy.js'
import { References } from './references.js'

const MAX_LISTED = 10
const DEFAULT_TABLE_CACHE_BYTES = 16 * 2 ** 20

/** An open chain, and what was found on the way. */
export interface OpenedChain {
  readonly chain: Chain
  /** The image's own metadata. */
  readonly metadata: Metadata
  readonly snapshot: Qcow2Snapshot | undefined
  readonly warnings: readonly Qcow2Warning[]
  /** Why it cannot be told where the disk's bytes are: a reference that `references: 'none'` kept closed. */
  readonly incomplete: Qcow2AccessError | undefined
  /** Every file that was opened. */
  readonly files: readonly HostFile[]
  /** The keys that were found, and what was not. */
  readonly encryption: Encryption
  /** Local files that the image itself names, whether they were opened or an option replaced them. */
  readonly namedPaths: readonly string[]
}

/** Opens the chain; the caller closes `files` and wipes `encryption`. */
export async function openChain(input: Qcow2Input, options: Qcow2OpenOptions): Promise<OpenedChain> {
  const opener = new ChainOpener(options)
  // The latter two are read only once the image itself is open.
  holdErrors(input, options.backingFile, options.dataFile)
  try {
    return await openUntil(options.signal, opener, input)
  } catch (error) {
    opener.encryption.wipe()
    await Promise.allSettled(opener.files.map((file) => file.close()))
    // Whatever failed, the abort is what it failed of.
    options.signal?.throwIfAborted()
    throw error
  }
}

/** Opens the chain; what is being read is abandoned at the signal. */
async function openUntil(
  signal: AbortSignal | undefined,
  opener: ChainOpener,
  input: Qcow2Input,
): Promise<OpenedChain> {
  const abandon = (): void => {
    for (const file of opener.files) {
      file.abandon()
    }
  }
  signal?.addEventListener('abort', abandon)
  try {
    return await opener.open(input)
  } finally {
    signal?.removeEventListener('abort', abandon)
  }
}

class ChainOpener {
  readonly files: HostFile[] = []
  readonly encryption: Encryption
  readonly #warnings: Qcow2Warning[] = []
  readonly #policy: ReferencePolicy
  readonly #limits: ReturnType<typeof checkLimits>
  readonly #tables: TableCache

  constructor(private readonly options: Qcow2OpenOptions) {
    this.#policy = checkPolicy(options.references)
    this.#limits = checkLimits(options.limits)
    this.encryption = new Encryption(options.passphrase, this.#limits.keyIterations, options.signal)
    const { tableCacheBytes = DEFAULT_TABLE_CACHE_BYTES, spoolDirectory } = options
    checkFunction('salvage', options.salvage)
    checkFunction('onSpool', options.onSpool)
    if (spoolDirectory !== undefined && (typeof spoolDirectory !== 'string' || spoolDirectory === '')) {
      throw badOption('spoolDirectory', spoolDirectory, 'the path of a folder')
    }
    if (!Number.isSafeInteger(tableCacheBytes) || tableCacheBytes < 1) {
      throw badOption('tableCacheBytes', tableCacheBytes, 'integers from 1 to 2^53 - 1')
    }
    this.#tables = new LoadingCache(tableCacheBytes)
  }

  async open(input: Qcow2Input): Promise<OpenedChain> {
    const sourceOptions: SourceOptions = { ...this.options, spoolBytes: this.#limits.spoolBytes }
    const top = this.#keep(await openSource(input, sourceOptions))
    const references = new References(
      this.options,
      { ...sourceOptions, headersOrigin: originOf(input) },
      this.#policy,
      top,
      (file) => this.#keep(file),
      (warning) => this.#warnings.push(warning),
    )
    const metadata = await this.#readMetadata(top)
    const snapshot = findSnapshot(metadata, this.options.snapshot, top)
    this.#refuseSize(snapshot?.virtualSize ?? metadata.header.size, top)
    const layers: [Layer, ...Layer[]] = [await this.#qcow2Layer(references, top, metadata, snapshot, 0)]
    const seen = new Set([top.identity])

    let above = { file: top, metadata }
    for (let depth = 1; ; depth++) {
      const next = await references.openBacking(above.file, above.metadata, depth - 1)
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
      layers.push(await this.#qcow2Layer(references, file, above.metadata, undefined, depth))
    }
    this.encryption.forgetPassphrase()
    return {
      chain: new Chain(layers),
      metadata,
      snapshot,
      warnings: this.#warnings,
      incomplete: references.refused,
      encryption: this.encryption,
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
    if (file.fetched === 'as-a-whole') {
      this.#warnings.push({
        code: 'WARN_QCOW2_NO_RANGES',
        message: `${file.quoted}: the server answers no requests for parts of a file: all of it was downloaded first`,
        layer: file.label,
      })
    }
    return file
  }

  async #readMetadata(file: HostFile): Promise<Metadata> {
    this.options.signal?.throwIfAborted()
    const metadata = await readMetadata(file, this.#limits.snapshotTableBytes)
    const { compressionType } = metadata.header
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
    references: References,
    file: HostFile,
    metadata: Metadata,
    snapshot: Qcow2Snapshot | undefined,
    depth: number,
  ): Promise<Layer> {
    const dataFile = metadata.header.features.hasExternalDataFile
      ? ((await references.openDataFile(file, metadata, depth)) ?? file)
      : file
    const encryption = await this.encryption.unlock(file, metadata, depth)
    return qcow2Layer(file, dataFile, metadata, snapshot, encryption, this.#tables, depth, this.options.salvage)
  }
}

/** The origin of an image on a web server; undefined if it is none. */
const originOf = (input: Qcow2Input): string | undefined =>
  input instanceof URL && input.protocol !== 'file:' ? input.origin : undefined

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
