/**
 * Opens the files that images name: those that the policy allows, or what an option puts in their place.
 *
 * Knows one reference at a time, not the chain. Invariant: what an image names is opened by way of `openReference` alone,
 * and what was kept closed is remembered in `refused`. Spec: "Header", backing_file_offset; "Header extensions".
 */
import { Qcow2UnsupportedError, Qcow2UsageError, quoteText, type Qcow2AccessError } from '../errors.js'
import { openFile, realDirectory } from '../source/file.js'
import { openSource, type SourceOptions } from '../source/open-source.js'
import type { HostFile } from '../source/source.js'
import type { Metadata, Qcow2Warning } from './metadata.js'
import type { Qcow2OpenOptions } from './options.js'
import { probeFormat } from './probe.js'
import { NOUN, refusedByPolicy, resolveReference, type ReferencePolicy } from './reference-policy.js'

/** A layer's file that has been found, and what it is to be read as. */
export interface NextLayer {
  readonly file: HostFile
  readonly format: 'qcow2' | 'raw'
}

/** The references of one chain; an option for a backing or data file means that of the image itself, at depth 0. */
export class References {
  #directory: Promise<string> | undefined
  /** Why the disk cannot be read: the first reference that `references: 'none'` kept closed. */
  refused: Qcow2AccessError | undefined

  /**
   * @param top The image itself.
   * @param keep Takes each file as soon as it is open.
   */
  constructor(
    private readonly options: Qcow2OpenOptions,
    private readonly sourceOptions: SourceOptions,
    private readonly policy: ReferencePolicy,
    private readonly top: HostFile,
    private readonly keep: (file: HostFile) => HostFile,
    private readonly warn: (warning: Qcow2Warning) => void,
  ) {}

  /**
   * The external data file of `image`; undefined if it may not be opened.
   *
   * @throws {Qcow2UsageError} `ERR_QCOW2_DATA_FILE_REQUIRED`
   * @throws As `openReference`
   */
  async openDataFile(image: HostFile, metadata: Metadata, depth: number): Promise<HostFile | undefined> {
    if (depth === 0 && this.options.dataFile !== undefined) {
      return this.keep(await openSource(this.options.dataFile, this.sourceOptions))
    }
    const name = metadata.extensions.dataFileName
    if (name === undefined || name === '') {
      throw new Qcow2UsageError(
        'ERR_QCOW2_DATA_FILE_REQUIRED',
        'the image keeps its data in an external file without naming it; name it with the option dataFile',
        { layer: image.label, field: 'dataFile' },
      )
    }
    if (this.policy === 'none') {
      this.refused ??= refusedByPolicy('data-file', name, image.label, 'none')
      return undefined
    }
    return this.#openReference('data-file', name, image, depth)
  }

  /**
   * The layer below `image`, which is at `depth`; undefined if there is none, or none may be opened.
   *
   * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNSUPPORTED_BACKING_FORMAT`
   * @throws As `openReference`
   */
  async openBacking(image: HostFile, metadata: Metadata, depth: number): Promise<NextLayer | undefined> {
    const { backingFile, backingFormat } = depth === 0 ? this.options : {}
    if (backingFile === null) {
      return undefined
    }
    if (backingFile === undefined && metadata.backingFile === undefined) {
      return undefined
    }
    if (backingFile === undefined && this.policy === 'none') {
      this.refused ??= refusedByPolicy('backing-file', metadata.backingFile!, image.label, 'none')
      return undefined
    }
    const recorded = backingFormat ?? metadata.extensions.backingFormat ?? ''
    const format = recorded === '' ? undefined : formatNamed(recorded, image)
    const file =
      backingFile === undefined
        ? await this.#openReference('backing-file', metadata.backingFile!, image, depth)
        : this.keep(await openSource(backingFile, this.sourceOptions))
    return { file, format: format ?? (await this.#probe(file, image)) }
  }

  async #probe(file: HostFile, image: HostFile): Promise<'qcow2' | 'raw'> {
    const format = await probeFormat(file)
    this.warn({
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
    const { policy } = this
    const reference = resolveReference(kind, name, image, depth, policy)
    if (typeof policy === 'function' && !(await policy(reference))) {
      throw refusedByPolicy(kind, name, image.label, policy)
    }
    const within = policy === 'same-directory' ? await this.#topDirectory() : undefined
    if (policy === 'same-directory' && within === undefined) {
      throw refusedByPolicy(kind, name, image.label, policy)
    }
    return this.keep(await openFile(reference.path, { within, role: `the ${NOUN[kind]} of ${image.quoted}` }))
  }

  /** The folder of the top image; undefined if it was not opened by a path. */
  async #topDirectory(): Promise<string | undefined> {
    const { path } = this.top
    if (path !== undefined) {
      this.#directory ??= realDirectory(path)
    }
    return this.#directory
  }
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
