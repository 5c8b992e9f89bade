/**
 * Brings the machine's memory into the state of one that has been in use for a while: nearly all that is free is filled
 * with the cache of a file.
 *
 * A virtual machine may give free memory back to its host, and has to fetch it again, page by page, when it is used:
 * whoever needed such memory took three times as long as whoever came when some was left, whatever they did with it.
 * What the cache holds stays with the machine, and is taken from there as fast for one as for the other. Invariant:
 * needs no disk space, and what it holds is free again when the process ends. Where Linux does not tell what is free, does
 * nothing.
 */
import { ftruncateSync, openSync, readFileSync, readSync, rmSync } from 'node:fs'
import { totalmem } from 'node:os'
import { join } from 'node:path'

const BLOCK = new Uint8Array(2 ** 20)
const STEP_BYTES = 256 * 2 ** 20

export class UsedMemory {
  /** A file of nothing but a hole, without a name. */
  readonly #fd: number
  // Twice the memory: what is read again has left the cache meanwhile.
  readonly #length = 2 * totalmem()
  #offset = 0

  constructor(folder: string) {
    const path = join(folder, 'hole')
    this.#fd = openSync(path, 'w+')
    rmSync(path)
    ftruncateSync(this.#fd, this.#length)
  }

  /** Fills what is free now, until reading more changes nothing: the system keeps some, and a container has a limit. */
  fill(): void {
    let before = Infinity
    for (let free = freeBytes(); free > 0 && before - free >= STEP_BYTES / 2; free = freeBytes()) {
      this.#read(STEP_BYTES)
      before = free
    }
  }

  #read(bytes: number): void {
    for (let done = 0; done < bytes; done += BLOCK.length) {
      readSync(this.#fd, BLOCK, 0, BLOCK.length, this.#offset)
      this.#offset = (this.#offset + BLOCK.length) % this.#length
    }
  }
}

/** Memory that holds nothing, not even cache; 0 if that is not known. */
function freeBytes(): number {
  try {
    return Number(/^MemFree: *(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'latin1'))?.[1] ?? 0) * 1024
  } catch {
    return 0
  }
}
