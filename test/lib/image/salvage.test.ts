/**
 * Salvage: what cannot be read becomes zeros and is told, and everything else is read as if nothing were wrong.
 */
import t, { type Test } from 'tap'
import {
  createReadStream,
  Qcow2FormatError,
  Qcow2SourceError,
  Qcow2UsageError,
  type Qcow2Damage,
  type Qcow2Input,
  type Qcow2OpenOptions,
  type SalvageFunction,
} from '../../../lib/index.js'
import { bytesOf, closing } from '../../fixtures/consume.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type BuiltImage, type ImageSpec } from '../../fixtures/image-builder.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { pattern, text } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { Gate, settling, turns } from '../../fixtures/turns.js'

const CLUSTER = 4096
const REACH = 512 * CLUSTER

/** Where zeros stand, and why: `[offset, length, code]`. */
type Loss = readonly [offset: number, length: number, code: string]

const lossOf = ({ offset, length, error }: Qcow2Damage): Loss => [offset, length, error.code]

/** The disk with zeros where the losses are. */
function without(guest: Buffer, losses: readonly Loss[]): Buffer {
  const disk = Buffer.from(guest)
  for (const [offset, length] of losses) disk.fill(0, offset, offset + length)
  return disk
}

/** Reads the whole disk at random, in a stream, and sector by sector: each way tells what is lost, and hands out the rest. */
async function expectLosses(
  t: Test,
  input: () => Qcow2Input,
  guest: Buffer,
  losses: readonly Loss[],
  options: Qcow2OpenOptions = {},
): Promise<void> {
  const found: Qcow2Damage[] = []
  const salvage: SalvageFunction = (damage) => found.push(damage)
  const told = (): Loss[] =>
    found
      .splice(0)
      .map(lossOf)
      .sort(([a], [b]) => a - b)
  const expected = without(guest, losses)
  const image = await opened(t, input(), { ...options, salvage })
  t.ok((await readBytes(image)).equals(expected), 'the bytes at random')
  t.same(told(), losses, 'what is lost at random')
  t.ok((await bytesOf(createReadStream(image))).equals(expected), 'the bytes of a stream')
  t.same(told(), losses, 'what is lost in a stream')
  for (let at = 0; at < Math.min(expected.length, 8 * CLUSTER); at += 512) {
    const sector = await readBytes(image, at, 512)
    const isLost = losses.some(([offset, length]) => at >= offset && at < offset + length)
    const [loss, ...more] = told()
    const isRight = isLost ? loss?.[0] === at && loss[1] === 512 && more.length === 0 : loss === undefined
    if (!sector.equals(expected.subarray(at, at + 512)) || !isRight) t.fail(`the sector at ${at}`, { loss })
  }
  await image.close()

  const strict = await opened(t, input(), options)
  await t.rejects(readBytes(strict), { code: losses[0]![2] }, 'without salvage it is an error')
  await strict.close()
}

function built(spec: ImageSpec): BuiltImage {
  return buildImage({ clusterBits: 12, ...spec })
}

for (const [what, spec, losses] of [
  [
    'compressed clusters that do not decode',
    {
      clusters: [
        [0, { kind: 'compressed', bytes: text(0, CLUSTER) }],
        [1, { kind: 'compressed-raw', payload: pattern(1, 900) }],
        [2, { kind: 'compressed', bytes: text(2, CLUSTER) }],
        [3, { kind: 'compressed-raw', payload: pattern(3, 900) }],
        [4, { kind: 'compressed-raw', payload: pattern(4, 900) }],
        [5, { kind: 'data', bytes: pattern(5, CLUSTER) }],
      ],
    },
    [
      [CLUSTER, CLUSTER, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER'],
      [3 * CLUSTER, 2 * CLUSTER, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER'],
    ],
  ],
  [
    'L2 entries that are no good',
    {
      clusters: [
        [0, { kind: 'data', bytes: pattern(0, CLUSTER) }],
        [1, { kind: 'raw-entry', entry: 0x1fen }],
        [2, { kind: 'raw-entry', entry: 0x1234_0200n }],
        [3, { kind: 'data', bytes: pattern(3, CLUSTER) }],
        [6, { kind: 'raw-entry', entry: 0x2000_0000_0000_0000n }],
      ],
    },
    [
      [CLUSTER, 2 * CLUSTER, 'ERR_QCOW2_BAD_L2_ENTRY'],
      [6 * CLUSTER, CLUSTER, 'ERR_QCOW2_BAD_L2_ENTRY'],
    ],
  ],
  [
    'subclusters that are both allocated and zero',
    {
      clusterBits: 14,
      extendedL2: true,
      clusters: [
        [0, { kind: 'subclusters', allocated: 0xff, zero: 0xf00, bytes: pattern(0, 4 * CLUSTER) }],
        [1, { kind: 'subclusters', allocated: 0xff, zero: 0xff, bytes: pattern(1, 4 * CLUSTER) }],
        [2, { kind: 'data', bytes: pattern(2, 4 * CLUSTER) }],
      ],
    },
    [[4 * CLUSTER, 4 * CLUSTER, 'ERR_QCOW2_BAD_L2_ENTRY']],
  ],
  [
    'clusters past the end of the file, beside each other and alone',
    {
      clusters: [
        [0, { kind: 'data', bytes: pattern(0, CLUSTER) }],
        [2, { kind: 'raw-entry', entry: 0x7000_0000n }],
        [3, { kind: 'raw-entry', entry: 0x7000_1000n }],
        [4, { kind: 'raw-entry', entry: 0x4000_0000_7000_0000n }],
        [5, { kind: 'compressed', bytes: text(5, CLUSTER) }],
      ],
    },
    [[2 * CLUSTER, 3 * CLUSTER, 'ERR_QCOW2_TRUNCATED']],
  ],
  [
    'an L1 entry that is no good',
    {
      clusters: [
        [0, { kind: 'data', bytes: pattern(0, CLUSTER) }],
        [512, { kind: 'data', bytes: pattern(1, CLUSTER) }],
        [1024, { kind: 'data', bytes: pattern(2, CLUSTER) }],
      ],
      patch: (bytes, layout) => bytes.writeBigUInt64BE(0x1ffn, layout.l1EntryOffset(1)),
    },
    [[REACH, REACH, 'ERR_QCOW2_BAD_L1_ENTRY']],
  ],
  [
    'an L2 table past the end of the file',
    {
      clusters: [
        [0, { kind: 'data', bytes: pattern(0, CLUSTER) }],
        [512, { kind: 'data', bytes: pattern(1, CLUSTER) }],
      ],
      patch: (bytes, layout) => bytes.writeBigUInt64BE(0x7000_0000n, layout.l1EntryOffset(0)),
    },
    [[0, REACH, 'ERR_QCOW2_TRUNCATED']],
  ],
  [
    'an L1 table past the end of the file',
    { virtualSize: 3 * REACH - 512, header: { l1TableOffset: 0x7000_0000 } },
    [[0, 3 * REACH - 512, 'ERR_QCOW2_TRUNCATED']],
  ],
] as readonly (readonly [string, ImageSpec, readonly Loss[]])[]) {
  t.test(`leaves zeros for ${what}`, async (t) => {
    const { bytes, guest } = built(spec)
    await expectLosses(t, () => bytes, guest, losses)
    await expectLosses(t, () => bytes, guest, losses, { threads: 0 })
  })
}

t.test('leaves zeros where the data of a file that was cut is missing', async (t) => {
  const { bytes, guest, layout } = built({
    clusters: [0, 1, 2, 3].map((index) => [index, { kind: 'data', bytes: pattern(index, CLUSTER) }]),
  })
  // The second cluster is cut short, which is no damage, and the others are gone.
  const cut = bytes.subarray(0, layout.clusterOffsets.get(1)! + 512)
  const disk = Buffer.from(guest).fill(0, CLUSTER + 512, 2 * CLUSTER)
  await expectLosses(t, () => cut, disk, [[2 * CLUSTER, 2 * CLUSTER, 'ERR_QCOW2_TRUNCATED']])
})

t.test('leaves zeros for what the source fails to read, and reads what lies beside it', async (t) => {
  const { bytes, guest, layout } = built({
    clusters: [
      ...[0, 1, 2, 3].map((index) => [index, { kind: 'data', bytes: pattern(index, CLUSTER) }] as const),
      [5, { kind: 'compressed', bytes: text(5, CLUSTER) }],
      [6, { kind: 'compressed', bytes: text(6, CLUSTER), leadBytes: 4096 }],
    ],
  })
  const bad = [layout.clusterOffsets.get(1)! + 10, layout.clusterOffsets.get(6)! + 1]
  const input = (): RecordingSource =>
    new RecordingSource(bytes, {
      beforeRead: (n, offset, length) => {
        // The first read is for the header.
        if (n > 1 && bad.some((at) => at >= offset && at < offset + length)) throw new Error('bad sector')
      },
    })
  const found: Qcow2Damage[] = []
  const image = await opened(t, input(), { salvage: (damage) => found.push(damage) })
  const losses: Loss[] = [
    [CLUSTER, CLUSTER, 'ERR_QCOW2_READ_FAILED'],
    [6 * CLUSTER, CLUSTER, 'ERR_QCOW2_READ_FAILED'],
  ]
  t.ok((await readBytes(image)).equals(without(guest, losses)))
  t.same(found.map(lossOf), losses)
  for (const { error } of found) {
    t.ok(error instanceof Qcow2SourceError)
    t.match((error.cause as Error).message, 'bad sector')
  }
  found.length = 0
  t.ok((await readBytes(image, 6 * CLUSTER + 7, 100)).equals(Buffer.alloc(100)))
  t.same(found.map(lossOf), [[6 * CLUSTER + 7, 100, 'ERR_QCOW2_READ_FAILED']])
})

t.test('asks a failing disk once for a table, and as seldom as it can for data', async (t) => {
  const virtualSize = 2 ** 40
  const table = buildImage({ virtualSize, clusters: [[0, { kind: 'data', bytes: pattern(0, 65536) }]] })
  const l1 = new RecordingSource(table.bytes, {
    beforeRead: (n) => {
      if (n > 1) throw new Error('bad sector')
    },
  })
  const found: Qcow2Damage[] = []
  const salvage: SalvageFunction = (damage) => found.push(damage)
  const image = await opened(t, l1, { salvage })
  for await (const extent of image.extents()) t.equal(extent.kind, 'zero')
  t.equal(l1.reads.length, 2, 'the header, and the table')
  t.equal(
    found.reduce((sum, { length }) => sum + length, 0),
    virtualSize,
  )

  const bytes = pattern(1, 2 ** 20)
  const disk = buildImage({
    clusters: Array.from({ length: 16 }, (_, i) => [
      i,
      { kind: 'data', bytes: bytes.subarray(i * 65536, (i + 1) * 65536) },
    ]),
  })
  const bad = disk.layout.clusterOffsets.get(7)! + 5000
  const source = new RecordingSource(disk.bytes, {
    beforeRead: (n, offset, length) => {
      if (n > 1 && bad >= offset && bad < offset + length) throw new Error('bad sector')
    },
  })
  found.length = 0
  const second = await opened(t, source, { salvage })
  const expected = Buffer.from(disk.guest)
  const lost = 7 * 65536 + 4096
  expected.fill(0, lost, lost + 4096)
  t.ok((await readBytes(second)).equals(expected))
  t.same(found.map(lossOf), [[lost, 4096, 'ERR_QCOW2_READ_FAILED']])
  t.ok(source.reads.length < 24, `${source.reads.length} reads`)
})

for (const [kind, owner] of [
  ['data', 'the stream'],
  ['data', 'somebody else'],
  ['compressed', 'the stream'],
  ['compressed', 'somebody else'],
] as const) {
  t.test(`a stream that is destroyed while ${kind} of an image of ${owner} is salvaged does not try on`, async (t) => {
    const { bytes } = buildImage({
      clusters: Array.from({ length: 32 }, (_, i) => [i, { kind, bytes: text(i, 65536) }]),
    })
    let tries = 0
    const source = new RecordingSource(bytes, {
      beforeRead: async (n) => {
        if (n < 4) return
        await turns()
        if (++tries === 5) stream.destroy()
        throw new Error('bad sector')
      },
    })
    const salvage = (): void => undefined
    const stream =
      owner === 'the stream'
        ? createReadStream(source, { salvage })
        : createReadStream(await opened(t, source, { salvage }))
    await closing(stream.resume())
    t.ok(tries >= 5 && tries < 20, `${tries} tries`)
    t.equal(source.closeCount, owner === 'the stream' ? 1 : 0)
  })
}

t.test('a damaged cluster of an overlay does not show what lies below it', async (t) => {
  const base = Buffer.alloc(3 * CLUSTER, 0xaa)
  const { bytes } = built({
    virtualSize: 3 * CLUSTER,
    clusters: [[1, { kind: 'raw-entry', entry: 0x1fen }]],
    backingFile: { name: 'base', format: 'raw', contents: base },
  })
  await expectLosses(t, () => bytes, base, [[CLUSTER, CLUSTER, 'ERR_QCOW2_BAD_L2_ENTRY']], { backingFile: base })
})

t.test('tells of damage in a backing file', async (t) => {
  const base = built({
    clusters: [
      [0, { kind: 'data', bytes: pattern(0, CLUSTER) }],
      [1, { kind: 'compressed-raw', payload: pattern(1, 900) }],
    ],
  })
  const { bytes } = built({ virtualSize: 2 * CLUSTER, backingFile: { name: 'base', format: 'qcow2' } })
  await expectLosses(t, () => bytes, base.guest, [[CLUSTER, CLUSTER, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER']], {
    backingFile: base.bytes,
  })
})

t.test('lists zeros for damaged entries, and tells of them', async (t) => {
  const { bytes } = built({
    clusters: [
      [0, { kind: 'data', bytes: pattern(0, CLUSTER) }],
      [1, { kind: 'raw-entry', entry: 0x1fen }],
    ],
  })
  const found: Qcow2Damage[] = []
  const image = await opened(t, bytes, { salvage: (damage) => found.push(damage) })
  const kinds: string[] = []
  for await (const { kind, length } of image.extents()) kinds.push(`${kind} ${length}`)
  t.same(kinds, ['data 4096', 'zero 4096'])
  t.same(found.map(lossOf), [[CLUSTER, CLUSTER, 'ERR_QCOW2_BAD_L2_ENTRY']])
})

t.test('what is not damage is no loss', async (t) => {
  const { bytes, guest } = built({ clusters: [[0, { kind: 'data', bytes: pattern(0, CLUSTER) }]] })
  const salvage = (): never => t.fail('nothing is lost') as never
  const image = await opened(t, bytes, { salvage })
  t.ok((await readBytes(image)).equals(guest))
  const header = built({ header: { clusterBits: 30 } }).bytes
  await t.rejects(opened(t, header, { salvage }), { code: 'ERR_QCOW2_BAD_HEADER' }, 'a header is needed')
  await image.close()
  expectError(t, await rejection(t, image.read(Buffer.alloc(1), 0)), Qcow2UsageError, 'ERR_QCOW2_CLOSED')
})

t.test('a bug is no damage', async (t) => {
  const { bytes } = built({ clusters: [[0, { kind: 'compressed', bytes: text(0, CLUSTER) }]] })
  const image = await opened(t, bytes, { salvage: () => t.fail('nothing is lost') })
  const bug = new TypeError('a bug')
  t.intercept(Uint32Array.prototype, 'sort', {
    value: () => {
      throw bug
    },
  })
  t.equal(await rejection(t, image.read(Buffer.alloc(CLUSTER), 0)), bug)
})

t.test('what the function throws ends the read', async (t) => {
  const enough = new Error('enough')
  const salvage = (): void => {
    throw enough
  }
  for (const spec of [
    { kind: 'raw-entry', entry: 0x1fen },
    { kind: 'compressed-raw', payload: pattern(1, 900) },
  ] as const) {
    const { bytes } = built({ clusters: [[0, spec]] })
    const image = await opened(t, bytes, { salvage })
    for (const length of [512, CLUSTER]) {
      t.equal(await rejection(t, image.read(Buffer.alloc(length), 0)), enough)
    }
  }
})

t.test('reading waits for the promise that the function returns', async (t) => {
  const { bytes } = buildImage({ clusters: [[0, { kind: 'raw-entry', entry: 0x1fen }]] })
  const gate = new Gate()
  const image = await opened(t, bytes, { salvage: () => gate.opened })
  const reading = readBytes(image)
  const hasEnded = settling(reading)
  await turns(20)
  t.equal(hasEnded(), false)
  gate.open()
  t.ok((await reading).every((byte) => byte === 0))
})

t.test('what that promise rejects with ends the read', async (t) => {
  const { bytes } = buildImage({ clusters: [[0, { kind: 'raw-entry', entry: 0x1fen }]] })
  const own = new Error('enough')
  const image = await opened(t, bytes, { salvage: () => Promise.reject(own) })
  t.equal(await rejection(t, readBytes(image)), own)
  const [error] = await closing(createReadStream(image).resume())
  t.equal(error, own)
})

t.test('takes nothing but a function', async (t) => {
  const { bytes } = built({})
  const salvage = true as unknown as SalvageFunction
  expectError(t, await rejection(t, opened(t, bytes, { salvage })), Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', {
    field: 'salvage',
    actual: true,
  })
})

t.test('damage names what is wrong', async (t) => {
  const { bytes } = built({ clusters: [[0, { kind: 'raw-entry', entry: 0x1fen }]] })
  const found: Qcow2Damage[] = []
  const image = await opened(t, bytes, { salvage: (damage) => found.push(damage) })
  await readBytes(image)
  expectError(t, found[0]?.error, Qcow2FormatError, 'ERR_QCOW2_BAD_L2_ENTRY', { guestOffset: 0 })
})
