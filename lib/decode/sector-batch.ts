/**
 * Decrypting many runs of sectors at once, in this thread or in another.
 *
 * Pure. Invariant: a key is made into a cipher once, and the copy of it that a batch brought is overwritten then.
 */
import { SectorCipher, wipe, type CipherSpec, type DiskKey } from '../crypto/cipher.js'

/** Numbers of `SectorBatch.runs` for each run. */
export const RUN_NUMBERS = 3

/** Runs of sectors of one image, each of which is decrypted where it lies. */
export interface SectorBatch {
  /** Of the key. */
  readonly keyId: number
  /** The key itself, if it is the first batch with it that its receiver gets; the receiver's own. */
  readonly spec: CipherSpec | undefined
  readonly target: Uint8Array
  /** For each run: where it begins in the target, how many bytes it has, and the number of its first sector. */
  readonly runs: Float64Array
}

/** Makes batches for one receiver, which gets each key once. */
export class SectorSender {
  readonly #known = new Set<number>()

  batch({ id, spec }: DiskKey, target: Uint8Array, runs: Float64Array): SectorBatch {
    const isKnown = this.#known.has(id)
    this.#known.add(id)
    return { keyId: id, spec: isKnown ? undefined : spec, target, runs }
  }

  /** The receiver does not have the key, whatever it was sent: it comes with the next batch again. */
  forget({ id }: DiskKey): void {
    this.#known.delete(id)
  }
}

/** Decrypts batches, whatever their keys. */
export class SectorDecrypter {
  readonly #ciphers = new Map<number, SectorCipher>()

  /** Whether it was decrypted: not if the key did not come with this batch or one before. */
  decrypt({ keyId, spec, target, runs }: SectorBatch): boolean {
    if (spec !== undefined) {
      this.#ciphers.set(keyId, new SectorCipher(spec))
      wipe(spec)
    }
    const cipher = this.#ciphers.get(keyId)
    if (cipher === undefined) {
      return false
    }
    for (let at = 0; at < runs.length; at += RUN_NUMBERS) {
      const [from, length, sector] = [runs[at]!, runs[at + 1]!, runs[at + 2]!]
      cipher.decrypt(target.subarray(from, from + length), sector)
    }
    return true
  }
}
