/**
 * A file on a web server, of which only the parts that are read are fetched.
 *
 * Knows ranges and whether they are still those of the same file. Invariant: bytes of two versions of a file are never mixed: what
 * the server says of the file must stay as it was first. Where it answers no requests for parts, the file is spooled.
 */
import { Qcow2SourceError, quoteText } from '../errors.js'
import type { Qcow2HttpOptions } from './http-options.js'
import { HttpRequests, statusOf, TryAgain } from './http-request.js'
import { RangeQueue } from './range-queue.js'
import { HostFile, type Qcow2Source } from './source.js'
import { spool, type SpoolOptions } from './spool.js'

/** How a file on a server is opened. */
export interface HttpSourceOptions {
  readonly http?: Qcow2HttpOptions | undefined
  readonly spool: SpoolOptions
  /** Ends the opening, with its reason. */
  readonly signal?: AbortSignal | undefined
}

// As much as opening an image reads at first.
const HEAD_BYTES = 65536

/** What the server says of a file, for as long as it is read. */
interface Version {
  /** Bytes. */
  readonly size: number
  readonly etag: string | null
  readonly lastModified: string | null
}

/**
 * A file at an address.
 *
 * @throws {Qcow2SourceError} `ERR_QCOW2_REQUEST_FAILED`, and the errors of `spool`
 * @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT`
 */
export async function openHttp(url: URL, options: HttpSourceOptions): Promise<HostFile> {
  const requests = new HttpRequests(url, options.http)
  const { label } = requests
  const headers = { range: `bytes=0-${HEAD_BYTES - 1}` }
  // Of a download as a whole, which begins anew after each break: a try that comes further than those before it has not been for nothing.
  let furthest = 0
  const open = (): Promise<HostFile> =>
    requests.get(headers, options.signal, async (response, body) => {
      const { status } = response
      const range = rangeOf(response)
      if (status === 206 && isPlain(response) && isHead(range)) {
        const head = await collect(requests, body, range.end)
        const source = new HttpSource(requests, head, versionOf(response, range.size))
        return new HostFile(source, { label, identity: requests.place, fetched: 'in-parts', leavesMemory: true })
      }
      if (status === 416 && range?.size === 0) {
        const source = new HttpSource(requests, new Uint8Array(), versionOf(response, 0))
        return new HostFile(source, { label, identity: requests.place, fetched: 'in-parts', leavesMemory: true })
      }
      // Of what is compressed on the way nobody could tell whether all of it came.
      if (status !== 200 || !isPlain(response)) {
        throw requests.failure(`opening: the server answered ${wordsOf(response)}${hintFor(status, furthest > 0)}`)
      }
      const bytesTotal = lengthOf(response)
      if (bytesTotal === undefined && !marksItsEnd(response)) {
        throw requests.failure('opening: the server answers without a length: whether all has come could not be told')
      }
      // An answer that breaks off is shorter than it says, or lacks its end, which fetch sees to.
      return spool(
        { chunks: body, label, reason: 'no-ranges', bytesTotal },
        {
          ...options.spool,
          onProgress: (progress) => {
            furthest = Math.max(furthest, progress.bytesDone)
            options.spool.onProgress?.(progress)
          },
        },
      )
    })
  return requests.persist('opening', options.signal, open, () => furthest)
}

/** A part of a file, half-open, and bytes of the whole. */
interface Range {
  readonly start: number
  readonly end: number
  readonly size: number
}

class HttpSource implements Qcow2Source {
  readonly size: number
  readonly #queue: RangeQueue
  #signal: AbortSignal | undefined

  /** @param head The first bytes of the file, which have come already. */
  constructor(
    private readonly requests: HttpRequests,
    private readonly head: Uint8Array,
    private readonly version: Version,
  ) {
    this.size = version.size
    this.#queue = new RangeQueue((start, end, write) => this.#fetch(start, end, write), requests.most)
  }

  async read(target: Uint8Array, offset: number, signal: AbortSignal): Promise<number> {
    signal.throwIfAborted()
    const known = this.head.subarray(offset, offset + target.length)
    if (known.length > 0) {
      target.set(known)
      return known.length
    }
    // It is the same for all reads of a file.
    this.#signal = signal
    await this.#queue.read(target, offset)
    return target.length
  }

  close(): Promise<void> {
    return Promise.resolve()
  }

  async #fetch(start: number, end: number, write: (bytes: Uint8Array, offset: number) => void): Promise<void> {
    let at = start
    const what = `reading ${end - start} bytes at host offset 0x${start.toString(16)}`
    const fetchPart = async (): Promise<boolean> =>
      // An answer may break off after its last byte.
      at === end ||
      this.requests.get({ range: `bytes=${at}-${end - 1}` }, this.#signal, async (response, body) => {
        const rangeEnd = this.#check(response, at, end)
        for await (const bytes of body) {
          if (at + bytes.length > rangeEnd) {
            throw this.requests.failure(`${what}: the answer is longer than it says`)
          }
          write(bytes, at)
          at += bytes.length
        }
        if (at < rangeEnd) {
          throw new TryAgain(`the answer broke off at host offset 0x${at.toString(16)}`)
        }
        return at === end
      })
    // A server may answer with less than it was asked for.
    for (let isComplete = false; !isComplete;) {
      isComplete = await this.requests.persist(what, this.#signal, fetchPart, () => at)
    }
  }

  /** The end of the range that comes, if it is one of the same file that begins at `start` and ends by `end`. */
  #check(response: Response, start: number, end: number): number {
    const range = rangeOf(response)
    // Whoever answers with the whole file, or with none of it, has another one than before.
    if (response.status === 200 || response.status === 416) {
      throw this.#changed(`the server answered ${statusOf(response)} to a request for a part`)
    }
    if (response.status !== 206 || range?.start !== start || range.end > end || !isPlain(response)) {
      throw this.requests.failure(
        `the server answered the request for bytes ${start}-${end - 1} with ${wordsOf(response)}${hintFor(response.status, true)}`,
      )
    }
    const before = this.version
    const now = versionOf(response, range.size)
    if (now.size !== before.size) {
      throw this.#changed(`it had ${before.size} bytes and has ${now.size}`)
    }
    const [was, is] = [nameOf(before), nameOf(now)]
    if (was !== is) {
      throw this.#changed(`it was ${quoteText(was)} and is ${quoteText(is)}`)
    }
    return range.end
  }

  #changed(how: string): Qcow2SourceError {
    return new Qcow2SourceError('ERR_QCOW2_SOURCE_CHANGED', `the file changed while it was read: ${how}`, {
      layer: this.requests.label,
    })
  }
}

/** What tells a version from others: a strong ETag; else a weak one, which files alike may share, and the date. */
function nameOf({ etag, lastModified }: Version): string {
  const words = etag !== null && !etag.startsWith('W/') ? [etag] : [etag, lastModified].filter((word) => word !== null)
  return words.length === 0 ? 'unnamed' : words.join(', ')
}

/** Whether a range is what was asked for at first, or a part of it. */
const isHead = (range: Range | undefined): range is Range =>
  range?.start === 0 && range.end > 0 && range.end <= HEAD_BYTES && Number.isSafeInteger(range.size)

function versionOf({ headers }: Response, size: number): Version {
  return { size, etag: headers.get('etag'), lastModified: headers.get('last-modified') }
}

/** What Content-Range says: an empty range for one that cannot be had; undefined if it says nothing of use. */
function rangeOf({ headers }: Response): Range | undefined {
  const match = /^bytes (?:(\d+)-(\d+)|\*)\/(\d+)$/.exec(headers.get('content-range') ?? '')
  if (match === null) {
    return undefined
  }
  const [, first, last, size] = match
  if (first === undefined) {
    return { start: 0, end: 0, size: Number(size) }
  }
  const range = { start: Number(first), end: Number(last) + 1, size: Number(size) }
  return range.start < range.end && range.end <= range.size ? range : undefined
}

/** What matters of an answer's head. */
function wordsOf(response: Response): string {
  const { status, headers } = response
  const range = status === 206 ? ` with the range ${quoteText(headers.get('content-range') ?? '')}` : ''
  return `${statusOf(response)}${range}${isPlain(response) ? '' : `, encoded as ${quoteText(encodingOf(response))}`}`
}

/** What helps where a server refuses, for the end of a message; other statuses need no hint. */
function hintFor(status: number, hasAnsweredBefore: boolean): string {
  if (status !== 401 && status !== 403) {
    return ''
  }
  return hasAnsweredBefore
    ? '; it answered before, so that the address may have expired, or what the option http.headers sends'
    : '; credentials, such as an Authorization header, are sent with the option http.headers'
}

const encodingOf = ({ headers }: Response): string => headers.get('content-encoding') ?? 'identity'

/** Whether the bytes are those of the file: parts of a compressed file are no parts of it. */
const isPlain = (response: Response): boolean => encodingOf(response) === 'identity'

/** Bytes of the whole answer; undefined if nobody says so before the end. */
function lengthOf({ headers }: Response): number | undefined {
  const length = headers.get('content-length')
  return length === null ? undefined : Number(length)
}

/** Whether an answer without a length has an end that fetch looks for: of one that closes its connection it takes any. */
const marksItsEnd = ({ headers }: Response): boolean =>
  headers.get('transfer-encoding') === 'chunked' && headers.get('connection')?.toLowerCase() !== 'close'

/** A body of so many bytes. @throws {TryAgain} */
async function collect(requests: HttpRequests, body: AsyncIterable<Uint8Array>, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length)
  let done = 0
  for await (const chunk of body) {
    if (done + chunk.length > length) {
      throw requests.failure('opening: the answer is longer than it says')
    }
    bytes.set(chunk, done)
    done += chunk.length
  }
  if (done < length) {
    throw new TryAgain(`the answer broke off after ${done} of ${length} bytes`)
  }
  return bytes
}
