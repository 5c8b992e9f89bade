// Hashing piece by piece: bytes and numbers of zeros, in order and none twice.
import { createHash } from 'node:crypto'
import t from 'tap'
import { Hasher, type Piece } from '../../../lib/digest/hasher.js'
import { pattern } from '../../fixtures/patterns.js'

const bytesOf = (piece: Piece): Uint8Array => (typeof piece === 'number' ? Buffer.alloc(piece) : piece)

const shared = new Uint8Array(new SharedArrayBuffer(5000), 7, 3000).fill(9)

t.test('gives the digest of all that was added, zeros included', async (t) => {
  const KIB = 1024
  const cases: Piece[][][] = [
    [],
    [[]],
    [[0]],
    [[1]],
    [[256 * KIB - 1]],
    [[256 * KIB]],
    [[256 * KIB + 1], [pattern(1, 1)]],
    [[pattern(1, 1000), 3, pattern(2, 70_000)], [shared, 1_000_000, 12], [pattern(3, 1)]],
  ]
  for (const algorithm of ['sha256', 'md5', 'blake2b512']) {
    for (const batches of cases) {
      const hasher = new Hasher(algorithm)
      let position = 0
      for (const pieces of batches) {
        hasher.add({ position, pieces })
        position += pieces.reduce<number>((sum, piece) => sum + bytesOf(piece).length, 0)
      }
      const expected = createHash(algorithm)
        .update(Buffer.concat(batches.flat().map(bytesOf)))
        .digest('hex')
      t.equal(hasher.finish(position), expected, `${algorithm} of ${position} bytes`)
    }
  }
})

t.test('gives none if something is missing or comes twice', async (t) => {
  const hasher = new Hasher('sha256')
  hasher.add({ position: 0, pieces: [pattern(1, 100), 50] })
  for (const position of [0, 100, 149, 151, 200]) {
    t.throws(() => {
      hasher.add({ position, pieces: [1] })
    }, /^the digest has lost its place: 150 bytes are hashed, not /)
    t.throws(() => hasher.finish(position), /lost its place/)
  }
  t.match(hasher.finish(150), /^[0-9a-f]{64}$/)
})
