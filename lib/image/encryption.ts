/**
 * Unlocks encrypted layers: asks the caller for a passphrase and finds the key that it opens.
 *
 * Knows where the encryption header is and what a layer needs, not how keys are derived. Invariant: a passphrase and what is
 * derived from it appear in no error, and the copies made here are overwritten. Spec: "Full disk encryption header pointer",
 * "Data encryption"; "Header", crypt_method.
 */
import { endianness } from 'node:os'
import { diskKey, wipe, type CipherSpec, type DiskKey } from '../crypto/cipher.js'
import { legacyKey } from '../crypto/legacy-aes.js'
import { iterationsToTry, schemeOf, unlock, type LuksScheme } from '../crypto/luks.js'
import { Qcow2AccessError, Qcow2FormatError, Qcow2UnsupportedError } from '../errors.js'
import {
  keyMaterialBytes,
  LUKS_HEADER_BYTES,
  parseLuksHeader,
  type LuksHeader,
  type LuksKeySlot,
} from '../format/luks-header.js'
import type { HostFile } from '../source/source.js'
import type { Metadata } from './metadata.js'
import { badOption } from './options.js'
import { refusePastEnd } from './stored-bytes.js'

/** A layer whose passphrase is asked for. */
export interface Qcow2EncryptedLayer {
  /** Path (or description) of the image file. */
  readonly file: string
  /** Layer of the chain: 0 is the image itself, 1 its backing file, and so on. */
  readonly depth: number
  readonly encryption: 'luks' | 'aes'
}

/**
 * The passphrase of an encrypted image: text stands for its UTF-8 bytes, and bytes for themselves; it serves every encrypted layer
 * of the chain. A function is asked for that of each, from the image itself down, and may say that there is none.
 */
export type Qcow2Passphrase =
  | string
  | Uint8Array
  | ((layer: Qcow2EncryptedLayer) => string | Uint8Array | undefined | Promise<string | Uint8Array | undefined>)

/** How a layer's data clusters are encrypted. */
export interface LayerEncryption {
  readonly method: 'luks' | 'aes'
  /** Undefined if there was no passphrase. */
  readonly key: DiskKey | undefined
}

const WHAT = { luks: 'LUKS', aes: 'AES' } as const

/** The encrypted layers of one chain. */
export class Encryption {
  readonly #keys: DiskKey[] = []
  #iterations = 0
  /** Why the disk cannot be read: the first layer for which there was no passphrase. */
  locked: Qcow2AccessError | undefined

  /**
   * @param maxIterations Most iterations of PBKDF2 to try passphrases, for all layers together.
   * @param signal Ends the search for keys.
   * @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT`
   */
  constructor(
    private passphrase: Qcow2Passphrase | undefined,
    private readonly maxIterations: number,
    private readonly signal?: AbortSignal,
  ) {
    if (passphrase !== undefined && typeof passphrase !== 'function' && !isPassphrase(passphrase)) {
      throw badPassphrase(passphrase)
    }
  }

  /**
   * What it takes to read the layer's data; undefined if it is not encrypted.
   *
   * @throws {Qcow2AccessError} `ERR_QCOW2_WRONG_PASSPHRASE`
   * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_LUKS_HEADER`, `ERR_QCOW2_TRUNCATED`
   * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNSUPPORTED_ENCRYPTION`, `ERR_QCOW2_UNLOCKING_TOO_COSTLY`
   * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
   */
  async unlock(file: HostFile, metadata: Metadata, depth: number): Promise<LayerEncryption | undefined> {
    const { cryptMethod } = metadata.header
    if (cryptMethod === 0) {
      return undefined
    }
    const method = cryptMethod === 1 ? 'aes' : 'luks'
    const open = method === 'aes' ? legacyKey : await this.#openLuks(file, metadata)
    const passphrase = await this.#ask({ file: file.label, depth, encryption: method })
    if (passphrase === undefined) {
      this.locked ??= new Qcow2AccessError(
        'ERR_QCOW2_PASSPHRASE_REQUIRED',
        `the image is encrypted (${WHAT[method]}); the option passphrase opens it`,
        { layer: file.label, field: 'passphrase' },
      )
      return { method, key: undefined }
    }
    try {
      const key = diskKey(await open(passphrase))
      this.#keys.push(key)
      return { method, key }
    } finally {
      passphrase.fill(0)
    }
  }

  /** A copy of the passphrase, to be overwritten. */
  async #ask(layer: Qcow2EncryptedLayer): Promise<Uint8Array | undefined> {
    const { passphrase } = this
    const answer = typeof passphrase === 'function' ? await passphrase(layer) : passphrase
    return answer === undefined ? undefined : bytesOf(answer)
  }

  /** Lets go of the passphrase; to be called when all layers are open. */
  forgetPassphrase(): void {
    this.passphrase = undefined
  }

  /** Reads and checks the LUKS header of an image; what comes back finds the key that a passphrase opens. */
  async #openLuks(file: HostFile, metadata: Metadata): Promise<(passphrase: Uint8Array) => Promise<CipherSpec>> {
    const layer = file.label
    const { header, scheme, hostOffset } = await readLuks(file, metadata)
    /* c8 ignore next 7 (no such machine runs the tests) */
    if (endianness() !== 'LE') {
      throw new Qcow2UnsupportedError(
        'ERR_QCOW2_UNSUPPORTED_ENCRYPTION',
        'the image is encrypted (LUKS), which is read on little-endian processors only',
        { layer },
      )
    }
    const { maxIterations, signal } = this
    this.#iterations += iterationsToTry(header, scheme)
    if (this.#iterations > maxIterations) {
      throw new Qcow2UnsupportedError(
        'ERR_QCOW2_UNLOCKING_TOO_COSTLY',
        `trying passphrases takes ${this.#iterations} iterations of PBKDF2 up to this layer; ` +
          `the option limits.keyIterations allows ${maxIterations}`,
        { layer, hostOffset, field: 'limits.keyIterations', actual: this.#iterations },
      )
    }
    return async (passphrase) => {
      const readMaterial = ({ index, keyMaterialOffset }: LuksKeySlot): Promise<Uint8Array> =>
        readPart(
          file,
          `the material of key slot ${index}`,
          hostOffset + keyMaterialOffset,
          keyMaterialBytes(header.keyBytes),
        )
      const spec = await unlock(header, scheme, passphrase, readMaterial, signal)
      if (spec === undefined) {
        const active = header.keySlots.filter(({ isActive }) => isActive).length
        throw new Qcow2AccessError(
          'ERR_QCOW2_WRONG_PASSPHRASE',
          `the passphrase fits none of the image's key slots (active ones: ${active})`,
          { layer, hostOffset, field: 'passphrase' },
        )
      }
      return spec
    }
  }

  /** Overwrites all keys; to be called when nothing is being decrypted. */
  wipe(): void {
    for (const { spec } of this.#keys.splice(0)) {
      wipe(spec)
    }
  }
}

/**
 * The LUKS header of an image, how it says that sectors are encrypted, and where it is (bytes from the beginning of the file).
 *
 * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_LUKS_HEADER`, `ERR_QCOW2_TRUNCATED`
 * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNSUPPORTED_ENCRYPTION`
 * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
 */
export async function readLuks(
  file: HostFile,
  { extensions }: Metadata,
): Promise<{ header: LuksHeader; scheme: LuksScheme; hostOffset: number }> {
  const layer = file.label
  const { cryptoHeader } = extensions
  if (cryptoHeader === undefined) {
    throw new Qcow2FormatError(
      'ERR_QCOW2_BAD_LUKS_HEADER',
      'the image is encrypted (LUKS), and no header extension says where its encryption header is',
      { layer, field: 'cryptoHeader' },
    )
  }
  const { offset: hostOffset, length } = cryptoHeader
  const start = await readPart(file, 'the LUKS header', hostOffset, Math.min(LUKS_HEADER_BYTES, length))
  const header = parseLuksHeader(start, { layer, hostOffset, length })
  return { header, scheme: schemeOf(header, { layer, hostOffset }), hostOffset }
}

async function readPart(file: HostFile, what: string, offset: number, bytes: number): Promise<Uint8Array> {
  refusePastEnd(file, offset, bytes, what, 'cryptoHeader')
  const target = new Uint8Array(bytes)
  await file.read(target, offset)
  return target
}

const isPassphrase = (value: unknown): value is string | Uint8Array =>
  typeof value === 'string' || value instanceof Uint8Array

/** Says what it is, not what it says. */
const badPassphrase = (value: unknown): Error =>
  badOption('passphrase', typeof value, 'text, a Uint8Array or a function that returns one of them')

/** The bytes of a passphrase, in memory of their own. @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT` */
function bytesOf(passphrase: unknown): Uint8Array {
  if (!isPassphrase(passphrase)) {
    throw badPassphrase(passphrase)
  }
  return typeof passphrase === 'string' ? new TextEncoder().encode(passphrase) : Uint8Array.from(passphrase)
}
