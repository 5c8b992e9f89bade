/**
 * The encryption of qcow2's first years: the passphrase itself is the key, and nothing tells a wrong one from the right one.
 *
 * Pure. Spec: "Header", crypt_method 1.
 */
import type { CipherSpec } from './cipher.js'

const KEY_BYTES = 16

/** The cipher that a passphrase stands for: of its bytes the first 16 count, and zeros where it has fewer. */
export function legacyKey(passphrase: Uint8Array): CipherSpec {
  const key = new Uint8Array(KEY_BYTES)
  key.set(passphrase.subarray(0, KEY_BYTES))
  return { mode: 'cbc', iv: 'plain64', key, essivKey: undefined }
}
