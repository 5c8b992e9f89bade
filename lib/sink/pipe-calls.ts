/**
 * The calls of Linux that pipes are filled with, as functions of numbers; Node has none of them.
 *
 * Knows no strategy. Invariant: a call that is refused throws nothing.
 */
import { constants } from 'node:fs'
import { openLibc } from '../source/libc.js'

/** What the system offers. Where it refuses, the results are negative. */
export interface PipeCalls {
  sizeOf(fd: number): number
  resize(fd: number, bytes: number): void
  /** Bytes that wait for the reader. */
  filled(fd: number): number
  /** A new pipe, or a pair of connected sockets, neither end of which waits. */
  create(kind: 'pipe' | 'sockets'): Ends | undefined
  /** Lets a socket hold so many bytes, and what Linux needs to manage them; or as many as are granted. */
  hold(socket: number, bytes: number): void
  /** Bytes that went into a pipe, from a socket (`splice`) or, as they are there still, from another pipe (`tee`). */
  splice(from: number, into: number, length: number): number
  tee(from: number, into: number, length: number): number
  /** Whether the last refusal was only that there is no room, or nothing that could be put there. */
  wasFull(): boolean
}

/** What is written into one comes out of the other. */
export interface Ends {
  readonly from: number
  readonly into: number
}

const F_SETPIPE_SZ = 1031
const F_GETPIPE_SZ = 1032
const FIONREAD = 0x541b
const O_CLOEXEC = 0o2000000
const SPLICE_F_NONBLOCK = 2
const AF_UNIX = 1
const SOCK_STREAM = 1
const SOL_SOCKET = 1
const SO_SNDBUF = 7

/** The calls; undefined where they cannot be reached. */
export async function findPipeCalls(): Promise<PipeCalls | undefined> {
  /* c8 ignore next 3 */
  if (process.platform !== 'linux') {
    return undefined
  }
  try {
    const { libc, koffi } = await openLibc()
    const { errno, os } = koffi
    const fcntl = libc.func('int fcntl(int fd, int command, ...)')
    const ioctl = libc.func('int ioctl(int fd, unsigned long request, int *value)')
    const pipe2 = libc.func('int pipe2(int *ends, int flags)')
    const splice = libc.func('long splice(int from, void *, int into, void *, size_t length, unsigned int flags)')
    const tee = libc.func('long tee(int from, int into, size_t length, unsigned int flags)')
    const socketpair = libc.func('int socketpair(int domain, int type, int protocol, int *ends)')
    const setsockopt = libc.func('int setsockopt(int fd, int level, int option, int *value, unsigned int length)')
    const value = new Int32Array(2)
    const one = new Int32Array(1)
    return {
      sizeOf: (fd) => Number(fcntl(fd, F_GETPIPE_SZ)),
      resize: (fd, bytes) => {
        fcntl(fd, F_SETPIPE_SZ, 'int', bytes)
      },
      /* c8 ignore next (a few processors have another number for the request) */
      filled: (fd) => (ioctl(fd, FIONREAD, value) === 0 ? value[0]! : Infinity),
      create: (kind) => {
        // A socket has the same flags as a file for what all have.
        const flags = O_CLOEXEC | constants.O_NONBLOCK
        const made = Number(kind === 'pipe' ? pipe2(value, flags) : socketpair(AF_UNIX, SOCK_STREAM | flags, 0, value))
        /* c8 ignore next (too many open files) */
        return made === 0 ? { from: value[0]!, into: value[1]! } : undefined
      },
      hold: (socket, bytes) => {
        one[0] = bytes
        setsockopt(socket, SOL_SOCKET, SO_SNDBUF, one, one.byteLength)
      },
      splice: (from, into, length) => Number(splice(from, null, into, null, length, SPLICE_F_NONBLOCK)),
      tee: (from, into, length) => Number(tee(from, into, length, SPLICE_F_NONBLOCK)),
      wasFull: () => errno() === os.errno['EAGAIN'],
    }
    /* c8 ignore next 4 */
  } catch {
    // An optional dependency.
    return undefined
  }
}
