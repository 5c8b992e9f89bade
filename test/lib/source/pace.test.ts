// A recent rate and the time that is left, on a clock that the test turns.
import t from 'tap'
import { Pace } from '../../../lib/source/pace.js'

const MIB = 2 ** 20

/** A pace and its clock, which stands somewhere. */
function clocked(bytesTotal: number | undefined): { pace: Pace; pass: (seconds: number) => void } {
  let now = 1234.5
  const pace = new Pace(bytesTotal, () => now)
  return { pace, pass: (seconds) => (now += seconds) }
}

t.test('knows nothing as long as nothing is done', async (t) => {
  const { pace, pass } = clocked(100 * MIB)
  t.same(pace.at(0), { bytesPerSecond: 0, secondsLeft: undefined })
  pass(60)
  t.same(pace.at(0), { bytesPerSecond: 0, secondsLeft: undefined })
})

t.test('takes what was done in no time for a millisecond of work', async (t) => {
  t.same(clocked(10_000_000).pace.at(5000), { bytesPerSecond: 5_000_000, secondsLeft: 2 })
})

t.test('divides what was done by the time that it took, and what is left by that', async (t) => {
  const { pace, pass } = clocked(100 * MIB)
  pass(2)
  t.same(pace.at(20 * MIB), { bytesPerSecond: 10 * MIB, secondsLeft: 8 })
  pass(1)
  t.same(pace.at(20 * MIB + 1), { bytesPerSecond: Math.round((20 * MIB + 1) / 3), secondsLeft: 12 }, 'whole numbers')
})

t.test('says 0 at the end, and there only', async (t) => {
  const { pace, pass } = clocked(10 * MIB)
  pass(1)
  t.equal(pace.at(10 * MIB - 1).secondsLeft, 1)
  t.equal(pace.at(10 * MIB).secondsLeft, 0)
  t.same(clocked(0).pace.at(0), { bytesPerSecond: 0, secondsLeft: 0 })
})

t.test('tells a rate, but no end, where the total is unknown', async (t) => {
  const { pace, pass } = clocked(undefined)
  t.same(pace.at(0), { bytesPerSecond: 0, secondsLeft: undefined })
  pass(1)
  t.same(pace.at(5 * MIB), { bytesPerSecond: 5 * MIB, secondsLeft: undefined })
})

t.test('forgets how it was five seconds ago', async (t) => {
  const { pace, pass } = clocked(10_000 * MIB)
  let done = 0
  for (let i = 0; i < 100; i++) {
    pass(0.1)
    pace.at((done += 100 * MIB))
  }
  t.equal(pace.at(done).bytesPerSecond, 1000 * MIB)
  const rates: number[] = []
  for (let i = 0; i < 60; i++) {
    pass(0.1)
    rates.push(pace.at((done += MIB)).bytesPerSecond)
  }
  t.ok(rates.every((rate, i) => i === 0 || rate <= rates[i - 1]!))
  t.ok(rates[24]! > 400 * MIB && rates[24]! < 600 * MIB, 'halfway after half of the time')
  t.equal(rates.at(-1), 10 * MIB)
})

t.test('tells a standstill by its length, however long it was', async (t) => {
  const { pace, pass } = clocked(1000 * MIB)
  pass(1)
  pace.at(100 * MIB)
  pass(99)
  t.equal(pace.at(199 * MIB).bytesPerSecond, MIB)
})

t.test('counts from the real clock, if none is given', async (t) => {
  const { bytesPerSecond, secondsLeft } = new Pace(2 * MIB).at(MIB)
  t.ok(bytesPerSecond > 0 && bytesPerSecond <= 1000 * MIB, String(bytesPerSecond))
  t.ok(secondsLeft! > 0)
})
