/** Which digests there are: the hash functions of `node:crypto` whose result has a length of its own. */
import { createHash, getHashes } from 'node:crypto'
import { badOption } from '../image/options.js'

/** How long their result is, these leave to the caller. */
const HAS_ANY_LENGTH = /^(?:shake|keccak-kmac)/i

/** Refuses what is no name of a digest. @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT` */
export function checkAlgorithm(name: unknown): void {
  if (typeof name !== 'string' || HAS_ANY_LENGTH.test(name) || !isHash(name)) {
    throw badOption(
      'digest',
      name,
      'a hash function of node:crypto with a fixed length, such as sha256, sha512, sha1, blake2b512 or md5',
    )
  }
}

function isHash(name: string): boolean {
  try {
    createHash(name)
  } catch {
    return false
  }
  // It takes names by which nothing else knows them, too.
  return getHashes().some((known) => known.toLowerCase() === name.toLowerCase())
}
