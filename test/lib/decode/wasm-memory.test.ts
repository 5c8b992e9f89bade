/**
 * Where the WebAssembly decoders read and write: in the source and the target they are told, and in a part of their own below
 * both. Source and target lie at the very end of memory in turn, so that a step past it cannot go unseen; what surrounds
 * them differs from call to call, so that a look at it cannot stay without consequence.
 */
import { deflateRawSync } from 'node:zlib'
import t from 'tap'
import { INFLATE_WASM } from '../../../lib/decode/inflate-wasm.js'
import { TABLES_BYTES } from '../../../lib/decode/lane-memory.js'
import { ZSTD_WASM } from '../../../lib/decode/zstd-wasm.js'
import { compressZstdByHand } from '../../fixtures/compress.js'
import { CONTENT_KINDS, contents } from '../../fixtures/disk-contents.js'
import { randomDeflate } from '../../fixtures/random-deflate.js'
import { runs } from '../../fixtures/random-images.js'
import { randomNumbers } from '../../fixtures/random-writes.js'
import { importsOfModule, instantiate, type BareDecoder } from '../../fixtures/wasm-modules.js'
import { zstdCompressors } from '../../fixtures/zstd-compressors.js'
import { zstdFrame, type ZstdBlock } from '../../fixtures/zstd-frames.js'
import { huffmanBlock, plainBlock } from '../../fixtures/zstd-literals.js'

const PAGES = TABLES_BYTES / 65536 + 2
/** Each decoder keeps to its own part of what lies below, so that they can work in the same memory. */
const OWN_PARTS = { inflate: [0x400, 0x8000], zstd: [0x8000, TABLES_BYTES] } as const
type DecoderName = keyof typeof OWN_PARTS
const NOISES = [0x00, 0xff, 0xa5]

interface Run {
  readonly result: number
  readonly bytes: Buffer
  readonly misdeeds: readonly string[]
}

/** One call, with `noise` around source, target and the decoder's own part, and source or target at the end of memory. */
function run(
  name: DecoderName,
  { memory, decode }: BareDecoder,
  source: Uint8Array,
  length: number,
  isSourceLast: boolean,
  noise: number,
): Run {
  const [ownFrom, ownTo] = OWN_PARTS[name]
  const heap = Buffer.from(memory.buffer).fill(noise, 0, ownFrom).fill(noise, ownTo)
  const sourceAt = isSourceLast ? heap.length - source.length : TABLES_BYTES
  const targetAt = isSourceLast ? TABLES_BYTES + 37 : heap.length - length
  heap.set(source, sourceAt)
  const before = Buffer.from(heap)
  const misdeeds: string[] = []
  let result = NaN
  try {
    result = decode(sourceAt, source.length, targetAt, length)
  } catch (error) {
    misdeeds.push(`reached past the end of memory: ${String(error)}`)
  }
  const isSame = (from: number, to: number): boolean => before.compare(heap, from, to, from, to) === 0
  if (!isSame(0, ownFrom) || !isSame(ownTo, TABLES_BYTES)) misdeeds.push("wrote to the other decoder's part")
  if (!isSame(TABLES_BYTES, targetAt)) misdeeds.push('wrote before the target')
  if (!isSame(targetAt + length, heap.length)) misdeeds.push('wrote after the target')
  if (result > length) misdeeds.push(`says that it wrote ${result} of ${length} bytes`)
  return { result, bytes: Buffer.from(heap.subarray(targetAt, targetAt + length)), misdeeds }
}

type Compress = (content: Buffer, turn: number, random: () => number) => Buffer

const decoders: [name: DecoderName, code: string, compress: Compress][] = [
  [
    'inflate',
    INFLATE_WASM,
    (content, turn, random) =>
      turn % 3 === 0
        ? randomDeflate(random, turn % 12 === 0)
        : deflateRawSync(content, { level: turn % 10, windowBits: 15 }),
  ],
  [
    'zstd',
    ZSTD_WASM,
    (content, turn) => {
      // Only the real one has entropy codes to get lost in.
      const [libzstd] = turn % 3 === 0 ? zstdCompressors : []
      if (libzstd === undefined) return compressZstdByHand(content)
      return libzstd.compress(content, { level: 1 + (turn % 19), hasChecksum: turn % 4 === 0, hasSize: turn % 2 === 0 })
    },
  ],
]

for (const [name, code, compress] of decoders) {
  t.test(`${name} asks for nothing from outside but memory, and for no more than its tables`, async (t) => {
    t.strictSame(importsOfModule(code), [{ module: 'env', name: 'memory', kind: 'memory' }])
    const { memory } = instantiate(code, TABLES_BYTES / 65536)
    const [ownFrom, ownTo] = OWN_PARTS[name]
    const elsewhere = Buffer.from(Buffer.from(memory.buffer)).fill(0, ownFrom, ownTo)
    t.ok(elsewhere.equals(Buffer.alloc(elsewhere.length)), 'and begins with nothing outside of its own part')
  })

  t.test(`${name} decodes wherever source and target lie`, async (t) => {
    const decoder = instantiate(code, PAGES)
    const content = contents('mixture', 4096, randomNumbers(1))
    for (const isSourceLast of [true, false]) {
      const { result, bytes, misdeeds } = run(
        name,
        decoder,
        compress(content, 1, randomNumbers(1)),
        4096,
        isSourceLast,
        0xa5,
      )
      t.strictSame({ result, misdeeds }, { result: 4096, misdeeds: [] })
      t.ok(bytes.equals(content))
    }
  })

  t.test(`${name} keeps to its source and target, whether whole, damaged, cut or too long`, async (t) => {
    const decoder = instantiate(code, PAGES)
    const { numRuns, seed } = runs(400)
    const found: string[] = []
    const counts = { full: 0, refused: 0 }
    for (let turn = 0; turn < numRuns; turn++) {
      const random = randomNumbers(seed + turn)
      const upTo = (limit: number): number => Math.floor(random() * limit)
      const length = [1 + upTo(40), 512, 1 + upTo(3000), 16384][turn % 4]!
      const content = contents(
        CONTENT_KINDS[turn % CONTENT_KINDS.length]!,
        length + [0, 0, upTo(400)][upTo(3)]!,
        random,
      )
      const whole = compress(content, turn, random)
      const damaged = Buffer.from(whole)
      damaged[upTo(whole.length)]! ^= 1 << upTo(8)
      for (const [kind, source] of Object.entries({ whole, damaged, cut: whole.subarray(0, upTo(whole.length)) })) {
        const [first, ...others] = NOISES.map((noise) => run(name, decoder, source, length, turn % 2 === 0, noise))
        const misdeeds = [...first!.misdeeds, ...others.flatMap(({ misdeeds }) => misdeeds)]
        for (const { result, bytes } of others) {
          if (result !== first!.result) misdeeds.push(`gives ${first!.result}, and ${result} among other bytes`)
          if (result === length && !bytes.equals(first!.bytes)) misdeeds.push('makes other bytes among other bytes')
        }
        found.push(...misdeeds.map((misdeed) => `seed ${seed + turn}, ${kind}: ${misdeed}`))
        counts[first!.result === length ? 'full' : 'refused']++
      }
    }
    t.strictSame(found, [])
    t.ok(counts.full > numRuns / 2 && counts.refused > numRuns / 2, 'both ends were seen', counts)
  })
}

t.test('zstd takes no more literals than it has room for, whatever a block says', async (t) => {
  const decoder = instantiate(ZSTD_WASM, TABLES_BYTES / 65536 + 16)
  const literals = Array.from({ length: 200_000 }, (_, index) => (index * 7) % 4)
  const blocks: [title: string, block: ZstdBlock][] = [
    ['raw', plainBlock('raw', Buffer.alloc(140_000, 7), 20)],
    ['repeated', plainBlock('rle', Buffer.alloc(2 ** 20 - 1, 7), 20)],
    ['compressed', huffmanBlock(literals, { format: 3, weights: [3, 2, 1, 1] })],
  ]
  for (const [title, block] of blocks) {
    const source = zstdFrame([block], { contentSize: 262_144, windowDescriptor: 80 })
    for (const isSourceLast of [true, false]) {
      const { result, misdeeds } = run('zstd', decoder, source, 262_144, isSourceLast, 0xa5)
      t.ok(result < 0, `${title}: is refused`)
      t.strictSame(misdeeds, [], `${title}: spills nothing`)
    }
  }
})
