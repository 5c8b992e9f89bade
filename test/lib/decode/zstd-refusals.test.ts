/**
 * zstd's clusters that are not to be read: damage, frames that ask for too much, and too much or too little output.
 */
import t, { type Test } from 'tap'
import { createMemoryDecoder } from '../../fixtures/memory-decoder.js'
import { decodeGuarded } from '../../fixtures/decode-outcome.js'
import { pattern, text } from '../../fixtures/patterns.js'
import {
  ZSTD_BLOCK_LIMIT,
  zstdContent,
  zstdFrame,
  zstdSkippableFrame,
  type ZstdBlock,
  type ZstdFrameOptions,
} from '../../fixtures/zstd-frames.js'

const CLUSTER = 4096
const decoder = createMemoryDecoder('zstd')
const cluster = text(1, CLUSTER)

function refuses(t: Test, title: string, source: Uint8Array, length = CLUSTER): void {
  const { refusal, misdeeds } = decodeGuarded(decoder, source, length)
  t.type(refusal, 'string', `${title}: is refused`)
  t.strictSame(misdeeds, [], `${title}: nothing else happens`)
}

/** Shows that a frame is refused for the one thing that is wrong with it. */
function accepts(t: Test, title: string, source: Uint8Array, expected: Buffer = cluster): void {
  const { bytes, refusal } = decodeGuarded(decoder, source, expected.length)
  t.equal(refusal, undefined, `${title}: is accepted`)
  t.ok(bytes.equals(expected), `${title}: the bytes`)
}

const raw = (from: number, to: number): ZstdBlock => ({ kind: 'raw', bytes: cluster.subarray(from, to) })
const rle = (length: number): ZstdBlock => ({ kind: 'rle', byte: 7, length })
const frame = (from: number, to: number, options?: ZstdFrameOptions): Buffer => zstdFrame([raw(from, to)], options)
const window = (exponent: number, eighths = 0): number => exponent * 8 + eighths
const join = (...parts: readonly Uint8Array[]): Buffer => Buffer.concat(parts)
const noSize = { contentSize: 'none', windowDescriptor: window(2) } as const
const whole = frame(0, CLUSTER)

t.test('what is no frame', async (t) => {
  for (const [title, source] of [
    ['nothing', Buffer.alloc(0)],
    ['zeros', Buffer.alloc(CLUSTER)],
    ['noise', pattern(1, CLUSTER)],
    ['plain bytes', cluster],
    ['another magic number', join(Buffer.of(0x29), whole.subarray(1))],
    ['the magic number of an old zstd', join(Buffer.of(0x27), whole.subarray(1))],
    ['the magic number backwards', join(Buffer.from('fd2fb528', 'hex'), whole.subarray(4))],
    ['a frame that does not begin at once', join(Buffer.of(0), whole)],
    ['other bytes where the second frame should be', join(frame(0, 100), Buffer.alloc(8), frame(100, CLUSTER))],
    ['a number next to those of frames to skip', join(Buffer.from('602a4d1800000000', 'hex'), whole)],
  ] as const) {
    refuses(t, title, source)
  }
})

t.test('more output than a cluster', async (t) => {
  const more = [raw(0, CLUSTER), rle(1)]
  refuses(t, 'one byte more', zstdFrame(more))
  refuses(t, 'one byte more, of unknown length', zstdFrame(more, noSize))
  refuses(t, 'twice as much', zstdFrame([raw(0, CLUSTER), raw(0, CLUSTER)]))
  refuses(t, 'a last frame that is a byte too long', join(frame(0, 1), whole))
  refuses(t, 'the same of unknown length', join(frame(0, 1), frame(0, CLUSTER, noSize)))
  // 2000 blocks of 128 KiB: 250 MiB.
  const options = { contentSize: 'none', windowDescriptor: window(10) } as const
  const one = zstdFrame([rle(ZSTD_BLOCK_LIMIT)], { ...options, endsWithLastBlock: false })
  const block = one.subarray(-4)
  refuses(t, '250 MiB from 8 KiB', join(one, ...new Array<Uint8Array>(1999).fill(block)))
  const last = zstdFrame([rle(ZSTD_BLOCK_LIMIT)], options).subarray(-4)
  refuses(t, 'the same with an end', join(one, ...new Array<Uint8Array>(1998).fill(block), last))
})

t.test('less output than a cluster', async (t) => {
  refuses(t, 'a byte too few', frame(0, CLUSTER - 1))
  refuses(t, 'a byte too few, of unknown length', frame(0, CLUSTER - 1, noSize))
  refuses(t, 'a byte too few in two frames', join(frame(0, 2000), frame(2001, CLUSTER)))
  refuses(t, 'a frame without content', frame(0, 0))
  refuses(t, 'frames to skip and nothing else', join(zstdSkippableFrame(cluster), zstdSkippableFrame(cluster)))
  const skipped = new Array<Uint8Array>(5000).fill(zstdSkippableFrame(Buffer.alloc(0)))
  refuses(t, 'thousands of frames to skip', join(...skipped))
  refuses(t, 'a frame to skip that is longer than all there is', join(Buffer.from('502a4d18ffffffff', 'hex'), whole))
})

t.test('frames that are cut off, wherever that is', async (t) => {
  const parts: ZstdBlock[] = [
    raw(0, 40),
    rle(200),
    { kind: 'compressed', literals: cluster.subarray(0, 60), match: { offset: 100, length: 3796 } },
  ]
  const expected = zstdContent(parts)
  const variants: [title: string, options: ZstdFrameOptions][] = [
    ['a frame', {}],
    ['a frame of unknown length', noSize],
    ['a frame with all that a header can have', { dictionaryId: 0, windowDescriptor: window(2), contentSizeBytes: 8 }],
    ['a frame with a checksum', { checksum: 'correct' }],
  ]
  for (const [title, options] of variants) {
    const source = zstdFrame(parts, options)
    accepts(t, title, source, expected)
    for (let length = 0; length < source.length; length++) {
      refuses(t, `${title}, ${length} of ${source.length} bytes`, source.subarray(0, length))
    }
  }
  const several = join(
    frame(0, 10),
    zstdSkippableFrame(Buffer.alloc(9)),
    zstdFrame([rle(CLUSTER - 10)], { checksum: 'correct' }),
  )
  for (let length = 0; length < several.length; length++) {
    refuses(t, `several frames, ${length} of ${several.length} bytes`, several.subarray(0, length))
  }
  refuses(t, 'a frame without a last block', zstdFrame([raw(0, CLUSTER)], { endsWithLastBlock: false }))
  refuses(t, 'the same of unknown length', zstdFrame([raw(0, CLUSTER)], { ...noSize, endsWithLastBlock: false }))
})

t.test('checksums that are wrong', async (t) => {
  const good = frame(0, CLUSTER, { checksum: 'correct' })
  accepts(t, 'the right one', good)
  for (const at of [1, 2, 3, 4]) {
    for (const bit of [0x01, 0x80]) {
      const bad = Buffer.from(good)
      bad[bad.length - at]! ^= bit
      refuses(t, `bit ${bit} of the last byte but ${at - 1} turned over`, bad)
    }
  }
  refuses(t, 'of another cluster', frame(0, CLUSTER, { ...noSize, checksum: 0x12345678 }))
  refuses(t, 'of the first of two frames', join(frame(0, 9, { checksum: 0 }), frame(9, CLUSTER)))
  const changed = Buffer.from(good)
  changed[1000]! ^= 1
  refuses(t, 'of content that was changed', changed)
})

t.test('lengths that are wrong', async (t) => {
  for (const contentSize of [0, CLUSTER - 1, CLUSTER + 1, 2 ** 31, 2n ** 40n, 2n ** 63n]) {
    refuses(t, `${contentSize} instead of ${CLUSTER}`, frame(0, CLUSTER, { contentSize, contentSizeBytes: 8 }))
    const options = { contentSize, contentSizeBytes: 8, windowDescriptor: window(2) } as const
    refuses(t, `${contentSize} instead of ${CLUSTER}, with a window`, frame(0, CLUSTER, options))
  }
  refuses(t, 'a cluster promised, and less', frame(0, 100, { contentSize: CLUSTER }))
  refuses(t, 'the same before another frame', join(frame(0, 100, { contentSize: 101 }), frame(101, CLUSTER)))
})

t.test('frames that ask for too much', async (t) => {
  accepts(t, 'a window of 128 MiB', frame(0, CLUSTER, { ...noSize, windowDescriptor: window(17) }))
  for (const descriptor of [window(17, 1), window(17, 7), window(18), window(21), window(31, 7)]) {
    const windowDescriptor = descriptor
    refuses(t, `window descriptor ${descriptor}`, frame(0, CLUSTER, { ...noSize, windowDescriptor }))
    const second = frame(9, CLUSTER, { ...noSize, windowDescriptor })
    refuses(t, `window descriptor ${descriptor} in the second frame`, join(frame(0, 9), second))
  }
  for (const dictionaryId of [1, 256, 0xffff_ffff]) {
    refuses(t, `dictionary ${dictionaryId}`, frame(0, CLUSTER, { dictionaryId }))
    refuses(t, `dictionary ${dictionaryId}, with a window`, frame(0, CLUSTER, { ...noSize, dictionaryId }))
  }
  refuses(t, 'the reserved bit of the header', frame(0, CLUSTER, { extraDescriptorBits: 0x08 }))
})

t.test('blocks that are damaged', async (t) => {
  const verbatim = (type: number, size: number, content: Uint8Array = Buffer.alloc(size)): ZstdBlock => ({
    kind: 'verbatim',
    type,
    size,
    content,
  })
  for (const [title, block] of [
    ['of the fourth type', verbatim(3, 10)],
    ['compressed, of no bytes', verbatim(2, 0)],
    ['compressed, of one byte', verbatim(2, 1)],
    ['compressed, of noise', verbatim(2, 300, pattern(5, 300))],
    ['compressed, with literals of a tree that is nowhere', verbatim(2, 5, Buffer.of(0x03, 0, 0, 0, 0))],
    ['compressed, with more literals than bytes', verbatim(2, 4, Buffer.of(0x0c, 0x10, 0, 0))],
    ['compressed, with sequences by tables that are nowhere', verbatim(2, 4, Buffer.of(0x08, 7, 1, 0xfc))],
    ['compressed, with the reserved bits of the sequences', verbatim(2, 7, Buffer.of(0x08, 7, 1, 0x57, 1, 1, 0))],
    ['raw, longer than all there is', verbatim(0, 100_000, Buffer.alloc(4000))],
    ['compressed, longer than all there is', verbatim(2, 100_000, Buffer.alloc(4000))],
  ] as const) {
    for (const options of [{ contentSize: CLUSTER }, noSize]) {
      refuses(t, title, zstdFrame([block, raw(0, CLUSTER)], options))
      refuses(t, `${title}, behind a good one`, zstdFrame([raw(0, CLUSTER - 20), block, raw(0, 20)], options))
    }
  }
})

t.test('copies of what is not there', async (t) => {
  const copy = (offset: number, length: number, literals = 10): ZstdBlock => ({
    kind: 'compressed',
    literals: cluster.subarray(0, literals),
    match: { offset, length },
  })
  const at = { ...noSize, windowDescriptor: window(0) }
  accepts(t, 'from the first byte', zstdFrame([copy(10, CLUSTER - 10)]), zstdContent([copy(10, CLUSTER - 10)]))
  refuses(t, 'from one byte before the first', zstdFrame([copy(11, CLUSTER - 10)]))
  refuses(t, 'the same behind other blocks', zstdFrame([raw(0, 2000), copy(2011, CLUSTER - 2010)]))
  refuses(t, 'from the frame before', join(frame(0, 2000), zstdFrame([copy(11, CLUSTER - 2010)])))
  refuses(t, 'with nothing before at all', zstdFrame([copy(1, CLUSTER, 0)]))
  refuses(t, 'from far beyond', zstdFrame([copy(2 ** 26, CLUSTER - 10)]))
  const reach = [raw(0, 1000), raw(1000, 2000), raw(2000, 3000), copy(1024, 1000, 24), copy(1000, 62)]
  accepts(t, 'from as far as the window reaches', zstdFrame(reach, at), zstdContent(reach))
})

// Each block may hold as much as the window does, and 128 KiB at most. Where a frame tells its length QEMU's decoder takes
// another way and does not look; other frames it refuses.
t.test('blocks that hold more than they may', async (t) => {
  const copy = (length: number): ZstdBlock => ({
    kind: 'compressed',
    literals: Buffer.alloc(100),
    match: { offset: 1, length: length - 100 },
  })
  const plain = (length: number): ZstdBlock => ({ kind: 'raw', bytes: Buffer.alloc(length) })
  for (const [limit, clusterBytes, windowDescriptor] of [
    [1024, 4096, window(0)],
    [131_072, 2 ** 18, window(10)],
  ] as const) {
    for (const [title, block] of [
      ['raw', plain],
      ['repeated', rle],
      ['compressed', copy],
    ] as const) {
      const blocks = (first: number): ZstdBlock[] => {
        const rest = clusterBytes - first
        const all = Array.from({ length: Math.ceil(rest / limit) }, (_, index) =>
          rle(Math.min(limit, rest - index * limit)),
        )
        return [block(first), ...all]
      }
      const options = { contentSize: 'none', windowDescriptor } as const
      accepts(t, `${title}, ${limit}`, zstdFrame(blocks(limit), options), zstdContent(blocks(limit)))
      refuses(t, `${title}, ${limit + 1}`, zstdFrame(blocks(limit + 1), options), clusterBytes)
    }
  }
})
