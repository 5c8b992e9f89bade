/**
 * LUKS: from a passphrase to the key that sectors are encrypted with.
 *
 * Pure but for the time that it takes: key material comes from the caller. Invariant: what is derived on the way is overwritten
 * once it has been used, and no step that takes long keeps the event loop. Spec: LUKS On-Disk Format 1, "Master key recovery".
 */
import { createHash, getHashes, pbkdf2 } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Qcow2FormatError, Qcow2UnsupportedError, quoteText } from '../errors.js'
import { LUKS_STRIPES, type LuksHeader, type LuksKeySlot } from '../format/luks-header.js'
import { SectorCipher, wipe, wipeWorkspace, type CipherSpec } from './cipher.js'

/** How a header says that keys are derived and sectors encrypted: everything but the keys. */
export interface LuksScheme {
  readonly mode: CipherSpec['mode']
  readonly iv: CipherSpec['iv']
  /** Of the key that encrypts sector numbers; undefined unless `iv` is `essiv`. */
  readonly essivHash: string | undefined
  /** Of PBKDF2, of the anti-forensic splitter and of the master key's digest. */
  readonly hash: string
}

const MODES: readonly string[] = ['xts', 'cbc', 'ecb'] satisfies CipherSpec['mode'][]
const IVS: readonly string[] = ['plain', 'plain64', 'essiv'] satisfies CipherSpec['iv'][]
const HASHES: readonly string[] = ['sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160', 'md5']
const AES_KEY_BYTES: readonly number[] = [16, 24, 32]

// Some milliseconds of work: what else there is to do has its turn after so many stripes.
const STRIPES_PER_TURN = 500

const deriveNow = promisify(pbkdf2)
let lastDerivation: Promise<unknown> = Promise.resolve()

/**
 * PBKDF2. One at a time in the whole process, as each keeps one of the few threads that reads of files wait for as well. It
 * cannot be stopped: after an abort it goes on for nobody.
 */
async function derive(
  secret: Uint8Array,
  salt: Uint8Array,
  iterations: number,
  bytes: number,
  hash: string,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  signal?.throwIfAborted()
  const derivation = lastDerivation.then(async () => {
    signal?.throwIfAborted()
    const key = await deriveNow(secret, salt, iterations, bytes, hash)
    return signal?.aborted === true ? key.fill(0) : key
  })
  lastDerivation = derivation.catch(() => undefined)
  let abort: (() => void) | undefined
  const aborted = new Promise<never>((_resolve, reject) => {
    abort = () => {
      reject(signal!.reason as Error)
    }
    signal?.addEventListener('abort', abort)
  })
  try {
    return await Promise.race([derivation, aborted])
  } finally {
    signal?.removeEventListener('abort', abort!)
  }
}

/**
 * The scheme of a header.
 *
 * @param facts What an error is to say about the image.
 * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNSUPPORTED_ENCRYPTION`, with the name of what is not supported
 * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_LUKS_HEADER` if the key has a length that the cipher does not know
 */
export function schemeOf(header: LuksHeader, facts: { layer: string; hostOffset: number }): LuksScheme {
  const oneOf = (field: string, actual: string, known: readonly string[]): string => {
    if (known.includes(actual)) {
      return actual
    }
    throw new Qcow2UnsupportedError(
      'ERR_QCOW2_UNSUPPORTED_ENCRYPTION',
      `the image is encrypted with LUKS, ${field} ${quoteText(actual)}; ${known.join(', ')} can be read`,
      { ...facts, field, actual },
    )
  }
  const offered = getHashes()
  const hashes = HASHES.filter((name) => offered.includes(name))
  oneOf('cipherName', header.cipherName, ['aes'])
  // As in "xts-plain64" or "cbc-essiv:sha256"; a mode without vectors has nothing to say about them.
  const [, mode = '', generator = header.cipherMode === 'ecb' ? 'plain64' : '', ivHash] =
    /^([^-]*)(?:-([^:]*)(?::(.*))?)?$/s.exec(header.cipherMode)!
  const scheme = {
    mode: oneOf('cipherMode', mode, MODES) as CipherSpec['mode'],
    iv: oneOf('ivgen', generator, IVS) as CipherSpec['iv'],
    hash: oneOf('hashSpec', header.hashSpec, hashes),
  }
  const keys = scheme.mode === 'xts' ? 2 : 1
  if (!AES_KEY_BYTES.includes(header.keyBytes / keys)) {
    throw new Qcow2FormatError(
      'ERR_QCOW2_BAD_LUKS_HEADER',
      `LUKS header field keyBytes: found ${header.keyBytes}, allowed is ${AES_KEY_BYTES.map((n) => n * keys).join(', ')} for aes-${mode}`,
      { ...facts, field: 'keyBytes', actual: header.keyBytes },
    )
  }
  // The digest is a key of AES itself.
  const essivHashes = hashes.filter((name) => AES_KEY_BYTES.includes(digestBytes(name)))
  if (scheme.iv === 'essiv') {
    return { ...scheme, essivHash: oneOf('ivgen hash', ivHash ?? '', essivHashes) }
  }
  if (ivHash !== undefined) {
    oneOf('ivgen hash', ivHash, hashes)
  }
  return { ...scheme, essivHash: undefined }
}

/** How many iterations of PBKDF2 it takes to find that a passphrase fits no key slot: each for one digest. */
export function iterationsToTry(header: LuksHeader, { hash }: LuksScheme): number {
  const digests = (bytes: number): number => Math.ceil(bytes / digestBytes(hash))
  const { keyBytes, mkDigest, mkDigestIterations } = header
  return header.keySlots
    .filter(({ isActive }) => isActive)
    .reduce(
      (sum, { iterations }) => sum + iterations * digests(keyBytes) + mkDigestIterations * digests(mkDigest.length),
      0,
    )
}

/**
 * The cipher that a passphrase opens; undefined if it fits no active key slot.
 *
 * @param readMaterial Reads a slot's key material, {@link keyMaterialBytes} bytes, into memory that is overwritten here.
 * @param signal Ends the search with its reason.
 */
export async function unlock(
  header: LuksHeader,
  scheme: LuksScheme,
  passphrase: Uint8Array,
  readMaterial: (slot: LuksKeySlot) => Promise<Uint8Array>,
  signal?: AbortSignal,
): Promise<CipherSpec | undefined> {
  const { keyBytes, mkDigest, mkDigestSalt, mkDigestIterations } = header
  for (const slot of header.keySlots.filter(({ isActive }) => isActive)) {
    const material = await readMaterial(slot)
    const { salt, iterations } = slot
    const slotKey = specOf(scheme, await derive(passphrase, salt, iterations, keyBytes, scheme.hash, signal))
    new SectorCipher(slotKey).decrypt(material, 0)
    wipe(slotKey)
    wipeWorkspace()
    const masterKey = await merge(material, keyBytes, scheme.hash)
    material.fill(0)
    try {
      const digest = await derive(masterKey, mkDigestSalt, mkDigestIterations, mkDigest.length, scheme.hash, signal)
      if (digest.equals(mkDigest)) {
        return specOf(scheme, masterKey)
      }
    } finally {
      masterKey.fill(0)
    }
  }
  return undefined
}

/** The cipher with this key, which is moved into it. */
function specOf({ mode, iv, essivHash }: LuksScheme, keyBytes: Buffer): CipherSpec {
  const key = Uint8Array.from(keyBytes)
  keyBytes.fill(0)
  const digest = essivHash === undefined ? undefined : createHash(essivHash).update(key).digest()
  const essivKey = digest && Uint8Array.from(digest)
  digest?.fill(0)
  return { mode, iv, key, essivKey }
}

/** What was split into stripes, all of which it takes to have any of it. Spec: "Anti-forensic splitter", AFmerge. */
async function merge(material: Uint8Array, keyBytes: number, hash: string): Promise<Buffer> {
  const block = Buffer.alloc(keyBytes)
  for (let stripe = 0; stripe < LUKS_STRIPES; stripe++) {
    if (stripe > 0) {
      diffuse(block, hash)
    }
    for (let i = 0; i < keyBytes; i++) {
      block[i]! ^= material[stripe * keyBytes + i]!
    }
    if (stripe % STRIPES_PER_TURN === 0) {
      await setImmediate()
    }
  }
  return block
}

/** Replaces each part of a block that is as long as a digest with the digest of its number and itself; the last may be shorter. */
function diffuse(block: Buffer, hash: string): void {
  const partBytes = digestBytes(hash)
  const number = Buffer.alloc(4)
  for (let at = 0, i = 0; at < block.length; at += partBytes, i++) {
    number.writeUInt32BE(i)
    const part = block.subarray(at, at + partBytes)
    const digest = createHash(hash).update(number).update(part).digest()
    digest.copy(part)
    digest.fill(0)
  }
}

const lengths = new Map<string, number>()

/** Bytes of a digest. */
function digestBytes(hash: string): number {
  const known = lengths.get(hash) ?? createHash(hash).digest().length
  lengths.set(hash, known)
  return known
}
