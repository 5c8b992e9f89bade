/**
 * The errors of this package: one family, told apart by what the caller can do about them, with codes that stay.
 *
 * Wording may change between releases; `code`, the class and the facts (`layer`, `hostOffset`, ...) are API.
 * A message says what is wrong, where, what was found and what is allowed, on one line without control characters.
 */

/** Every code an error of this package can carry, with what it means. `docs/errors.md` explains each one. */
export const ERROR_CODES = {
  ERR_QCOW2_BAD_MAGIC: 'the input is not a qcow2 image',
  ERR_QCOW2_BAD_HEADER: 'a header field has a value the specification does not allow',
  ERR_QCOW2_BAD_EXTENSION: 'a header extension is malformed',
  ERR_QCOW2_BAD_SNAPSHOT_TABLE: 'the table of internal snapshots is malformed',
  ERR_QCOW2_BAD_LUKS_HEADER: 'the LUKS header of an encrypted image is malformed',
  ERR_QCOW2_BAD_L1_ENTRY: 'an L1 entry has reserved bits set or an unaligned offset',
  ERR_QCOW2_BAD_L2_ENTRY: 'an L2 entry has reserved bits set, an unaligned offset or an impossible state',
  ERR_QCOW2_BAD_COMPRESSED_CLUSTER: 'a compressed cluster does not decode to exactly one cluster',
  ERR_QCOW2_BAD_REFERENCE_NAME: 'the name of a backing file or data file cannot be a file name',
  ERR_QCOW2_TRUNCATED: 'a table or cluster lies past the end of its file',
  ERR_QCOW2_BACKING_LOOP: 'a backing chain comes back to a file that is already part of it',
  ERR_QCOW2_CHAIN_TOO_DEEP: 'a backing chain has more layers than allowed',
  ERR_QCOW2_UNSUPPORTED_VERSION: 'the image has a version other than 2 and 3',
  ERR_QCOW2_UNKNOWN_FEATURE: 'the image needs a feature this package does not know',
  ERR_QCOW2_UNSUPPORTED_ENCRYPTION: 'the image is encrypted in a way that is not supported',
  ERR_QCOW2_UNSUPPORTED_COMPRESSION: 'the image uses a compression type other than zlib and zstd',
  ERR_QCOW2_UNSUPPORTED_BACKING_FORMAT: 'a backing file has a format other than raw and qcow2',
  ERR_QCOW2_UNSUPPORTED_REFERENCE: 'a backing file or data file is not a local file',
  ERR_QCOW2_UNSUPPORTED_SIZE: 'a size or offset is beyond 2^53 - 1 bytes, or beyond what an option allows',
  ERR_QCOW2_UNLOCKING_TOO_COSTLY: 'trying a passphrase would take more than the option limits allows',
  ERR_QCOW2_REFERENCE_REFUSED: 'the reference policy forbids opening a backing file or data file',
  ERR_QCOW2_PASSPHRASE_REQUIRED: 'the image is encrypted, and no passphrase was given',
  ERR_QCOW2_WRONG_PASSPHRASE: 'the passphrase fits no key slot of the image',
  ERR_QCOW2_OPEN_FAILED: 'a file could not be opened',
  ERR_QCOW2_NOT_A_FILE: 'an input is neither a regular file nor a block device',
  ERR_QCOW2_READ_FAILED: 'a read from a source failed',
  ERR_QCOW2_REQUEST_FAILED: 'a server could not be asked for an image, or did not answer as it must',
  ERR_QCOW2_SOURCE_CHANGED: 'an image changed on its server while it was read',
  ERR_QCOW2_SPOOL_FAILED: 'the temporary copy of an image that is read in order could not be made',
  ERR_QCOW2_CREATE_FAILED: 'the output could not be created',
  ERR_QCOW2_WRITE_FAILED: 'a write to the output failed',
  ERR_QCOW2_VERIFY_FAILED: 'the output, read back, is not what was written into it',
  ERR_QCOW2_BAD_ARGUMENT: 'a function was called with a value it does not accept',
  ERR_QCOW2_CLOSED: 'the image is closed already',
  ERR_QCOW2_DATA_FILE_REQUIRED: 'the image keeps its data in an external file that it does not name',
  ERR_QCOW2_SNAPSHOT_NOT_FOUND: 'no internal snapshot, or more than one, has that name or id',
  ERR_QCOW2_OUTPUT_EXISTS: 'the output exists and replacing it was not asked for',
  ERR_QCOW2_OUTPUT_IS_INPUT: 'the output is the input, or a file the input refers to',
  ERR_QCOW2_OUTPUT_TOO_SMALL: 'the output is a block device that has less room than the disk needs',
  ERR_QCOW2_UNSUPPORTED_OUTPUT: 'the output is a kind of file that cannot be written to',
} as const

/** One of the stable error codes. */
export type Qcow2ErrorCode = keyof typeof ERROR_CODES

/** What an error knows beside its message; each is absent where it makes no sense. */
export interface Qcow2ErrorFacts {
  /** Path (or description) of the file in the chain that the error is about. */
  readonly layer?: string | undefined
  /** Offset in that file, in bytes. */
  readonly hostOffset?: number | undefined
  /** Offset on the guest's disk, in bytes. */
  readonly guestOffset?: number | undefined
  /** Name of the header field, option or table. */
  readonly field?: string | undefined
  /** The value that was found. */
  readonly actual?: unknown
}

/** Base of all errors that this package makes; catch it to tell them from bugs and from abort reasons. */
export abstract class Qcow2Error extends Error {
  /** Stable, for programs. */
  readonly code: Qcow2ErrorCode
  /** Path (or description) of the file in the chain that the error is about. */
  readonly layer: string | undefined
  /** Offset in that file, in bytes. */
  readonly hostOffset: number | undefined
  /** Offset on the guest's disk, in bytes. */
  readonly guestOffset: number | undefined
  /** Name of the header field, option or table. */
  readonly field: string | undefined
  /** The value that was found. */
  readonly actual: unknown

  constructor(code: Qcow2ErrorCode, message: string, facts: Qcow2ErrorFacts = {}, cause?: unknown) {
    super(
      facts.layer === undefined ? message : `${quoteText(facts.layer, 300)}: ${message}`,
      cause === undefined ? undefined : { cause },
    )
    this.name = new.target.name
    this.code = code
    this.layer = facts.layer
    this.hostOffset = facts.hostOffset
    this.guestOffset = facts.guestOffset
    this.field = facts.field
    this.actual = facts.actual
  }
}

/** The image is malformed: another copy of it may help, another option will not. */
export class Qcow2FormatError extends Qcow2Error {}

/** The image is valid, but needs something this package does not do. */
export class Qcow2UnsupportedError extends Qcow2Error {}

/** A gate said no: the message names the option that would open it. */
export class Qcow2AccessError extends Qcow2Error {}

/** Reading failed below the format: the system's own error is the `cause`. */
export class Qcow2SourceError extends Qcow2Error {}

/** Writing the output failed: the system's own error is the `cause`. */
export class Qcow2SinkError extends Qcow2Error {}

/** The call is wrong, not the image. */
export class Qcow2UsageError extends Qcow2Error {}

/**
 * Text from an image or a path, safe to show on a terminal: in double quotes, with control, formatting and
 * bidirectional characters escaped, cut to `maxLength` characters (an ellipsis marks the cut).
 */
export function quoteText(text: string, maxLength = 100): string {
  const shown = text.length > maxLength ? `${text.slice(0, maxLength)}…` : text
  return JSON.stringify(shown).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) =>
    Array.from({ length: character.length }, (_, i) => character.charCodeAt(i))
      .map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`)
      .join(''),
  )
}

/** An offset or a bit mask as messages show it. */
export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`
}

/** The system's word for what went wrong (`ENOSPC: no space left on device`), for the end of a message. */
export function reasonOf(cause: unknown): string {
  const text = cause instanceof Error ? cause.message : String(cause)
  // Node names the path again, which every message here begins with.
  return quoteText(text.replace(/, \w+ '.*$/s, ''), 300)
    .slice(1, -1)
    .replaceAll('\\"', '"')
}

/** Makes the compiler prove that a `switch` handles every member of a union. */
/* c8 ignore next 3 */
export function assertNever(value: never): never {
  throw new TypeError(`unexpected value ${String(value)}`)
}
