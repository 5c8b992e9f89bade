/**
 * zstd's clusters that are to be read, as QEMU reads them: frames of every shape, one or more, and what may follow them.
 */
import t from 'tap'
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

/** Tests that `source` decodes to `expected`. */
function yields(title: string, source: Uint8Array, expected: Buffer = cluster): void {
  t.test(`decodes ${title}`, async (t) => {
    const { bytes, refusal, misdeeds } = decodeGuarded(decoder, source, expected.length)
    t.strictSame({ refusal, misdeeds }, { refusal: undefined, misdeeds: [] })
    t.ok(bytes.equals(expected), 'the bytes are right')
  })
}

const raw = (from: number, to: number): ZstdBlock => ({ kind: 'raw', bytes: cluster.subarray(from, to) })
const frame = (from: number, to: number, options?: ZstdFrameOptions): Buffer => zstdFrame([raw(from, to)], options)
/** A window of 2^(10 + exponent) bytes and eighths of it. */
const window = (exponent: number, eighths = 0): number => exponent * 8 + eighths
const join = (...parts: readonly Uint8Array[]): Buffer => Buffer.concat(parts)
const empty: ZstdBlock = { kind: 'raw', bytes: Buffer.alloc(0) }

const blocks: [title: string, blocks: ZstdBlock[]][] = [
  ['one raw block', [raw(0, CLUSTER)]],
  ['many raw blocks', Array.from({ length: 32 }, (_, index) => raw(index * 128, (index + 1) * 128))],
  ['a byte repeated', [{ kind: 'rle', byte: 0x5a, length: CLUSTER }]],
  [
    'blocks of each kind',
    [
      raw(0, 100),
      { kind: 'rle', byte: 0, length: 1000 },
      { kind: 'compressed', literals: cluster.subarray(0, 500) },
      { kind: 'compressed', literals: cluster.subarray(500, 900), match: { offset: 1600, length: 996 } },
      raw(0, 1100),
    ],
  ],
  ['blocks without content', [empty, raw(0, 1), { kind: 'rle', byte: 1, length: 0 }, empty, raw(1, CLUSTER), empty]],
  [
    'a copy that overlaps what it makes',
    [{ kind: 'compressed', literals: Buffer.from('abc'), match: { offset: 3, length: CLUSTER - 3 } }],
  ],
  [
    'a copy of the byte before',
    [{ kind: 'compressed', literals: Buffer.of(7), match: { offset: 1, length: CLUSTER - 1 } }],
  ],
  [
    'copies from the first byte on',
    [
      raw(0, 1000),
      { kind: 'compressed', literals: Buffer.alloc(0), match: { offset: 1000, length: 1000 } },
      { kind: 'compressed', literals: Buffer.of(1, 2, 3), match: { offset: 2003, length: 2003 } },
      raw(0, 90),
    ],
  ],
]
for (const [title, list] of blocks) {
  const expected = zstdContent(list)
  yields(title, zstdFrame(list), expected)
  yields(`${title}, with a window`, zstdFrame(list, { windowDescriptor: window(2) }), expected)
  yields(`${title}, of unknown length`, zstdFrame(list, { windowDescriptor: window(2), contentSize: 'none' }), expected)
  yields(`${title}, with a checksum`, zstdFrame(list, { checksum: 'correct' }), expected)
}

for (const contentSizeBytes of [2, 4, 8] as const) {
  yields(`a length in ${contentSizeBytes} bytes`, frame(0, CLUSTER, { contentSizeBytes }))
  const windowDescriptor = window(2)
  yields(`the same with a window`, frame(0, CLUSTER, { contentSizeBytes, windowDescriptor, checksum: 'correct' }))
}
yields('a length in one byte', join(frame(0, 255, { contentSizeBytes: 1 }), frame(255, CLUSTER)))

const none: ZstdFrameOptions = { contentSize: 'none' }
yields('a window that is as long as the cluster', frame(0, CLUSTER, { ...none, windowDescriptor: window(2) }))
yields('a window of 128 MiB', frame(0, CLUSTER, { ...none, windowDescriptor: window(17) }))
yields('a window of 128 MiB and a length', frame(0, CLUSTER, { windowDescriptor: window(17) }))
yields('a window with eighths', frame(0, CLUSTER, { ...none, windowDescriptor: window(3, 5) }))
{
  const eighths: ZstdBlock[] = [
    raw(0, 1000),
    raw(1000, 1152),
    { kind: 'compressed', literals: cluster.subarray(0, 2), match: { offset: 1150, length: 1000 } },
  ]
  const expected = zstdContent(eighths)
  const source = zstdFrame(eighths, { ...none, windowDescriptor: window(0, 1) })
  yields('copies from as far as a window of 1152 bytes reaches', source, expected)
}
yields('a dictionary that is none', frame(0, CLUSTER, { dictionaryId: 0 }))
yields('the bit of the header that means nothing', frame(0, CLUSTER, { extraDescriptorBits: 0x10 }))

yields('two frames', join(frame(0, 1), frame(1, CLUSTER)))
yields(
  'many frames of all kinds',
  join(
    ...Array.from({ length: 64 }, (_, index) =>
      frame(
        index * 64,
        (index + 1) * 64,
        [
          {},
          { checksum: 'correct' } as const,
          { ...none, windowDescriptor: window(index % 18) },
          { ...none, windowDescriptor: window(0), checksum: 'correct' } as const,
        ][index % 4],
      ),
    ),
  ),
)
for (let kind = 0; kind < 16; kind++) {
  const skipped = zstdSkippableFrame(pattern(kind, kind * 100), kind)
  yields(
    `a frame to skip of kind ${kind}, before and between`,
    join(skipped, frame(0, 99), skipped, skipped, frame(99, CLUSTER)),
  )
}
yields('a frame without content before the others', join(zstdFrame([empty]), frame(0, CLUSTER)))
yields(
  'a frame without content between others',
  join(
    frame(0, 9),
    zstdFrame([empty], { ...none, windowDescriptor: window(0), checksum: 'correct' }),
    frame(9, CLUSTER),
  ),
)

t.test('checks the checksums of frames of any length', async (t) => {
  for (let length = 0; length <= 100; length++) {
    const rest = frame(length, CLUSTER, { checksum: 'correct' })
    const right = join(frame(0, length, { checksum: 'correct' }), rest)
    t.ok(decodeGuarded(decoder, right, CLUSTER).bytes.equals(cluster), `${length} bytes and ${CLUSTER - length}`)
    const wrong = Buffer.from(right)
    wrong[right.length - rest.length - 1]! ^= 1
    t.type(decodeGuarded(decoder, wrong, CLUSTER).refusal, 'string', `${length} bytes, of another checksum`)
  }
})

// What a cluster's descriptor gives is whole sectors: the last frame is followed by other clusters' bytes.
const whole = frame(0, CLUSTER)
yields('other bytes behind the last frame', join(whole, pattern(1, 500)))
yields('another frame behind the last one', join(whole, whole))
yields('a part of a frame behind the last one', join(whole, whole.subarray(0, 9)))
yields('a damaged frame behind the last one', join(whole, frame(0, CLUSTER, { checksum: 1 })))
yields('a frame to skip behind the last one, cut off', join(whole, zstdSkippableFrame(pattern(1, 500)).subarray(0, 20)))

{
  const large = text(9, 2 ** 21)
  const starts = Array.from({ length: 16 }, (_, index) => index * ZSTD_BLOCK_LIMIT)
  const pieces = starts.map((start) => large.subarray(start, start + ZSTD_BLOCK_LIMIT))
  const list = pieces.map((bytes): ZstdBlock => ({ kind: 'raw', bytes }))
  yields('a cluster of 2 MiB, in the longest blocks', zstdFrame(list, { checksum: 'correct' }), large)
  yields('a cluster of 2 MiB, in a frame for each block', join(...list.map((block) => zstdFrame([block]))), large)
  const repeated: ZstdBlock[] = [
    ...list.slice(0, 8),
    ...Array.from({ length: 8 }, (): ZstdBlock => ({
      kind: 'compressed',
      literals: Buffer.alloc(0),
      match: { offset: 8 * ZSTD_BLOCK_LIMIT, length: ZSTD_BLOCK_LIMIT },
    })),
  ]
  const twice = join(large.subarray(0, 2 ** 20), large.subarray(0, 2 ** 20))
  const source = zstdFrame(repeated, { ...none, windowDescriptor: window(10) })
  yields('copies from 1 MiB before, as far as the window reaches', source, twice)
}
