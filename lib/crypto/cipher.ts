/**
 * Encrypted sectors to plain bytes, many at once.
 *
 * Pure: knows sectors and their numbers, not where they lie. Invariant: a sector's bytes depend on its number and the key
 * alone, so that any run of sectors can be decrypted anywhere. What AES does to blocks is one call for a long run of them; a
 * decipher object for each sector would take ten times as long. What chains blocks is done here, over typed arrays.
 */
import { createCipheriv, createDecipheriv, type Cipher, type Decipher } from 'node:crypto'
import { SpentMemory } from './spent-memory.js'

/** Bytes that are encrypted with one initialization vector. */
export const SECTOR_BYTES = 512

/** How the sectors of an image are encrypted, keys included. */
export interface CipherSpec {
  readonly mode: 'xts' | 'cbc' | 'ecb'
  /**
   * How the initialization vector follows from the sector's number: its low 32 bits, its 64 bits, or these encrypted with
   * another key.
   */
  readonly iv: 'plain' | 'plain64' | 'essiv'
  /**
   * AES key of 16, 24 or 32 bytes; for `xts` two of them, that for the blocks and that for the tweaks. In memory of its own, so
   * that a thread can be sent it and nothing else.
   */
  readonly key: Uint8Array
  /** For `essiv`: the key that sector numbers are encrypted with; in memory of its own. */
  readonly essivKey: Uint8Array | undefined
}

// Long enough for one call to cost nothing, short enough for the processor's caches.
const PIECE_SECTORS = 256
const BLOCK_WORDS = 4
const SECTOR_WORDS = SECTOR_BYTES / 4

/** A cipher that threads know again: they make what they need of it once. */
export interface DiskKey {
  /** Of this cipher alone, in this process. */
  readonly id: number
  readonly spec: CipherSpec
}

let lastId = 0

/** A cipher with a number of its own. */
export const diskKey = (spec: CipherSpec): DiskKey => ({ id: ++lastId, spec })

/** Overwrites the keys of a cipher; what was made of them goes on. */
export function wipe({ key, essivKey }: CipherSpec): void {
  key.fill(0)
  essivKey?.fill(0)
}

/** What all ciphers of a thread work in, as only one of them ever does at a time. */
interface Workspace {
  readonly words: Uint32Array
  readonly bytes: Uint8Array
  readonly spent: SpentMemory
}

let workspace: Workspace | undefined

function sharedWorkspace(): Workspace {
  if (workspace === undefined) {
    const words = new Uint32Array(PIECE_SECTORS * SECTOR_WORDS)
    workspace = { words, bytes: new Uint8Array(words.buffer), spent: new SpentMemory() }
  }
  return workspace
}

/** Overwrites what is left in memory, other than its targets, of what this thread decrypted. */
export function wipeWorkspace(): void {
  workspace?.bytes.fill(0)
  workspace?.spent.wipe()
}

/** Decrypts the sectors of one image. */
export class SectorCipher {
  readonly #spec: CipherSpec
  readonly #blocks: Decipher
  readonly #tweaks: Cipher | undefined
  readonly #essiv: Cipher | undefined

  constructor(spec: CipherSpec) {
    const { mode, key, iv, essivKey } = spec
    const half = mode === 'xts' ? key.length / 2 : key.length
    this.#spec = spec
    this.#blocks = createDecipheriv(ecb(half), key.subarray(0, half), null).setAutoPadding(false)
    this.#tweaks = mode === 'xts' ? encrypter(key.subarray(half)) : undefined
    this.#essiv = iv === 'essiv' ? encrypter(essivKey!) : undefined
  }

  /**
   * Decrypts whole sectors in place.
   *
   * @param bytes A multiple of {@link SECTOR_BYTES}, anywhere in memory.
   * @param sector Number of the first one, 0 to 2^53 - 1.
   */
  decrypt(bytes: Uint8Array, sector: number): void {
    for (let at = 0; at < bytes.length; at += PIECE_SECTORS * SECTOR_BYTES) {
      this.#decryptPiece(bytes.subarray(at, at + PIECE_SECTORS * SECTOR_BYTES), sector + at / SECTOR_BYTES)
    }
  }

  #decryptPiece(bytes: Uint8Array, sector: number): void {
    const { mode } = this.#spec
    const { words, bytes: scratch, spent } = sharedWorkspace()
    // Words need memory that is aligned, which the caller's may not be.
    const stored = scratch.subarray(0, bytes.length)
    stored.set(bytes)
    const storedWords = words.subarray(0, bytes.length / 4)
    const vectors = mode === 'ecb' ? undefined : this.#vectors(sector, bytes.length / SECTOR_BYTES)
    if (mode === 'xts') {
      mask(storedWords, vectors!)
    }
    const plain = this.#blocks.update(stored)
    if (mode === 'xts') {
      mask(wordsOf(plain), vectors!)
    } else if (mode === 'cbc') {
      unchain(wordsOf(plain), storedWords, vectors!)
    }
    bytes.set(plain)
    spent.add(plain)
  }

  /** The initialization vectors of sectors that follow each other; for `xts`, the tweaks that they are encrypted to. */
  #vectors(sector: number, count: number): Uint32Array {
    const { iv } = this.#spec
    const bytes = new Uint8Array(count * BLOCK_WORDS * 4)
    const view = new DataView(bytes.buffer)
    for (let i = 0; i < count; i++) {
      const number = sector + i
      view.setUint32(i * 16, number % 2 ** 32, true)
      view.setUint32(i * 16 + 4, iv === 'plain' ? 0 : Math.floor(number / 2 ** 32), true)
    }
    const vectors = this.#essiv?.update(bytes) ?? bytes
    return wordsOf(this.#tweaks?.update(vectors) ?? vectors)
  }
}

const ecb = (keyBytes: number): string => `aes-${keyBytes * 8}-ecb`

const encrypter = (key: Uint8Array): Cipher => createCipheriv(ecb(key.length), key, null).setAutoPadding(false)

/** Bytes as words in the processor's order. They are aligned: what a cipher returns has memory of its own. */
const wordsOf = ({ buffer, byteOffset, byteLength }: Uint8Array): Uint32Array =>
  new Uint32Array(buffer, byteOffset, byteLength / 4)

/**
 * XORs each block with its tweak, which is doubled from block to block of a sector: as a number whose lowest byte comes
 * first, hence words must do so too, as on every processor that Node is built for but s390x. IEEE 1619, "XTS-AES".
 */
function mask(words: Uint32Array, tweaks: Uint32Array): void {
  let at = 0
  for (let s = 0; s < tweaks.length; s += BLOCK_WORDS) {
    let a = tweaks[s]!
    let b = tweaks[s + 1]!
    let c = tweaks[s + 2]!
    let d = tweaks[s + 3]!
    for (const end = at + SECTOR_WORDS; at < end; at += BLOCK_WORDS) {
      words[at]! ^= a
      words[at + 1]! ^= b
      words[at + 2]! ^= c
      words[at + 3]! ^= d
      // What leaves at the top comes back as x^7 + x^2 + x + 1.
      const carry = (d >> 31) & 0x87
      d = (d << 1) | (c >>> 31)
      c = (c << 1) | (b >>> 31)
      b = (b << 1) | (a >>> 31)
      a = (a << 1) ^ carry
    }
  }
}

/** XORs each block with the encrypted one before it, the first of each sector with its vector: what CBC leaves to be done. */
function unchain(words: Uint32Array, encrypted: Uint32Array, vectors: Uint32Array): void {
  for (let at = 0, v = 0; at < words.length; at += SECTOR_WORDS, v += BLOCK_WORDS) {
    for (let i = 0; i < BLOCK_WORDS; i++) {
      words[at + i]! ^= vectors[v + i]!
    }
    for (let i = at + BLOCK_WORDS; i < at + SECTOR_WORDS; i++) {
      words[i]! ^= encrypted[i - BLOCK_WORDS]!
    }
  }
}
