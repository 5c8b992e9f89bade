/**
 * Requests to one address of a server: redirects, patience, and what is sent to whom.
 *
 * Knows HTTP, not what is asked for. Invariant: the caller's headers are sent to the origin of the caller's address alone; a
 * request that has ended, in whatever way, leaves no connection busy.
 */
import { setTimeout as wait } from 'node:timers/promises'
import { Qcow2SourceError, quoteText } from '../errors.js'
import { connectionFailure } from './connection-error.js'
import { checkHttpOptions, type Qcow2HttpOptions } from './http-options.js'

const MAX_REDIRECTS = 20
const REDIRECTS = new Set([301, 302, 303, 307, 308])
const MAX_WAIT_MILLISECONDS = 30_000
// Who asks to be left alone for longer than this does not want to be waited for.
const MAX_RETRY_AFTER_MILLISECONDS = 300_000

/** That a request may succeed if it is made again. */
export class TryAgain extends Error {
  /** @param milliseconds The server's wish for how long to wait. */
  constructor(
    message: string,
    readonly milliseconds = 0,
    cause?: unknown,
  ) {
    super(message, { cause })
  }
}

/** A clock for a server's silence, which stands still while nobody waits for the server. */
class Patience {
  #timer: NodeJS.Timeout | undefined

  constructor(
    private readonly milliseconds: number,
    private readonly end: () => void,
  ) {}

  /** From now on somebody waits. */
  start(): void {
    this.stop()
    this.#timer = setTimeout(this.end, this.milliseconds)
  }

  stop(): void {
    clearTimeout(this.#timer)
  }
}

/** The address as messages show it: neither password nor signatures, which stand in the query. */
export const labelOf = ({ protocol, host, pathname, search }: URL): string =>
  `${protocol}//${host}${pathname}${search === '' ? '' : '?…'}`

export class HttpRequests {
  readonly label: string
  /** Where the address led when it was first asked. */
  #place: URL
  readonly #origin: string
  readonly #options: ReturnType<typeof checkHttpOptions>
  #hasAnswered = false

  /** @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT` */
  constructor(url: URL, options: Qcow2HttpOptions | undefined) {
    this.#options = checkHttpOptions(options)
    this.label = labelOf(url)
    this.#place = new URL(url)
    this.#origin = url.origin
    const { username, password } = url
    if (username !== '' || password !== '') {
      const { headers } = this.#options
      if (!headers.has('authorization')) {
        const words = [username, password].map(decoded).join(':')
        headers.set('authorization', `Basic ${Buffer.from(words).toString('base64')}`)
      }
      this.#place.username = ''
      this.#place.password = ''
    }
  }

  /** Most requests to be under way at once. */
  get most(): number {
    return this.#options.requests
  }

  /** The address without what should not be seen or matters to nobody, for comparing. */
  get place(): string {
    return `${this.#place.origin}${this.#place.pathname}${this.#place.search}`
  }

  /**
   * Does something that asks the server, again if it may succeed then.
   *
   * @param progress A number that has grown if the last try was worth something.
   * @throws {Qcow2SourceError} `ERR_QCOW2_REQUEST_FAILED`
   */
  async persist<T>(
    what: string,
    signal: AbortSignal | undefined,
    work: () => Promise<T>,
    progress = () => 0,
  ): Promise<T> {
    const { retries, retryMilliseconds } = this.#options
    let [failures, before] = [0, progress()]
    for (;;) {
      try {
        return await work()
      } catch (error) {
        signal?.throwIfAborted()
        if (!(error instanceof TryAgain)) {
          throw error
        }
        const now = progress()
        failures = now > before ? 1 : failures + 1
        before = now
        const isTooLong = error.milliseconds > MAX_RETRY_AFTER_MILLISECONDS
        if (failures > retries || isTooLong) {
          const wish = isTooLong ? `, and wants ${error.milliseconds / 1000} s to pass before the next request` : ''
          const times = failures > 1 ? ` (tried ${failures} times)` : ''
          throw this.failure(`${what}: ${error.message}${wish}${times}`, error.cause)
        }
        const pause = Math.min(MAX_WAIT_MILLISECONDS, retryMilliseconds * 2 ** (failures - 1))
        // Many that have failed together should not come back together.
        const jitter = 0.75 + Math.random() / 4
        // Once the signal says so the next try ends at once, with its reason.
        await wait(Math.max(pause * jitter, error.milliseconds), undefined, { signal }).catch(() => undefined)
      }
    }
  }

  /**
   * One GET, and what is to be done with its answer: redirects are followed until a first answer has come, and none later.
   *
   * @param use Its second parameter hands on the bytes of the body; what is left of it is not waited for.
   * @throws {TryAgain}
   * @throws {Qcow2SourceError} `ERR_QCOW2_REQUEST_FAILED`
   */
  async get<T>(
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal | undefined,
    use: (response: Response, body: AsyncIterable<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    const ending = new AbortController()
    const abort = (): void => {
      ending.abort(signal?.reason)
    }
    const { idleMilliseconds } = this.#options
    const idle = new TryAgain(`no answer for ${idleMilliseconds / 1000} s`)
    const patience = new Patience(idleMilliseconds, () => {
      ending.abort(idle)
    })
    try {
      signal?.throwIfAborted()
      signal?.addEventListener('abort', abort)
      const response = await this.#follow(headers, ending.signal, patience)
      return await use(response, this.#bytesOf(response, ending.signal, patience))
    } finally {
      patience.stop()
      signal?.removeEventListener('abort', abort)
      ending.abort()
    }
  }

  async #follow(headers: Readonly<Record<string, string>>, signal: AbortSignal, patience: Patience): Promise<Response> {
    let [place, hops] = [this.#place, 0]
    for (;;) {
      patience.start()
      const response = await this.#fetch(place, { headers: this.#headersFor(place, headers), signal })
      patience.stop()
      const { status } = response
      const location = response.headers.get('location')
      if (!REDIRECTS.has(status) || location === null) {
        if (status === 429 || status >= 500) {
          throw new TryAgain(`the server answered ${statusOf(response)}`, retryAfter(response))
        }
        this.#place = place
        this.#hasAnswered = true
        return response
      }
      await response.body?.cancel()
      place = this.#redirected(place, location, ++hops)
    }
  }

  #redirected(from: URL, location: string, hops: number): URL {
    if (this.#hasAnswered) {
      throw this.failure('the server now says that the image is somewhere else')
    }
    if (hops > MAX_REDIRECTS) {
      throw this.failure(`the server redirects more than ${MAX_REDIRECTS} times`)
    }
    if (!URL.canParse(location, from.href)) {
      throw this.failure('the server redirects to what is no address')
    }
    const to = new URL(location, from)
    if (to.protocol !== 'https:' && (to.protocol !== 'http:' || from.protocol !== 'http:')) {
      const allowed = from.protocol === 'http:' ? 'http: and https:' : 'https:'
      throw this.failure(
        `the server redirects to an address that begins with ${quoteText(to.protocol)}, allowed is ${allowed}`,
      )
    }
    to.username = ''
    to.password = ''
    return to
  }

  #headersFor(place: URL, more: Readonly<Record<string, string>>): Headers {
    const headers = new Headers(place.origin === this.#origin ? this.#options.headers : undefined)
    // What is compressed on the way could not be asked for in parts.
    headers.set('accept-encoding', 'identity')
    for (const [name, value] of Object.entries(more)) {
      headers.set(name, value)
    }
    return headers
  }

  async #fetch(place: URL, init: { headers: Headers; signal: AbortSignal }): Promise<Response> {
    try {
      return await fetch(place, { ...init, redirect: 'manual' })
    } catch (error) {
      throw this.#classify(error, init.signal, place)
    }
  }

  async *#bytesOf(
    response: Response,
    signal: AbortSignal,
    patience: Patience,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      patience.start()
      for await (const chunk of response.body!) {
        // A slow disk is not the server's silence.
        patience.stop()
        yield chunk as Uint8Array
        patience.start()
      }
    } catch (error) {
      throw this.#classify(error, signal, this.#place)
    }
  }

  /** What is to be thrown for what fetch threw, or a body. */
  #classify(error: unknown, signal: AbortSignal, { host }: URL): unknown {
    if (signal.aborted) {
      return signal.reason
    }
    const { reason, code, isLasting } = connectionFailure(error, host)
    return isLasting || (code === 'ENOTFOUND' && !this.#hasAnswered)
      ? this.failure(reason, error)
      : new TryAgain(reason, 0, error)
  }

  /** An error that says what the server did. */
  failure(message: string, cause?: unknown): Qcow2SourceError {
    return new Qcow2SourceError('ERR_QCOW2_REQUEST_FAILED', message, { layer: this.label }, cause)
  }
}

/** A part of an address, without its percent signs where they mean something. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

/** The answer's status in its own words. */
export const statusOf = ({ status, statusText }: Response): string =>
  statusText === '' ? String(status) : `${status} ${quoteText(statusText).slice(1, -1)}`

/** Milliseconds that the server asks for: seconds, or a date. */
function retryAfter({ headers }: Response): number {
  const value = headers.get('retry-after') ?? ''
  const milliseconds = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return milliseconds > 0 ? milliseconds : 0
}
