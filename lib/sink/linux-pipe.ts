/**
 * What Linux can do for a pipe, by way of `pipe-calls`: hold more, and take bytes and zeros otherwise than by a write.
 *
 * The usual 64 KiB make writer and reader wake each other for every one of them; most of a disk is zeros; and a write
 * fills a pipe page by page, while the reader is kept out. What comes from a socket lies in pieces of memory of up to eight
 * pages, and a pipe has room for so many pieces, however long they are: both sides have less to do, and bytes are copied into
 * sockets of our own first. Invariant: an optimization, and nothing else; where it cannot be had, nobody hears of it, and what
 * went wrong comes up in the write that follows.
 */
import { closeSync, readSync, writeSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'
import { findPipeCalls, type Ends, type PipeCalls } from './pipe-calls.js'

/** Puts into one pipe what it takes at once. */
export interface PipeMover {
  /** Whether this pipe can be filled in this way; once it cannot, it never can. */
  readonly works: boolean
  /** @returns How many zeros of `most` were put in, some megabytes at a time; 0 if the pipe is full. */
  moveZeros(most: number): number
  /** @returns How many of the bytes, from the first on, were put in; 0 if half of the pipe's places may be (and stay) taken. */
  moveBytes(bytes: Uint8Array): number
  /** Nothing is put in afterwards. */
  close(): void
}

interface OwnEnds {
  /** What is copied into them goes on without a copy. Empty between calls. */
  readonly sockets: Ends
  /** A pipe full of zeros, which are never taken out: what others get is the same memory, which nobody writes to. */
  readonly zeros: Ends
}

// The most that Linux grants to everybody.
const PIPE_BYTES = 2 ** 20

// So much of what is written to a socket lies in one piece (of a longer write, every 32 KiB behind 3.7 KiB that lie apart).
const ZEROS = new Uint8Array(32768)
// Of a pipe's size, which counts a page for each piece: what it holds of such zeros, and, with room to spare, of bytes.
const ZEROS_TIMES = 8
const BYTES_TIMES = 2

// What is copied at once: less wakes the reader more often, more leaves the processor's cache before it is read.
const SOCKET_BYTES = 2 ** 18

// What is moved in one go; the event loop has its turn in between.
const MOST_ZEROS = 16 * 2 ** 20

// How long a reader is waited for: ever longer, as one that is slow is better waited for by the system.
const FIRST_WAIT_MILLISECONDS = 0.05
const LAST_WAIT_MILLISECONDS = 0.8

// Waited on for the time alone: nobody wakes who waits.
const NEVER = new Int32Array(new SharedArrayBuffer(4))

let calls: Promise<PipeCalls | undefined> | undefined

/** Makes the pipe behind a descriptor hold 1 MiB, if it is one. */
export async function enlargePipe(fd: number): Promise<void> {
  const system = await (calls ??= findPipeCalls())
  if (system !== undefined) {
    enlarge(system, fd)
  }
}

function enlarge(system: PipeCalls, fd: number): void {
  const bytes = system.sizeOf(fd)
  if (bytes > 0 && bytes < PIPE_BYTES) {
    system.resize(fd, PIPE_BYTES)
  }
}

/**
 * A mover, to be closed by the caller; undefined where the system's calls cannot be reached, and in any thread but the main
 * one: another thread's standard output goes through the main thread, so that what is moved would overtake what is written,
 * and a thread that is ended would leave the mover's own ends open.
 *
 * @param fd Of a pipe that does not wait when it is full; stays the caller's. What is no pipe is left alone.
 * @param mayWait Whether the thread may wait for the reader, up to two milliseconds at a time.
 */
export async function openPipeMover(fd: number, mayWait = false): Promise<PipeMover | undefined> {
  const system = isMainThread ? await (calls ??= findPipeCalls()) : /* c8 ignore next */ undefined
  const ends = system && createEnds(system)
  return ends && new Mover(system, fd, ends, mayWait)
}

/** What a mover needs for itself; undefined if the process has too many open files. */
function createEnds(system: PipeCalls): OwnEnds | undefined {
  const sockets = system.create('sockets')
  const zeros = system.create('pipe')
  /* c8 ignore next 8 */
  if (sockets === undefined || zeros === undefined) {
    for (const ends of [sockets, zeros]) {
      if (ends !== undefined) {
        closeEnds(ends)
      }
    }
    return undefined
  }
  return { sockets, zeros }
}

class Mover implements PipeMover {
  readonly #size: number
  #works: boolean
  #isClosed = false

  constructor(
    private readonly system: PipeCalls,
    private readonly fd: number,
    private readonly own: OwnEnds,
    private readonly mayWait: boolean,
  ) {
    this.#size = system.sizeOf(fd)
    this.#works = this.#size > 0
    if (this.#works) {
      system.hold(own.sockets.into, SOCKET_BYTES)
      this.#storeZeros()
    }
  }

  get works(): boolean {
    return this.#works
  }

  moveZeros(most: number): number {
    if (!this.#works) {
      return 0
    }
    const wanted = Math.min(most, MOST_ZEROS)
    const size = this.#size * ZEROS_TIMES
    this.#waitFor(size - Math.min(wanted, size / 2))
    let moved = 0
    for (let taken = 1; taken > 0 && moved < wanted; moved += taken) {
      taken = this.#try(() => this.system.tee(this.own.zeros.from, this.fd, wanted - moved))
    }
    return moved
  }

  moveBytes(bytes: Uint8Array): number {
    if (!this.#works) {
      return 0
    }
    // With so little in it, half of its places are free, if no piece in the others is shorter than a page: little by little
    // would cost more than it saves.
    const most = this.#size / 2
    const filled = this.#waitFor(most)
    return filled > most ? 0 : this.#copyInto(this.fd, bytes.subarray(0, this.#size * BYTES_TIMES - filled))
  }

  close(): void {
    if (!this.#isClosed) {
      this.#isClosed = true
      this.#works = false
      closeEnds(this.own.sockets)
      closeEnds(this.own.zeros)
    }
  }

  /** Fills the pipe of zeros with one piece, again and again: whoever reads them finds it in the processor's cache. */
  #storeZeros(): void {
    const one = this.system.create('pipe')
    this.#works = one !== undefined
    /* c8 ignore next 3 (too many open files) */
    if (one === undefined) {
      return
    }
    const { into } = this.own.zeros
    enlarge(this.system, into)
    this.#copyInto(one.into, ZEROS)
    while (this.#works && this.#try(() => this.system.tee(one.from, into, ZEROS.length)) > 0);
    closeEnds(one)
  }

  /** Copies into a pipe, by way of the sockets, as many of the bytes as it takes; returns how many. */
  #copyInto(pipe: number, bytes: Uint8Array): number {
    let moved = 0
    for (let isTaken = true; isTaken && moved < bytes.length;) {
      const length = Math.min(bytes.length - moved, SOCKET_BYTES)
      const staged = this.#try(() => writeSync(this.own.sockets.into, bytes, moved, length))
      const taken = staged === 0 ? 0 : this.#try(() => this.system.splice(this.own.sockets.from, pipe, staged))
      if (taken < staged) {
        this.#drop(staged - taken)
      }
      moved += taken
      isTaken = taken > 0 && taken === staged
    }
    return moved
  }

  /**
   * How many bytes wait for the reader, after a wait until there are no more than so many, if there may be one: to be woken as
   * soon as there is any room costs a change of threads for each read at the other end.
   */
  #waitFor(most: number): number {
    let filled = this.system.filled(this.fd)
    const longest = this.mayWait ? LAST_WAIT_MILLISECONDS : 0
    for (let wait = FIRST_WAIT_MILLISECONDS; filled > most && wait <= longest; wait *= 2) {
      Atomics.wait(NEVER, 0, 0, wait)
      filled = this.system.filled(this.fd)
    }
    return filled
  }

  /** What a call moved. One that fails is the last: whoever writes after it hears why. */
  #try(call: () => number): number {
    try {
      const count = call()
      this.#works &&= count >= 0 || this.system.wasFull()
      return Math.max(0, count)
    } catch {
      this.#works = false
      return 0
    }
  }

  /** Takes back what found no room: a piece that is short takes as much of it as a long one. */
  #drop(count: number): void {
    const scratch = new Uint8Array(count)
    for (let left = count; left > 0 && this.#works;) {
      left -= this.#try(() => readSync(this.own.sockets.from, scratch, 0, left, null))
    }
  }
}

function closeEnds({ from, into }: Ends): void {
  closeSync(from)
  closeSync(into)
}
