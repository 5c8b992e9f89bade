/** How patiently, and with which headers, a server is asked. */
import { Qcow2UsageError, quoteText } from '../errors.js'

/** How a server is asked. */
export interface Qcow2HttpOptions {
  /**
   * Sent with every request to the origin of the image's URL (authorization, cookies), and to no other origin: neither one that it
   * redirects to, nor that of a backing or data file. If the image is no URL, sent to those of the files that options name. Default: none; user and password in a URL become an Authorization header.
   */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** Most requests that are under way at once, for each file, 1 to 64. Default: 6. */
  readonly requests?: number | undefined
  /**
   * How often in a row a request is tried again after a failed connection, a status of 429 or of 500 and above, or an answer
   * that breaks off, 0 to 100. Whatever arrives meanwhile counts anew. From a server that answers no requests for parts of a file the
   * download begins again at the first byte: it counts anew if the last try came further than all before it. Default: 5.
   */
  readonly retries?: number | undefined
  /** Milliseconds before it is tried again, 0 to 60 000; doubled each time, to at most 30 seconds, unless the server asks for more. Default: 500. */
  readonly retryMilliseconds?: number | undefined
  /** Milliseconds of waiting without a byte from the server after which a request has failed, 1 to 300 000. Default: 60 000. */
  readonly idleMilliseconds?: number | undefined
}

const RANGES = {
  requests: { low: 1, high: 64, default: 6 },
  retries: { low: 0, high: 100, default: 5 },
  retryMilliseconds: { low: 0, high: 60_000, default: 500 },
  // Node's fetch itself waits no longer.
  idleMilliseconds: { low: 1, high: 300_000, default: 60_000 },
} as const

/** The options, checked. @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT` */
export function checkHttpOptions(options: Qcow2HttpOptions = {}): { [name in keyof typeof RANGES]: number } & {
  headers: Headers
} {
  const bad = (field: string, found: string, allowed: string, actual?: unknown): Qcow2UsageError =>
    new Qcow2UsageError('ERR_QCOW2_BAD_ARGUMENT', `${field}: found ${found}, allowed are ${allowed}`, { field, actual })
  if (Object.prototype.toString.call(options) !== '[object Object]') {
    throw bad('http', 'something else', 'objects', options)
  }
  let headers: Headers
  try {
    headers = new Headers(options.headers)
  } catch {
    // What was found may be a secret, and stands in what was caught.
    throw bad('http.headers', 'what cannot be sent as headers', 'names and values of headers')
  }
  const checked = { headers, requests: 0, retries: 0, retryMilliseconds: 0, idleMilliseconds: 0 }
  for (const name of Object.keys(RANGES) as (keyof typeof RANGES)[]) {
    const { low, high } = RANGES[name]
    const value = options[name] ?? RANGES[name].default
    if (!Number.isInteger(value) || value < low || value > high) {
      throw bad(`http.${name}`, quoteText(String(value)), `integers from ${low} to ${high}`, value)
    }
    checked[name] = value
  }
  return checked
}
