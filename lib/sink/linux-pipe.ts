/**
 * What Linux can do for a pipe: hold more, and take zeros without a copy.
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

// The most that Linux grants to everybody.
const PIPE_BYTES = 2 ** 20
const F_SETPIPE_SZ = 1031
const F_GETPIPE_SZ = 1032
const SPLICE_F_NONBLOCK = 2

// What is moved in one go; the event loop has its turn in between.
const MOST_BYTES = 16 * 2 ** 20

// Pipes refer to this memory after the call: nothing else may ever be written to it, and it must not be freed. Filling it
// gives it pages of its own; with the system's page of zeros, which untouched memory is, the call takes half as long again.
const ZEROS = new Uint8Array(PIPE_BYTES).fill(0)

/**
 * Makes the pipe behind a descriptor hold 1 MiB, if it is one, on Linux, with `koffi` installed.
 *
 * @param fd Of a pipe that does not wait when it is full, if zeros are to be moved.
 * @returns How to move zeros into it; undefined where that is not known.
 */
export async function preparePipe(fd: number): Promise<MoveZeros | undefined> {
  /* c8 ignore next 3 */
  if (process.platform !== 'linux') {
    return undefined
  }
  try {
    const { load, pointer, struct } = await import('koffi')
    const libc = load(null)
    const fcntl = libc.func('int fcntl(int fd, int command, ...)')
    const bytes = Number(fcntl(fd, F_GETPIPE_SZ))
    if (bytes > 0 && bytes < PIPE_BYTES) {
      fcntl(fd, F_SETPIPE_SZ, 'int', PIPE_BYTES)
    }
    const iovec = struct({ base: 'void *', length: 'size_t' })
    const vmsplice = libc.func('vmsplice', 'long', ['int', pointer(iovec), 'size_t', 'unsigned int'])
    return (most) => {
      let moved = 0
      while (moved < most && moved < MOST_BYTES) {
        const length = Math.min(most - moved, ZEROS.length)
        const taken = Number(vmsplice(fd, { base: ZEROS, length }, 1, SPLICE_F_NONBLOCK))
        if (taken <= 0) {
          break
        }
        moved += taken
      }
      return moved
    }
    /* c8 ignore next 4 */
  } catch {
    // An optional dependency.
    return undefined
  }
}
