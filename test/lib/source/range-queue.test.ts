/**
 * Reads that become requests: which are put together, how long these get, in which order they go, and who gets which bytes.
 */
import t, { type Test } from 'tap'
import { RangeQueue } from '../../../lib/source/range-queue.js'
import { rejection } from '../../fixtures/expect-error.js'
import { pattern } from '../../fixtures/patterns.js'
import { Gate, settling, turns, until } from '../../fixtures/turns.js'

const GAP = 65536
const MOST_BYTES = 2 ** 20
const CONTENT = pattern(1, 12 * MOST_BYTES)

/** A request that waits for the test to answer it. */
interface Asked {
  readonly range: readonly [start: number, end: number]
  /** Hands on all bytes, in pieces of this length, and ends. */
  readonly answer: (pieceBytes?: number) => void
  /** Hands on bytes up to there. */
  readonly give: (end: number) => void
  readonly fail: (error: unknown) => void
}

class FakeServer {
  readonly asked: Asked[] = []
  readonly queue: RangeQueue
  underWay = 0
  mostUnderWay = 0
  /** Whether requests are answered without a word of the test. */
  isPrompt = false

  constructor(most = 6) {
    this.queue = new RangeQueue((start, end, write) => this.#fetch(start, end, write), most)
  }

  get ranges(): (readonly [number, number])[] {
    return this.asked.map(({ range }) => range)
  }

  async #fetch(start: number, end: number, write: (bytes: Uint8Array, offset: number) => void): Promise<void> {
    this.underWay += 1
    this.mostUnderWay = Math.max(this.mostUnderWay, this.underWay)
    const gate = new Gate()
    let at = start
    const give = (to: number): void => {
      write(CONTENT.subarray(at, to), at)
      at = to
    }
    const answer = (pieceBytes = 10_000): void => {
      for (let to = start; to < end;) {
        to = Math.min(end, to + pieceBytes)
        give(to)
      }
      gate.open()
    }
    this.asked.push({ range: [start, end], answer, give, fail: gate.fail })
    if (this.isPrompt) answer()
    try {
      await gate.opened
    } finally {
      this.underWay -= 1
    }
  }

  /** Reads, and asserts that the bytes are right. */
  async reads(t: Test, offset: number, length: number): Promise<void> {
    // What lies around the target is nobody's business.
    const memory = Buffer.alloc(length + 20, 0xee)
    await this.queue.read(memory.subarray(10, length + 10), offset)
    t.ok(memory.subarray(10, length + 10).equals(CONTENT.subarray(offset, offset + length)), `${length} at ${offset}`)
    t.ok([...memory.subarray(0, 10), ...memory.subarray(-10)].every((byte) => byte === 0xee))
  }
}

/** The requests that reads of these ranges lead to. */
async function requestsFor(t: Test, reads: readonly (readonly [start: number, end: number])[]): Promise<unknown> {
  const server = new FakeServer(64)
  server.isPrompt = true
  await Promise.all(reads.map(([start, end]) => server.reads(t, start, end - start)))
  return server.ranges
}

t.test('neighbours', async (t) => {
  t.test('become one request, in whatever order they come', async (t) => {
    const reads = [
      [0, 100],
      [100, 300],
      [300, 1000],
    ] as const
    for (const [a, b, c] of [
      [0, 1, 2],
      [2, 1, 0],
      [1, 0, 2],
      [1, 2, 0],
    ] as const) {
      t.same(await requestsFor(t, [reads[a], reads[b], reads[c]]), [[0, 1000]])
    }
  })

  t.test('may have a gap of 64 KiB between them, in both directions', async (t) => {
    const far = 10 + GAP
    t.same(
      await requestsFor(t, [
        [0, 10],
        [far, far + 10],
      ]),
      [[0, far + 10]],
    )
    t.same(
      await requestsFor(t, [
        [far, far + 10],
        [0, 10],
      ]),
      [[0, far + 10]],
    )
    t.same(
      await requestsFor(t, [
        [0, 10],
        [far + 1, far + 10],
      ]),
      [
        [0, 10],
        [far + 1, far + 10],
      ],
    )
    t.same(
      await requestsFor(t, [
        [far + 1, far + 10],
        [0, 10],
      ]),
      [
        [far + 1, far + 10],
        [0, 10],
      ],
    )
  })

  t.test('may overlap, lie within each other, or be the same', async (t) => {
    t.same(
      await requestsFor(t, [
        [500, 700],
        [0, 1000],
        [0, 10],
        [900, 1100],
        [500, 700],
        [0, 1],
      ]),
      [[0, 1100]],
    )
    // The long one ends behind all that begins later.
    t.same(
      await requestsFor(t, [
        [100, 200_000],
        [0, 50],
        [300, 400],
        [200_000 + GAP, 200_001 + GAP],
      ]),
      [[0, 200_001 + GAP]],
    )
    t.same(
      await requestsFor(t, [
        [300, 400],
        [0, 200_000],
        [100_000, 100_001],
      ]),
      [[0, 200_000]],
    )
  })

  t.test('of those that are under way become requests of their own', async (t) => {
    const server = new FakeServer()
    const first = server.reads(t, 0, 100)
    await until(() => server.asked.length === 1)
    const second = server.reads(t, 100, 100)
    const same = server.reads(t, 0, 100)
    await until(() => server.asked.length === 2)
    t.same(server.ranges, [
      [0, 100],
      [0, 200],
    ])
    for (const { answer } of server.asked) answer()
    await Promise.all([first, second, same])
  })
})

t.test('a request', async (t) => {
  t.test('has at most 1 MiB', async (t) => {
    const pieces = Array.from({ length: 40 }, (_, i) => [i * 60_000, (i + 1) * 60_000] as const)
    const ranges = (await requestsFor(t, pieces)) as [number, number][]
    t.same(ranges, [
      [0, 17 * 60_000],
      [17 * 60_000, 34 * 60_000],
      [34 * 60_000, 40 * 60_000],
    ])
    t.same(
      await requestsFor(t, [
        [0, MOST_BYTES - 1],
        [MOST_BYTES - 1, MOST_BYTES],
      ]),
      [[0, MOST_BYTES]],
    )
    t.same(
      await requestsFor(t, [
        [1, MOST_BYTES],
        [MOST_BYTES, MOST_BYTES + 2],
        [0, 1],
      ]),
      [
        [0, MOST_BYTES],
        [MOST_BYTES, MOST_BYTES + 2],
      ],
    )
  })

  t.test('is one of several where more is read at once', async (t) => {
    t.same(await requestsFor(t, [[5, 5 + 3 * MOST_BYTES + 7]]), [
      [5, 5 + MOST_BYTES],
      [5 + MOST_BYTES, 5 + 2 * MOST_BYTES],
      [5 + 2 * MOST_BYTES, 5 + 3 * MOST_BYTES],
      [5 + 3 * MOST_BYTES, 12 + 3 * MOST_BYTES],
    ])
    t.same(await requestsFor(t, [[0, MOST_BYTES]]), [[0, MOST_BYTES]])
    t.same(await requestsFor(t, [[3, 3]]), [], 'and none, where nothing is')
  })

  t.test('may arrive in pieces of any length', async (t) => {
    for (const pieceBytes of [1, 7, 999, MOST_BYTES]) {
      const server = new FakeServer()
      const reading = [
        [50, 100],
        [10, 30],
        [60, 70],
        [2000, 1],
        [149, 1],
      ].map(([offset, length]) => server.reads(t, offset!, length!))
      await until(() => server.asked.length === 1)
      t.same(server.ranges, [[10, 2001]])
      server.asked[0]!.answer(pieceBytes)
      await Promise.all(reading)
    }
  })

  t.test('that fails, fails for those who are in it, and no others', async (t) => {
    const server = new FakeServer()
    const lost = new Error('lost')
    const failing = [server.reads(t, 0, 10), server.reads(t, 20, 10)].map((reading) => rejection(t, reading))
    const others = [server.reads(t, 200_000, 10), server.reads(t, 400_000, 10)]
    await until(() => server.asked.length === 3)
    server.asked[0]!.fail(lost)
    for (const failure of failing) t.equal(await failure, lost)
    server.asked[1]!.answer()
    server.asked[2]!.answer()
    await Promise.all(others)
    // And for those who come later neither.
    const later = server.reads(t, 0, 10)
    await until(() => server.asked.length === 4)
    server.asked[3]!.answer()
    await later
  })

  t.test('that fails does not settle a read of which others are under way', async (t) => {
    const server = new FakeServer()
    const lost = new Error('lost')
    const reading = rejection(t, server.reads(t, 0, 3 * MOST_BYTES))
    const hasSettled = settling(reading)
    await until(() => server.asked.length === 3)
    server.asked[1]!.fail(lost)
    server.asked[0]!.answer()
    await turns(20)
    t.equal(hasSettled(), false, 'its memory is still written to')
    server.asked[2]!.answer()
    t.equal(await reading, lost)
  })
})

t.test('requests', async (t) => {
  t.test('are as many at once as is allowed, and the next one begins when one has ended', async (t) => {
    for (const most of [1, 2, 5]) {
      const server = new FakeServer(most)
      const reading = Array.from({ length: 12 }, (_, i) => server.reads(t, i * 200_000, 10))
      for (let ended = 0; ended < 12; ended++) {
        const started = Math.min(12, most + ended)
        await until(() => server.asked.length === started)
        await turns(5)
        t.equal(server.asked.length, started)
        // Now and then one fails.
        server.asked[ended]!.answer()
      }
      await Promise.all(reading)
      t.equal(server.mostUnderWay, most)
      t.equal(server.underWay, 0)
    }
  })

  t.test('go on after failures', async (t) => {
    const server = new FakeServer(1)
    const reading = Array.from({ length: 3 }, (_, i) => server.reads(t, i * 200_000, 10))
    const failures = reading.slice(0, 2).map((one) => rejection(t, one))
    for (let i = 0; i < 2; i++) {
      await until(() => server.asked.length === i + 1)
      server.asked[i]!.fail(new Error(`lost ${i}`))
    }
    await until(() => server.asked.length === 3)
    server.asked[2]!.answer()
    await reading[2]
    t.match(await Promise.all(failures), [{ message: 'lost 0' }, { message: 'lost 1' }])
  })

  t.test('serve who came first, and take along who is near', async (t) => {
    const server = new FakeServer(1)
    const reading = [900_000, 100_000, 500_000].map((offset) => server.reads(t, offset, 10))
    await until(() => server.asked.length === 1)
    // While that one is under way, others come: near to those that wait, and far from all.
    reading.push(...[0, 500_020, 100_020, 480_000].map((offset) => server.reads(t, offset, 10)))
    for (let i = 0; i < 4; i++) {
      await until(() => server.asked.length === i + 1)
      await turns(2)
      server.asked[i]!.answer()
    }
    await Promise.all(reading)
    t.same(server.ranges, [
      [900_000, 900_010],
      [100_000, 100_030],
      [480_000, 500_030],
      [0, 10],
    ])
  })
})

t.test('any reads get their bytes', async (t) => {
  let state = 7
  const random = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
    return state % below
  }
  for (let round = 0; round < 30; round++) {
    const server = new FakeServer(1 + random(8))
    server.isPrompt = round % 2 === 0
    const reading: Promise<void>[] = []
    for (let i = 0; i < 40; i++) {
      const length = random(3) === 0 ? random(3 * MOST_BYTES) : random(2000)
      reading.push(server.reads(t, random(CONTENT.length - length), length))
      if (random(4) === 0) await turns(1)
    }
    const all = Promise.all(reading)
    const hasSettled = settling(all)
    for (let answered = 0; !hasSettled();) {
      for (; answered < server.asked.length && !server.isPrompt; answered++) {
        server.asked[answered]!.answer(1 + random(99_999))
      }
      await turns(1)
    }
    await all
    for (const [start, end] of server.ranges) {
      if (end - start > MOST_BYTES) t.fail(`a request of ${end - start} bytes`)
    }
  }
})
