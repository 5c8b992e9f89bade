/**
 * Failed connections: which of them will fail again, and what is said of them.
 */
import t from 'tap'
import { connectionFailure } from '../../../lib/source/connection-error.js'

const HOST = 'disks.example:8443'

/** As fetch throws it: the system's error is the cause. */
const fetchError = (code: string, message: string): Error =>
  new TypeError('fetch failed', { cause: Object.assign(new Error(message), { code }) })

t.test('what may pass is not lasting, and keeps its code', async (t) => {
  for (const code of ['ECONNREFUSED', 'ECONNRESET', 'ETIMEDOUT', 'UND_ERR_SOCKET', 'ENOTFOUND', 'EAI_AGAIN']) {
    t.strictSame(connectionFailure(fetchError(code, 'lost'), HOST), { reason: 'lost', code, isLasting: false })
  }
})

t.test('what cannot be sent, or is no HTTP, is lasting', async (t) => {
  for (const code of ['HPE_INVALID_CONSTANT', 'ERR_INVALID_CHAR', 'UND_ERR_INVALID_ARG', 'UND_ERR_NOT_SUPPORTED']) {
    t.strictSame(connectionFailure(fetchError(code, 'no'), HOST), { reason: 'no', code, isLasting: true })
  }
  const unsent = { reason: 'bad port', code: undefined, isLasting: true }
  t.strictSame(connectionFailure(new TypeError('fetch failed', { cause: new Error('bad port') }), HOST), unsent)
  t.strictSame(connectionFailure(new Error('bad port'), HOST), unsent, 'without a cause it is the error itself')
})

t.test('of several addresses the first gives the reason', async (t) => {
  const cause = Object.assign(new AggregateError([new Error('first'), new Error('second')]), { code: 'ECONNREFUSED' })
  t.match(connectionFailure(new TypeError('fetch failed', { cause }), HOST), { reason: 'first', isLasting: false })
})

t.test('TLS: host, reason in words, and what helps where something does', async (t) => {
  const trust = '; the environment variable NODE_EXTRA_CA_CERTS names a file of further authorities to trust'
  const plain = '; the server may not speak TLS: its address then begins with http:'
  const openssl = (reason: string): string =>
    `80AB:error:0A00010B:SSL routines:ssl3_get_record:${reason}:../deps/openssl/openssl/ssl/record/ssl3_record.c:350:\n`
  const cases: [code: string, message: string, reason: string, hint: string][] = [
    ['DEPTH_ZERO_SELF_SIGNED_CERT', 'self-signed certificate', 'self-signed certificate', trust],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'self-signed in chain', 'self-signed in chain', trust],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'unable to verify', 'unable to verify', trust],
    ['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'no issuer', 'no issuer', trust],
    ['CERT_HAS_EXPIRED', 'certificate has expired', 'certificate has expired', ''],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'does not match', 'does not match', ''],
    ['ERR_SSL_WRONG_VERSION_NUMBER', openssl('wrong version number'), 'wrong version number', plain],
    ['ERR_SSL_PACKET_LENGTH_TOO_LONG', openssl('packet length too long'), 'packet length too long', plain],
    ['ERR_SSL_TLSV1_ALERT_INTERNAL_ERROR', openssl('tlsv1 alert'), 'tlsv1 alert', ''],
  ]
  for (const [code, message, reason, hint] of cases) {
    t.strictSame(connectionFailure(fetchError(code, message), HOST), {
      reason: `TLS with "disks.example:8443" failed: ${reason}${hint}`,
      code,
      isLasting: true,
    })
  }
})
