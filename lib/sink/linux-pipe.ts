/**
 * What Linux can do for a pipe, with the optional package `koffi`: hold more, and take bytes and zeros otherwise than by
 * a write.
 *
 * The usual 64 KiB make writer and reader wake each other for every one of them; most of a disk is zeros; and a write
 * keeps the reader out until it has copied everything. Invariant: an optimization, and nothing else; where it cannot
 * be had, nobody hears of it, and what went wrong comes up in the write that follows.
 */
import { closeSync, constants, readSync, writeSync } from 'node:fs'

/** Puts into one pipe what it takes at once. All return 0 if it is full, or if it cannot be done in this way. */
export interface PipeMover {
  /** @returns How many zeros of `most` were put in, some megabytes at a time. */
  moveZeros(most: number): number
  /** @returns How many of the bytes, from the first on, were put in. */
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
  /** The ends of a new pipe, that for reading first, neither of which waits. */
  create(): readonly [from: number, into: number] | undefined
  /** Bytes that went from one pipe into another. */
  splice(from: number, into: number, length: number): number
  /** Whether the last refusal was only that a pipe is full. */
  wasFull(): boolean
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

let calls: Promise<PipeCalls | undefined> | undefined

/** Makes the pipe behind a descriptor hold 1 MiB, if it is one. */
export async function enlargePipe(fd: number): Promise<void> {
  const found = await (calls ??= findCalls())
  if (found !== undefined) {
    enlarge(found, fd)
  }
}

function enlarge(found: PipeCalls, fd: number): void {
  const bytes = found.sizeOf(fd)
  if (bytes > 0 && bytes < PIPE_BYTES) {
    found.resize(fd, PIPE_BYTES)
  }
}

/**
 * A mover for a pipe; undefined where there is none.
 *
 * @param fd Of a pipe that does not wait when it is full; stays the caller's.
 */
export async function openPipeMover(fd: number): Promise<PipeMover | undefined> {
  const found = await (calls ??= findCalls())
  const ends = found?.create()
  if (found === undefined || ends === undefined) {
    return undefined
  }
  enlarge(found, ends[1])
  return new Mover(found, fd, ends)
}

class Mover implements PipeMover {
  readonly #size: number
  #isRefused = false
  #isClosed = false

  constructor(
    private readonly calls: PipeCalls,
    private readonly fd: number,
    /** A pipe of our own. What is copied into it goes on without a copy, while the reader is kept out for a moment only. */
    private readonly ends: readonly [from: number, into: number],
  ) {
    this.#size = calls.sizeOf(fd)
  }

  moveZeros(most: number): number {
    let moved = 0
    while (moved < most && moved < MOST_ZEROS) {
      const taken = this.#counted(() => this.calls.putZeros(this.fd, Math.min(most - moved, PIPE_BYTES)))
      if (taken === 0) {
        break
      }
      moved += taken
    }
    return moved
  }

  moveBytes(bytes: Uint8Array): number {
    // Little by little would cost more than it saves.
    const room = this.#size - this.calls.filled(this.fd)
    if (room < this.#size / 2) {
      return 0
    }
    const staged = this.#counted(() => writeSync(this.ends[1], bytes, 0, Math.min(bytes.length, room)))
    const moved = staged === 0 ? 0 : this.#counted(() => this.calls.splice(this.ends[0], this.fd, staged))
    if (moved < staged) {
      this.#drop(staged - moved)
    }
    return moved
  }

  close(): void {
    if (!this.#isClosed) {
      this.#isClosed = true
      this.ends.forEach(closeSync)
    }
  }

  /** What a call moved. One that fails is the last: whoever writes after it hears why. */
  #counted(call: () => number): number {
    if (this.#isRefused || this.#isClosed) {
      return 0
    }
    const count = call()
    this.#isRefused = count < 0 && !this.calls.wasFull()
    return Math.max(0, count)
  }

  /** What found no room: pages that are only partly filled take as much of it as full ones. */
  #drop(count: number): void {
    const scratch = new Uint8Array(Math.min(count, PIPE_BYTES))
    for (let left = count; left > 0;) {
      left -= readSync(this.ends[0], scratch, 0, Math.min(left, scratch.length), null)
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
    const base = zeroPages(libc)
    const value = new Int32Array(2)
    return {
      sizeOf: (fd) => Number(fcntl(fd, F_GETPIPE_SZ)),
      resize: (fd, bytes) => {
        fcntl(fd, F_SETPIPE_SZ, 'int', bytes)
      },
      filled: (fd) => (ioctl(fd, FIONREAD, value) === 0 ? value[0]! : Infinity),
      putZeros: (fd, length) => Number(vmsplice(fd, { base, length }, 1, SPLICE_F_NONBLOCK)),
      create: () => (pipe2(value, O_CLOEXEC | constants.O_NONBLOCK) === 0 ? [value[0]!, value[1]!] : undefined),
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
 * The address of memory that is zeros for as long as the process lives: pipes refer to it after the call, when the thread
 * or the module that put it there may be gone, so that neither may free it, and nobody can write to it. It is one huge
 * page, if the system has one: writer and reader count their uses of each page, and of 256 small ones that took longer
 * than the zeros themselves. It is the process's own: the system's page of zeros, which untouched memory is, takes longer.
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
