/**
 * Asks the system for a larger pipe: the usual 64 KiB make writer and reader wake each other for every one of them.
 *
 * Invariant: an optimization, and nothing else; where it cannot be had, nobody hears of it.
 */

// The most that Linux grants to everybody.
const PIPE_BYTES = 2 ** 20
const F_SETPIPE_SZ = 1031
const F_GETPIPE_SZ = 1032

/** Makes the pipe behind a descriptor hold 1 MiB, if it is one, on Linux, with `koffi` installed. */
export async function enlargePipe(fd: number): Promise<void> {
  /* c8 ignore next 3 */
  if (process.platform !== 'linux') {
    return
  }
  try {
    const { load } = await import('koffi')
    const fcntl = load(null).func('int fcntl(int fd, int command, ...)')
    const bytes = Number(fcntl(fd, F_GETPIPE_SZ))
    if (bytes > 0 && bytes < PIPE_BYTES) {
      fcntl(fd, F_SETPIPE_SZ, 'int', PIPE_BYTES)
    }
    /* c8 ignore next 3 */
  } catch {
    // An optional dependency.
  }
}
