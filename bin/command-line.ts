/**
 * What the commands' lines have in common: inputs are named alike, and words that make no sense are told alike.
 */

/** A text to print. */
export interface TextRequest {
  readonly kind: 'text'
  readonly text: string
}

/** The words make no sense: the message says which. */
export class CommandLineError extends Error {
  /** For programs, as of the library's own errors. */
  readonly code = 'ERR_QCOW2_BAD_ARGUMENT'
}

/** What a word names: an address begins as one. @throws {CommandLineError} */
export function pathOrUrl(word: string): string | URL {
  if (!/^[a-z][a-z\d+.-]*:\/\//i.test(word)) {
    return word
  }
  if (!URL.canParse(word)) {
    // It may have a password in it.
    throw new CommandLineError('what begins as an address is no address')
  }
  return new URL(word)
}
