/**
 * What Linux can do for a pipe, with the optional package `koffi`: hold more, and take bytes and zeros otherwise than by
 * a write.
 *
 * The usual 64 KiB make writer and reader wake each other for every one of them; most of a disk is zeros; and a write
 * keeps the reader out until it has copied everything. Invariant: an optimization, and nothing else; where it cannot
 * be had, nobody hears of it, and what went wrong comes up in the write that follows.
 */
import { closeSync, constants, readSync, writeSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'

/** Puts into one pipe what it takes at once. */
export interface PipeMover {
  /** Whether this pipe can be filled in this way; once it cannot, it never can. */
  readonly works: boolean
  /** @returns How many zeros of `most` were put in, some megabytes at a time; 0 if the pipe is full. */
  moveZeros(most: number): number
  /** @returns How many of the bytes, from the first on, were put in; 0 if less than half of the pipe is (or became) free. */
  moveBytes(bytes: Uint8Array): number
  /** Nothing is put in afterwards. */
  close(): void
}

/** What the system offers. Where it refuses, the results are negative. */
interface PipeCalls {
  sizeOf(fd: number): number
  resize(fd: number, bytes: number): void
  /** Bytes that wait for the reader. */
  filled(fd: number): number
  /** Zeros that were put in. */
  putZeros(fd: number, length: number): number
  /** A new pipe, neither end of which waits. */
  create(): OwnPipe | undefined
  /** Bytes that went from one pipe into another. */
  splice(from: number, into: number, length: number): number
  /** Whether the last refusal was only that a pipe is full. */
  wasFull(): boolean
}

/** The ends of a pipe. */
interface OwnPipe {
  readonly from: number
  readonly into: number
}

// The most that Linux grants to everybody.
const PIPE_BYTES = 2 ** 20
const F_SETPIPE_SZ = 1031
const F_GETPIPE_SZ = 1032
const FIONREAD = 0x541b
const O_CLOEXEC = 0o2000000
const SPLICE_F_NONBLOCK = 2
const PROT_READ = 1
const PROT_WRITE = 2
const MAP_PRIVATE_ANONYMOUS = 0x2 | 0x20
const MADV_HUGEPAGE = 14
const HUGE_PAGE_BYTES = 2 ** 21

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
  const system = await (calls ??= findCalls())
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
 * and a thread that is ended would leave the mover's own pipe open.
 *
 * @param fd Of a pipe that does not wait when it is full; stays the caller's. What is no pipe is left alone.
 * @param mayWait Whether the thread may wait for the reader, up to two milliseconds at a time.
 */
export async function openPipeMover(fd: number, mayWait = false): Promise<PipeMover | undefined> {
  const system = isMainThread ? await (calls ??= findCalls()) : /* c8 ignore next */ undefined
  const own = system?.create()
  /* c8 ignore next 3 (nor does coverage see threads) */
  if (system === undefined || own === undefined) {
    return undefined
  }
  enlarge(system, own.into)
  return new Mover(system, fd, own, mayWait)
}

class Mover implements PipeMover {
  readonly #size: number
  #works: boolean
  #isClosed = false

  constructor(
    private readonly system: PipeCalls,
    private readonly fd: number,
    /** What is copied into it goes on without a copy, while the reader is kept out for a moment only. Empty between calls. */
    private readonly own: OwnPipe,
    private readonly mayWait: boolean,
  ) {
    this.#size = system.sizeOf(fd)
    this.#works = this.#size > 0
  }

  get works(): boolean {
    return this.#works
  }

  moveZeros(most: number): number {
    let moved = 0
    while (moved < most && moved < MOST_ZEROS) {
      const taken = this.#try(() => this.system.putZeros(this.fd, Math.min(most - moved, PIPE_BYTES)))
      if (taken === 0) {
        break
      }
      moved += taken
    }
    return moved
  }

  moveBytes(bytes: Uint8Array): number {
    // Little by little would cost more than it saves.
    const least = this.#size / 2
    const room = this.#works ? this.#roomFor(least) : 0
    if (room < least) {
      return 0
    }
    const staged = this.#try(() => writeSync(this.own.into, bytes, 0, Math.min(bytes.length, room)))
    const moved = staged === 0 ? 0 : this.#try(() => this.system.splice(this.own.from, this.fd, staged))
    if (moved < staged) {
      this.#drop(staged - moved)
    }
    return moved
  }

  close(): void {
    if (!this.#isClosed) {
      this.#isClosed = true
      this.#works = false
      closeSync(this.own.from)
      closeSync(this.own.into)
    }
  }

  /**
   * Free bytes of the pipe, after a wait for so many of them if there may be one: to be woken as soon as there is any room
   * costs a change of threads for each read at the other end.
   */
  #roomFor(bytes: number): number {
    let room = this.#size - this.system.filled(this.fd)
    const longest = this.mayWait ? LAST_WAIT_MILLISECONDS : 0
    for (let wait = FIRST_WAIT_MILLISECONDS; room < bytes && wait <= longest; wait *= 2) {
      Atomics.wait(NEVER, 0, 0, wait)
      room = this.#size - this.system.filled(this.fd)
    }
    return room
  }

  /** What a call moved. One that fails is the last: whoever writes after it hears why. */
  #try(call: () => number): number {
    if (!this.#works) {
      return 0
    }
    try {
      const count = call()
      this.#works = count >= 0 || this.system.wasFull()
      return Math.max(0, count)
    } catch {
      this.#works = false
      return 0
    }
  }

  /** What found no room: a page that is partly filled takes as much of it as a full one. */
  #drop(count: number): void {
    const scratch = new Uint8Array(count)
    for (let left = count; left > 0;) {
      left -= readSync(this.own.from, scratch, 0, left, null)
    }
  }
}

async function findCalls(): Promise<PipeCalls | undefined> {
  /* c8 ignore next 3 */
  if (process.platform !== 'linux') {
    return undefined
  }
  try {
    const { errno, load, os, pointer, struct } = await import('koffi')
    const libc = load(null)
    const fcntl = libc.func('int fcntl(int fd, int command, ...)')
    const ioctl = libc.func('int ioctl(int fd, unsigned long request, int *value)')
    const pipe2 = libc.func('int pipe2(int *ends, int flags)')
    const splice = libc.func('long splice(int from, void *, int into, void *, size_t length, unsigned int flags)')
    const iovec = struct({ base: 'uintptr_t', length: 'size_t' })
    const vmsplice = libc.func('vmsplice', 'long', ['int', pointer(iovec), 'size_t', 'unsigned int'])
    let zeros: number | undefined
    const value = new Int32Array(2)
    return {
      sizeOf: (fd) => Number(fcntl(fd, F_GETPIPE_SZ)),
      resize: (fd, bytes) => {
        fcntl(fd, F_SETPIPE_SZ, 'int', bytes)
      },
      /* c8 ignore next (a few processors have another number for the request) */
      filled: (fd) => (ioctl(fd, FIONREAD, value) === 0 ? value[0]! : Infinity),
      putZeros: (fd, length) => {
        const base = (zeros ??= zeroPages(libc))
        return Number(vmsplice(fd, { base, length }, 1, SPLICE_F_NONBLOCK))
      },
      create: () => {
        const isMade = pipe2(value, O_CLOEXEC | constants.O_NONBLOCK) === 0
        /* c8 ignore next (too many open files) */
        return isMade ? { from: value[0]!, into: value[1]! } : undefined
      },
      splice: (from, into, length) => Number(splice(from, null, into, null, length, SPLICE_F_NONBLOCK)),
      wasFull: () => errno() === os.errno['EAGAIN'],
    }
    /* c8 ignore next 4 */
  } catch {
    // An optional dependency.
    return undefined
  }
}

/**
 * The address of memory that is zeros for as long as the process lives: pipes refer to it after the call, so that nobody may
 * free it, or write to it. It is one huge page, if the system has one: writer and reader count their uses of each page, and
 * of 256 small ones that took longer than the zeros themselves. It is the process's own: the system's page of zeros, which
 * untouched memory is, takes longer.
 */
function zeroPages(libc: { func(definition: string): (...parameters: number[]) => unknown }): number {
  const mmap = libc.func('uintptr_t mmap(uintptr_t at, size_t length, int prot, int flags, int fd, int64_t offset)')
  const madvise = libc.func('int madvise(uintptr_t at, size_t length, int advice)')
  const memset = libc.func('uintptr_t memset(uintptr_t at, int value, size_t length)')
  const mprotect = libc.func('int mprotect(uintptr_t at, size_t length, int prot)')
  // Somewhere in twice as much memory a huge page begins; the rest is never touched.
  const mapped = Number(mmap(0, 2 * HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0))
  const at = Math.ceil(mapped / HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
  /* c8 ignore next 3 */
  if (!Number.isSafeInteger(at)) {
    throw new Error('there is no memory for zeros')
  }
  madvise(at, HUGE_PAGE_BYTES, MADV_HUGEPAGE)
  memset(at, 0, PIPE_BYTES)
  /* c8 ignore next 3 */
  if (mprotect(at, HUGE_PAGE_BYTES, PROT_READ) !== 0) {
    throw new Error('memory for zeros cannot be protected')
  }
  return at
}
