/**
 * What a check has found: counts of everything, and the first of it in words.
 *
 * Knows nothing of tables. Invariant: what is counted is what is found, however much of it is kept.
 */

/** One thing that is wrong with an image. */
export interface Qcow2CheckFinding {
  /**
   * - `leak`: a cluster's refcount is greater than the number of its uses: space is lost, data is not;
   * - `corruption`: the image contradicts itself, and writing to it can lose data;
   * - `error`: something that could not be checked.
   */
  readonly kind: 'leak' | 'corruption' | 'error'
  /** One line, safe to print. */
  readonly message: string
  /** Where in the image file, in bytes: the cluster, or the entry that is wrong. */
  readonly hostOffset: number
  /** Where on the active disk, in bytes; undefined if that is not known, or the finding is about no part of it. */
  readonly guestOffset: number | undefined
}

// Beyond so many nobody reads on.
export const MAX_FINDINGS = 1000

export class Findings {
  leaks = 0
  corruptions = 0
  checkErrors = 0
  readonly list: Qcow2CheckFinding[] = []

  /** @param times How often it counts: an entry of a shared table is wrong for each who shares it, and yet listed once. */
  leak(times: number, hostOffset: number, message: () => string): void {
    this.leaks += times
    this.#keep('leak', hostOffset, message, undefined)
  }

  corruption(times: number, hostOffset: number, message: () => string, guestOffset?: number): void {
    this.corruptions += times
    this.#keep('corruption', hostOffset, message, guestOffset)
  }

  error(times: number, hostOffset: number, message: () => string): void {
    this.checkErrors += times
    this.#keep('error', hostOffset, message, undefined)
  }

  #keep(
    kind: Qcow2CheckFinding['kind'],
    hostOffset: number,
    message: () => string,
    guestOffset: number | undefined,
  ): void {
    if (this.list.length < MAX_FINDINGS) {
      this.list.push({ kind, message: message(), hostOffset, guestOffset })
    }
  }
}
