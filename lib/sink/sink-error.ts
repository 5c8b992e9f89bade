/** The errors of writing, made in one place so that they all name path, offset and cause. */
import { hex, Qcow2SinkError, reasonOf, type Qcow2ErrorFacts } from '../errors.js'

/** A write of `length` bytes at `offset` failed. */
export const writeError = (path: string, offset: number, length: number, cause: unknown): Qcow2SinkError =>
  new Qcow2SinkError(
    'ERR_QCOW2_WRITE_FAILED',
    `writing ${length} bytes at offset ${hex(offset)}: ${reasonOf(cause)}`,
    { layer: path, hostOffset: offset },
    cause,
  )

/** Finishing the output failed. */
export const finishError = (path: string, doing: string, cause: unknown): Qcow2SinkError =>
  new Qcow2SinkError('ERR_QCOW2_WRITE_FAILED', `${doing}: ${reasonOf(cause)}`, { layer: path }, cause)

/** Creating the output, or opening one that is written in order, failed. */
export const createError = (path: string, cause: unknown): Qcow2SinkError =>
  new Qcow2SinkError('ERR_QCOW2_CREATE_FAILED', `cannot be created: ${reasonOf(cause)}`, { layer: path }, cause)

/** Opening a block device failed; the system calls one busy that somebody has claimed for himself. */
export const openError = (path: string, cause: unknown): Qcow2SinkError =>
  new Qcow2SinkError(
    'ERR_QCOW2_CREATE_FAILED',
    (cause as NodeJS.ErrnoException).code === 'EBUSY'
      ? 'is in use: mounted, or part of something that is'
      : `cannot be opened: ${reasonOf(cause)}`,
    { layer: path },
    cause,
  )

/** The output is not what was written into it, or cannot be read back. */
export const verifyError = (path: string, what: string, facts: Qcow2ErrorFacts, cause?: unknown): Qcow2SinkError =>
  new Qcow2SinkError(
    'ERR_QCOW2_VERIFY_FAILED',
    `read back after it was written, ${what}${cause === undefined ? '' : `: ${reasonOf(cause)}`}`,
    { layer: path, ...facts },
    cause,
  )
