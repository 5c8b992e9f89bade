/** Choices that are the same for the same seed and mutant, whatever came before. */
import { uniformInt } from 'pure-rand/distribution/uniformInt'
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus'

export class Random {
  readonly #generator

  constructor(seed: number, mutant: number) {
    this.#generator = xoroshiro128plus(Math.imul(seed, 0x9e3779b1) ^ Math.imul(mutant + 1, 0x85ebca6b))
  }

  /** An integer from 0 to `end` - 1. */
  below(end: number): number {
    return uniformInt(this.#generator, 0, end - 1)
  }

  /** Whether something happens that happens once in `n` times. */
  oneIn(n: number): boolean {
    return this.below(n) === 0
  }

  /** One of them, of which there is at least one. */
  pick<T>(things: readonly T[]): T {
    return things[this.below(things.length)]!
  }

  bytes(length: number): Buffer {
    return Buffer.from(Uint8Array.from({ length }, () => this.below(256)))
  }

  /** A word of so many bytes: often one at an edge, or with one bit, or small. */
  word(width: number, near: bigint): bigint {
    const bits = 8 * width
    const value = this.#wordNear(bits, near)
    return BigInt.asUintN(bits, value)
  }

  #wordNear(bits: number, near: bigint): bigint {
    switch (this.below(9)) {
      case 0:
        return BigInt(this.below(4))
      case 1:
        return near ^ (1n << BigInt(this.below(bits)))
      case 2:
        return near + BigInt(this.below(5) - 2)
      case 3:
        return near + BigInt(this.below(65) - 32) * 512n
      case 4:
        return (1n << BigInt(this.below(bits + 1))) - BigInt(this.below(3))
      case 5:
        return -1n - BigInt(this.below(3))
      case 6:
        return BigInt(this.below(2 ** 20)) * 512n
      case 7:
        return near & (1n << 63n) ? near & ~(1n << 63n) : near | (1n << 62n)
      default:
        return this.bytes(8).readBigUInt64BE()
    }
  }
}
