/**
 * What a connection that failed says: in words, and whether another try may do better.
 *
 * Knows the codes of Node, its fetch and OpenSSL, not what was asked for.
 */
import { quoteText, reasonOf } from '../errors.js'

const TLS_CODES = /^(?:ERR_TLS_|ERR_SSL_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH)/
// Of these another try changes nothing: no HTTP, headers that cannot be sent.
const LASTING_CODES = /^(?:HPE_|ERR_INVALID_|UND_ERR_INVALID_ARG|UND_ERR_NOT_SUPPORTED)/
const HINTS: readonly (readonly [codes: RegExp, hint: string])[] = [
  [
    /^(?:DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_GET_ISSUER|UNABLE_TO_VERIFY_LEAF|CERT_UNTRUSTED)/,
    '; the environment variable NODE_EXTRA_CA_CERTS names a file of further authorities to trust',
  ],
  [
    /^ERR_SSL_(?:WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG)$/,
    '; the server may not speak TLS: its address then begins with http:',
  ],
]

/** What is known of a failure. */
export interface ConnectionFailure {
  /** One line for the end of a message. */
  readonly reason: string
  /** Of the system, OpenSSL or fetch; undefined for what was not even sent: to a port that fetch refuses, for example. */
  readonly code: string | undefined
  /** Whether the same will happen again. */
  readonly isLasting: boolean
}

/**
 * What a failure says.
 *
 * @param error What fetch threw, or the body of its answer.
 * @param host Whom the connection was for, with its port.
 */
export function connectionFailure(error: unknown, host: string): ConnectionFailure {
  const { cause = error } = error as { cause?: unknown }
  const { code } = cause as { code?: string }
  // Where a name has several addresses there is a failure for each, in an error without words.
  const words = reasonOf(cause instanceof AggregateError ? cause.errors[0] : cause)
  if (code === undefined || !TLS_CODES.test(code)) {
    return { reason: words, code, isLasting: code === undefined || LASTING_CODES.test(code) }
  }
  // OpenSSL says in which function of which file, too.
  const reason = words.replace(/^.*:SSL routines:[^:]*:([^:]+):.*$/, '$1')
  const hint = HINTS.find(([codes]) => codes.test(code))?.[1] ?? ''
  return { reason: `TLS with ${quoteText(host)} failed: ${reason}${hint}`, code, isLasting: true }
}
