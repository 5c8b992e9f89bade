/**
 * Makes Linux forget what it keeps of a file in memory, so that reading it again asks the disk.
 *
 * Node has no `posix_fadvise`, so this goes through `libc`. Invariant: a request, and nothing else: where
 * it cannot be made, or is not granted, reading takes what the system has.
 */
import { openLibc } from '../source/libc.js'

const POSIX_FADV_DONTNEED = 4

/** Drops what of an open file is cached and is on its disk already: sync it first. */
export async function dropCache(fd: number): Promise<void> {
  /* c8 ignore next 3 (others have no such call, or other numbers for it) */
  if (process.platform !== 'linux') {
    return
  }
  try {
    const { libc } = await openLibc()
    const fadvise = libc.func('int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)')
    // In another thread: gigabytes of it take a second.
    await new Promise<void>((resolve) => {
      fadvise.async(fd, 0, 0, POSIX_FADV_DONTNEED, () => {
        resolve()
      })
    })
    /* c8 ignore next 3 */
  } catch {
    // An optional dependency.
  }
}
