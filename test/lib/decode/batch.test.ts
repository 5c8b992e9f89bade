/**
 * Many clusters decoded in one go: which bytes each one is made from, where it goes, and what becomes of damage.
 */
import t from 'tap'
import { decodeBatch } from '../../../lib/decode/batch.js'
import { DecodeError } from '../../../lib/decode/decode-error.js'
import { createDecoder, type Decoder } from '../../../lib/decode/decoder.js'
import { makeBatch } from '../../fixtures/batches.js'
import { filled } from '../../fixtures/patterns.js'

t.test(
  'gives the decoder the bytes of each range and the part of the target that is its cluster, in order',
  async (t) => {
    const calls: { source: string; offset: number; length: number }[] = []
    const target = Buffer.from(new ArrayBuffer(12))
    const decoder: Decoder = {
      decode: (source, part) => {
        calls.push({ source: Buffer.from(source).toString(), offset: part.byteOffset, length: part.length })
        part.set(source.subarray(0, part.length))
      },
    }
    const failure = decodeBatch(decoder, {
      compression: 'zlib',
      clusterSize: 4,
      stored: Buffer.from('abcdefghijklm'),
      // Apart, in any order, one over the other, and past the end.
      ranges: Uint32Array.of(7, 4, 0, 5, 9, 100),
      target,
    })
    t.equal(failure, undefined)
    t.strictSame(calls, [
      { source: 'hijk', offset: 0, length: 4 },
      { source: 'abcde', offset: 4, length: 4 },
      { source: 'jklm', offset: 8, length: 4 },
    ])
    t.equal(target.toString(), 'hijkabcdjklm')
  },
)

t.test('decodes nothing if there is nothing', async (t) => {
  const decoder: Decoder = { decode: () => t.fail('there is no cluster') }
  const nothing = new Uint8Array(0)
  const ranges = new Uint32Array(0)
  const failure = decodeBatch(decoder, {
    compression: 'zlib',
    clusterSize: 512,
    stored: nothing,
    ranges,
    target: nothing,
  })
  t.equal(failure, undefined)
})

for (const compression of ['zlib', 'zstd'] as const) {
  t.test(`decodes clusters of ${compression}`, async (t) => {
    const decoder = createDecoder(compression)
    const { batch, expected } = makeBatch({ compression, clusterSize: 4096, count: 5 })
    t.equal(decodeBatch(decoder, batch), undefined)
    t.ok(expected.equals(batch.target))
  })

  t.test(`stops at the first cluster of ${compression} that is damaged, and names it`, async (t) => {
    const decoder = createDecoder(compression)
    for (const cluster of [0, 1, 4]) {
      const { batch, expected } = makeBatch({ compression, clusterSize: 4096, count: 5, damaged: [cluster, 4] })
      const failure = decodeBatch(decoder, batch)
      t.equal(failure?.cluster, cluster)
      t.match(failure?.reason, /^[^\p{Cc}]+$/u, 'with a reason')
      const done = cluster * 4096
      t.ok(expected.subarray(0, done).equals(batch.target.subarray(0, done)), 'those before it are decoded')
      t.ok(filled(0xa5, 5 * 4096 - done - 4096).equals(batch.target.subarray(done + 4096)), 'those after it are not')
    }
  })
}

t.test('says why a cluster could not be decoded, in the words of its decoder', async (t) => {
  const decoder: Decoder = {
    decode: () => {
      throw new DecodeError('not today')
    },
  }
  t.strictSame(decodeBatch(decoder, makeBatch({ count: 1 }).batch), { cluster: 0, reason: 'not today' })
})

t.test('lets an error pass that is not about the bytes', async (t) => {
  const bug = new TypeError('a bug')
  const decoder: Decoder = {
    decode: () => {
      throw bug
    },
  }
  t.throws(() => decodeBatch(decoder, makeBatch({ count: 1 }).batch), bug)
})
