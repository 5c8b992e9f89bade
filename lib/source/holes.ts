/**
 * Asks the file system which parts of a sparse file hold data.
 *
 * Node has no `lseek`, so this goes through `libc`; without that, or on a system that does not know the question, there is
 * no map and holes are read like data. Invariant: a hole reads as zeros; what is not known to be one counts as data.
 */
import { openLibc } from './libc.js'

/** Where a file's data are; a hole at the end reaches to infinity. */
export interface HoleMap {
  /** First offset from `offset` on that holds data, in bytes. */
  nextData(offset: number): number
  /** First offset from `offset` on that lies in a hole, in bytes. */
  nextHole(offset: number): number
}

// Less than this is read faster than the library that could avoid it is loaded.
const MIN_HOLE_BYTES = 32 * 2 ** 20

const WHENCE: Partial<Record<NodeJS.Platform, { data: number; hole: number }>> = {
  linux: { data: 3, hole: 4 },
  android: { data: 3, hole: 4 },
  freebsd: { data: 3, hole: 4 },
  darwin: { data: 4, hole: 3 },
}

/**
 * The map of an open file; undefined if it is not worth one or there is no way to ask.
 *
 * @param fd Its position is moved by asking: nobody else may rely on it.
 * @param holeBytes Bytes of the file that are not allocated, by what `stat` says; infinite: to be asked in any case.
 */
export async function openHoleMap(fd: number, holeBytes: number): Promise<HoleMap | undefined> {
  const whence = WHENCE[process.platform]
  if (holeBytes < MIN_HOLE_BYTES || whence === undefined) {
    return undefined
  }
  try {
    const { libc, koffi } = await openLibc()
    const lseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)')
    /** Undefined: there is no more of it. NaN: nobody knows. */
    const seek = (offset: number, kind: number): number | undefined => {
      const found = Number(lseek(fd, offset, kind))
      if (found >= 0) {
        return found
      }
      return koffi.errno() === koffi.os.errno['ENXIO'] ? undefined : NaN
    }
    if (Number.isNaN(seek(0, whence.hole))) {
      return undefined
    }
    return {
      nextData: (offset) => {
        const found = seek(offset, whence.data) ?? Infinity
        return Number.isNaN(found) ? offset : found
      },
      nextHole: (offset) => {
        const found = seek(offset, whence.hole) ?? Infinity
        return Number.isNaN(found) ? Infinity : found
      },
    }
  } catch {
    return undefined
  }
}
