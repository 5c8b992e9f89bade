/**
 * What Linux can do for a pipe, with the optional package `koffi`: hold more, and take zeros without a copy.
 *
 * The usual 64 KiB make writer and reader wake each other for every one of them, and most of a disk is zeros. Invariant:
 * an optimization, and nothing else; where it cannot be had, nobody hears of it.
 */

/**
 * Puts as many zeros into a pipe as it takes at once, `most` bytes at most and some megabytes at a time.
 *
 * @returns How many; 0 if the pipe is full, or cannot take any in this way.
 */
export type MoveZeros = (most: number) => number

/** What the system offers. */
interface PipeCalls {
  enlarge(fd: number): void
  /** Bytes that were moved; 0: no room; undefined: it cannot be done. */
  moveZeros(fd: number, length: number): number | undefined
}

// The most that Linux grants to everybody.
const PIPE_BYTES = 2 ** 20
const F_SETPIPE_SZ = 1031
const F_GETPIPE_SZ = 1032
const SPLICE_F_NONBLOCK = 2
const PROT_READ = 1
const PROT_WRITE = 2
const MAP_PRIVATE_ANONYMOUS = 0x2 | 0x20
const MADV_HUGEPAGE = 14
const HUGE_PAGE_BYTES = 2 ** 21

// What is moved in one go; the event loop has its turn in between.
const MOST_BYTES = 16 * 2 ** 20

let calls: Promise<PipeCalls | undefined> | undefined

/** Makes the pipe behind a descriptor hold 1 MiB, if it is one. */
export async function enlargePipe(fd: number): Promise<void> {
  const found = await (calls ??= findCalls())
  found?.enlarge(fd)
}

/**
 * How to move zeros into a pipe; undefined where that is not known.
 *
 * @param fd Of a pipe that does not wait when it is full.
 */
export async function zeroMover(fd: number): Promise<MoveZeros | undefined> {
  const found = await (calls ??= findCalls())
  let isRefused = false
  return (
    found &&
    ((most) => {
      let moved = 0
      while (moved < most && moved < MOST_BYTES && !isRefused) {
        const taken = found.moveZeros(fd, Math.min(most - moved, PIPE_BYTES))
        isRefused = taken === undefined
        if (taken === undefined || taken === 0) {
          break
        }
        moved += taken
      }
      return moved
    })
  )
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
    const iovec = struct({ base: 'uintptr_t', length: 'size_t' })
    const vmsplice = libc.func('vmsplice', 'long', ['int', pointer(iovec), 'size_t', 'unsigned int'])
    const base = zeroPages(libc)
    return {
      enlarge: (fd) => {
        const bytes = Number(fcntl(fd, F_GETPIPE_SZ))
        if (bytes > 0 && bytes < PIPE_BYTES) {
          fcntl(fd, F_SETPIPE_SZ, 'int', PIPE_BYTES)
        }
      },
      moveZeros: (fd, length) => {
        const taken = Number(vmsplice(fd, { base, length }, 1, SPLICE_F_NONBLOCK))
        return taken >= 0 ? taken : errno() === os.errno['EAGAIN'] ? 0 : undefined
      },
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
