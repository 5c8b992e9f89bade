/**
 * Picks the source for what a caller hands in.
 *
 * Knows the kinds of input, not what is in them. Invariant: what is opened here is closed by closing the host file,
 * and what the caller opened stays open, except a source of the caller's own, whose `close` is called, and a stream, which is
 * read to its end or destroyed.
 */
import { Blob } from 'node:buffer'
import type { FileHandle } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { Qcow2UsageError, quoteText } from '../errors.js'
import { BlobSource, type Qcow2Blob } from './blob.js'
import { CallerSource } from './caller-source.js'
import { CallerStream } from './caller-stream.js'
import { fromFileHandle, openFile } from './file.js'
import type { Qcow2HttpOptions } from './http-options.js'
import { MemorySource } from './memory.js'
import { HostFile, type Qcow2Source } from './source.js'
import type { Qcow2SpoolProgress, SpoolOptions } from './spool.js'

/**
 * What an image can be read from: a path; a `file:`, `http:` or `https:` URL; the image's bytes; a `Blob` or `File`; an open
 * `FileHandle` (it stays open); a source of the caller's own (its `close` is called when the image is closed); or a stream of
 * `Uint8Array`s, Node's or the web's or any other `AsyncIterable`, which is copied into a temporary file first, to its end; if that
 * fails, it is destroyed. Of a file of 4 GiB or more, Node's `openAsBlob` may make a `Blob` that is too short
 * (Node 20: its length modulo 2^32): hand in the path instead.
 */
export type Qcow2Input = string | URL | Uint8Array | Qcow2Blob | FileHandle | Qcow2Source | AsyncIterable<Uint8Array>

/** How sources are opened. */
export interface SourceOptions {
  readonly http?: Qcow2HttpOptions | undefined
  /** The only origin that is sent the headers of `http`. Default: that of each address. */
  readonly headersOrigin?: string | undefined
  readonly spoolDirectory?: string | undefined
  /** The longest input that is spooled, in bytes. Default: 2^53 - 1. */
  readonly spoolBytes?: number | undefined
  readonly onSpool?: ((progress: Qcow2SpoolProgress) => void) | undefined
  /** Ends the opening, with its reason. */
  readonly signal?: AbortSignal | undefined
}

/**
 * An open host file for an input.
 *
 * @throws {Qcow2SourceError} `ERR_QCOW2_OPEN_FAILED`, `ERR_QCOW2_NOT_A_FILE`, `ERR_QCOW2_REQUEST_FAILED`, `ERR_QCOW2_SPOOL_FAILED`,
 *   `ERR_QCOW2_READ_FAILED`
 * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNSUPPORTED_SIZE`
 * @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT`
 */
export async function openSource(input: Qcow2Input, options: SourceOptions = {}): Promise<HostFile> {
  if (input instanceof URL && /^https?:$/.test(input.protocol)) {
    // Loaded only here, as the spool below: a conversion of a file needs neither.
    const { openHttp } = await import('./http.js')
    const { http, headersOrigin = input.origin } = options
    const isTrusted = headersOrigin === input.origin
    return openHttp(input, {
      http: isTrusted ? http : { ...http, headers: undefined },
      spool: spoolOptions(options),
      signal: options.signal,
    })
  }
  if (typeof input === 'string' || input instanceof URL) {
    const path = typeof input === 'string' ? input : pathOfUrl(input)
    if (/^https?:\/\//i.test(path)) {
      // There may be a password in it.
      throw badInput('a path that begins as an address, which is handed in as a URL: new URL(...)')
    }
    if (path === '' || path.includes('\0')) {
      throw badInput(`the path ${quoteText(path)}`)
    }
    return openFile(path)
  }
  if (input instanceof Blob) {
    const name = 'name' in input ? String(input.name) : ''
    return new HostFile(new BlobSource(input), { label: name === '' ? 'image in a Blob' : name, leavesMemory: true })
  }
  if (input instanceof Uint8Array) {
    return new HostFile(new MemorySource(input), { label: 'image in memory' })
  }
  if (isFileHandle(input)) {
    return fromFileHandle(input)
  }
  if (isSource(input)) {
    return wrapSource(input)
  }
  if (isIterable(input)) {
    const stream = new CallerStream(input)
    const { spool } = await import('./spool.js')
    return spool({ chunks: stream, label: stream.label, reason: 'stream' }, spoolOptions(options))
  }
  throw badInput(typeof input)
}

const spoolOptions = ({
  spoolDirectory,
  spoolBytes = Number.MAX_SAFE_INTEGER,
  onSpool,
  signal,
}: SourceOptions): SpoolOptions => ({
  directory: spoolDirectory,
  mostBytes: spoolBytes,
  onProgress: onSpool,
  signal,
})

async function wrapSource(source: Qcow2Source): Promise<HostFile> {
  try {
    return new HostFile(new CallerSource(source), { label: 'image from a source', leavesMemory: true })
  } catch (error) {
    await source.close()
    throw error
  }
}

function pathOfUrl(url: URL): string {
  if (url.protocol !== 'file:') {
    throw badInput(`a URL with the protocol ${quoteText(url.protocol)}`)
  }
  try {
    return fileURLToPath(url)
  } catch {
    throw badInput(`the URL ${quoteText(url.href)}`)
  }
}

const isFileHandle = (input: unknown): input is FileHandle =>
  typeof input === 'object' &&
  input !== null &&
  'fd' in input &&
  typeof input.fd === 'number' &&
  'stat' in input &&
  typeof input.stat === 'function'

const isSource = (input: unknown): input is Qcow2Source =>
  typeof input === 'object' &&
  input !== null &&
  'size' in input &&
  'read' in input &&
  typeof input.read === 'function' &&
  'close' in input &&
  typeof input.close === 'function'

const isIterable = (input: unknown): input is AsyncIterable<unknown> =>
  typeof input === 'object' && input !== null && Symbol.asyncIterator in input

function badInput(found: string): Qcow2UsageError {
  return new Qcow2UsageError(
    'ERR_QCOW2_BAD_ARGUMENT',
    `input: found ${found}; allowed are a path, a URL (file:, http:, https:), a Uint8Array, a Blob, a FileHandle, ` +
      'a source (size, read, close) and a stream of Uint8Arrays',
    { field: 'input' },
  )
}
