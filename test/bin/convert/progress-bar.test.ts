/**
 * The bar on a terminal that only looks like one: what the line says, how wide it is, and where it leaves the cursor.
 */
import t, { type Test } from 'tap'
import { bytes, createBar, duration, type Bar } from '../../../bin/convert/progress-bar.js'
import type { Step } from '../../../bin/convert/report.js'
import { FakeTerminal } from '../../fixtures/fake-terminal.js'

const KIB = 2 ** 10
const MIB = 2 ** 20
const GIB = 2 ** 30

interface Drawing {
  readonly bar: Bar
  readonly terminal: FakeTerminal
  /** Lets time go by, for the rate and for how often the bar is drawn. */
  readonly pass: (milliseconds: number) => void
}

function drawing(t: Test, columns?: number, term = 'xterm'): Drawing {
  const before = process.env['TERM']
  process.env['TERM'] = term
  t.teardown(() => {
    if (before === undefined) delete process.env['TERM']
    else process.env['TERM'] = before
  })
  let now = 1e12
  t.intercept(Date, 'now', { value: () => now })
  const terminal = new FakeTerminal(columns)
  const bar = createBar(terminal, () => now)!
  return { bar, terminal, pass: (milliseconds) => (now += milliseconds) }
}

const step = (phase: Step['phase'], bytesDone: number, bytesTotal: number | undefined, ...pace: number[]): Step => ({
  phase,
  bytesDone,
  bytesTotal,
  bytesPerSecond: pace[0] ?? 0,
  secondsLeft: pace[1],
})
const converting = step.bind(undefined, 'converting')
const verifying = step.bind(undefined, 'verifying')
const spooling = step.bind(undefined, 'spooling')

t.test('shows percent, bytes, rate and time left', async (t) => {
  const { bar, terminal, pass } = drawing(t, 120)
  bar.update(converting(256 * MIB, GIB, 128 * MIB, 6))
  t.match(terminal.line, /^ *25% \[=+-+\] 256 MiB of 1\.0 GiB, 128 MiB\/s, 6s left$/)
  pass(3000)
  bar.update(converting(640 * MIB, GIB, 100 * MIB, 4))
  t.match(terminal.line, /^ *62% \[=+-+\] 640 MiB of 1\.0 GiB, 100 MiB\/s, 4s left$/)
  t.equal(terminal.lines.length, 1, 'on the same line')
  const [, done, open] = /\[(=+)(-+)\]/.exec(terminal.line)!
  t.equal(done!.length, Math.round((done!.length + open!.length) * 0.625), 'as long as it should be')
})

t.test('makes room for lines above it', async (t) => {
  const { bar, terminal, pass } = drawing(t, 100)
  bar.clear()
  t.same(terminal.lines, [''], 'before it is drawn')
  bar.update(converting(MIB, GIB))
  bar.clear()
  bar.clear()
  terminal.write('a line\n')
  pass(1000)
  bar.update(converting(MIB, GIB))
  t.equal(terminal.lines[0], 'a line')
  t.match(terminal.line, /1\.0 MiB of 1\.0 GiB/, 'drawn again, even if it says the same')
  pass(1000)
  bar.update(converting(GIB, GIB))
  bar.clear()
  t.match(terminal.lines[1], /100%/, 'what is complete stays')
})

t.test('writes lines above itself and stands below them as it was', async (t) => {
  const { bar, terminal, pass } = drawing(t, 100)
  bar.above('zero\n')
  t.same(terminal.lines, ['zero', ''], 'before it is drawn')
  bar.update(spooling(MIB, undefined))
  bar.above('one\n')
  t.same(terminal.lines, ['zero', 'one', '1.0 MiB read'])
  bar.update(converting(MIB, GIB, MIB, 1023))
  // Too early to be drawn, which is made up for.
  bar.update(converting(2 * MIB, GIB, MIB, 1022))
  bar.above('two\n')
  t.same(terminal.lines.slice(0, -1), ['zero', 'one', 'two'])
  t.match(terminal.line, /^0% \[-+\] 2\.0 MiB of 1\.0 GiB, 1\.0 MiB\/s, 17m02s left$/)
  bar.clear()
  bar.above('three\n')
  t.same(terminal.lines.slice(2), ['two', 'three', ''], 'where it was cleared away it stays away')
  pass(1000)
  bar.update(converting(GIB, GIB))
  bar.above('four\n')
  t.match(terminal.lines[4], /^100% /, 'what is complete stays')
  t.same(terminal.lines.slice(5), ['four', ''])
})

t.test('ends its line when all is done, and only once', async (t) => {
  const { bar, terminal } = drawing(t, 100)
  bar.update(converting(MIB, MIB, MIB, 0))
  t.match(terminal.lines[0], /^ *100% \[=+\] 1\.0 MiB of 1\.0 MiB, 1\.0 MiB\/s, 0s left$/)
  t.same(terminal.lines.slice(1), [''])
  bar.update(converting(MIB, MIB, MIB, 0))
  bar.end()
  bar.end()
  t.same(terminal.lines.slice(1), [''])
})

t.test('counts what is copied first, in a line that gives way to the bar', async (t) => {
  const { bar, terminal, pass } = drawing(t, 100)
  bar.update(spooling(0, undefined))
  t.equal(terminal.line, '0 B read')
  bar.update(spooling(3 * MIB, undefined))
  t.equal(terminal.line, '0 B read', 'drawn ten times a second at most')
  pass(100)
  bar.update(spooling(512 * MIB, undefined))
  t.equal(terminal.line, '512 MiB read')
  bar.clear()
  t.equal(terminal.line, '', 'other lines have room')
  terminal.write('Passphrase: \n')
  pass(100)
  bar.update(spooling(513 * MIB, undefined))
  t.equal(terminal.line, '513 MiB read')
  bar.update(converting(2 * MIB, 4 * MIB, 2 * MIB, 1))
  t.match(terminal.line, /^ *50% \[=+-+\] 2\.0 MiB of 4\.0 MiB, 2\.0 MiB\/s, 1s left$/)
  t.equal(terminal.lines.length, 2)
})

t.test('draws a bar for a copy of which the length is known, and another one for the disk', async (t) => {
  const { bar, terminal, pass } = drawing(t, 100)
  bar.update(spooling(0, 8 * MIB))
  pass(1000)
  bar.update(spooling(4 * MIB, 8 * MIB, 4 * MIB, 1))
  t.match(terminal.line, /^ *50% \[=+-+\] 4\.0 MiB of 8\.0 MiB, 4\.0 MiB\/s, 1s left$/)
  bar.update(spooling(8 * MIB, 8 * MIB, 4 * MIB, 0))
  bar.update(converting(MIB, 4 * MIB, MIB, 3))
  t.match(terminal.lines[0], /^ *100% \[=+\] 8\.0 MiB of 8\.0 MiB/)
  t.match(terminal.lines[1], /^ *25% \[=+-+\] 1\.0 MiB of 4\.0 MiB, 1\.0 MiB\/s, 3s left$/)
})

t.test('draws each copy anew, whatever became of the one before', async (t) => {
  const { bar, terminal } = drawing(t, 100)
  bar.update(spooling(0, 8 * MIB))
  bar.update(spooling(8 * MIB, 8 * MIB))
  t.match(terminal.lines[0], /^ *100% \[=+\] 8\.0 MiB of 8\.0 MiB/)
  bar.update(spooling(0, 2 * MIB))
  t.match(terminal.line, /^ *0% \[-+\] 0 B of 2\.0 MiB/, 'of another length')
  bar.update(spooling(0, undefined))
  t.equal(terminal.line, '0 B read', 'of none, after one that broke off')
  bar.update(spooling(0, undefined))
  bar.update(spooling(0, 4 * MIB))
  t.match(terminal.line, /^ *0% \[-+\] 0 B of 4\.0 MiB/, 'after a count')
  t.equal(terminal.lines.length, 2)
})

t.test('takes the count away when the copy is cut short', async (t) => {
  const { bar, terminal } = drawing(t, 100)
  bar.update(spooling(MIB, undefined))
  bar.end()
  t.equal(terminal.line, '')
  bar.end()
  t.equal(terminal.lines.length, 1)
})

t.test('says so while the output is verified, where there is room for it', async (t) => {
  const { bar, terminal } = drawing(t, 120)
  bar.update(converting(GIB, GIB, 256 * MIB, 0))
  bar.update(verifying(256 * MIB, GIB, 128 * MIB, 6))
  t.equal(terminal.lines.length, 2)
  t.match(terminal.lines[0], /^ *100% \[=+\] 1\.0 GiB of 1\.0 GiB, 256 MiB\/s, 0s left$/)
  t.match(terminal.line, /^verifying 25% \[=+-+\] 256 MiB of 1\.0 GiB, 128 MiB\/s, 6s left$/)
  for (const [columns, line] of [
    [71, /^verifying 100% 1\.0 GiB$/],
    [30, /^verifying 100% 1\.0 GiB$/],
    [29, /^100% 1\.0 GiB$/],
  ] as const) {
    const narrow = drawing(t, columns)
    narrow.bar.update(verifying(GIB, GIB))
    t.match(narrow.terminal.lines[0], line)
  }
})

t.test('ends its line when it is cut short', async (t) => {
  const { bar, terminal } = drawing(t, 100)
  bar.update(converting(MIB, GIB))
  bar.end()
  t.equal(terminal.lines.length, 2)
  t.equal(terminal.line, '')
})

t.test('draws nothing if there was nothing to show', async (t) => {
  const { bar, terminal } = drawing(t, 100)
  bar.end()
  bar.update(converting(0, 0))
  bar.end()
  t.same(terminal.lines, [''])
  t.equal(terminal.redrawCount, 0)
})

t.test('ends no line that was cleared away', async (t) => {
  const { bar, terminal } = drawing(t, 100)
  bar.update(converting(MIB, GIB))
  bar.clear()
  bar.end()
  t.same(terminal.lines, [''])
})

t.test('is not there on a dumb terminal, nor on one without room', async (t) => {
  for (const [columns, term] of [
    [100, 'dumb'],
    [0, 'xterm'],
    [5, 'xterm'],
    [undefined, 'xterm'],
  ] as const) {
    t.equal(drawing(t, columns, term).bar, undefined)
  }
})

t.test('draws at once, at most ten times a second, and always the end', async (t) => {
  const { bar, terminal, pass } = drawing(t, 100)
  for (let done = 1; done <= 100; done++) {
    bar.update(converting(done, 1000))
    pass(10)
  }
  t.match(terminal.line, /^ *9% /)
  t.equal(terminal.redrawCount, 10)
  bar.update(converting(1000, 1000))
  t.match(terminal.lines[0], /^ *100% /)
})

t.test('never wraps, whatever the width and the numbers', async (t) => {
  const numbers = [1, 999, 1023, 1023 * KIB, 999.96 * MIB, 1023.9 * MIB, 1023.99 * GIB, 2 ** 53 - 1].map(Math.floor)
  const { bar: first } = drawing(t, 80)
  first.end()
  const wrapped: string[] = []
  let drawn = 0
  for (let columns = 1; columns <= 150; columns++) {
    for (const bytesTotal of numbers) {
      for (const [bytesDone, bytesPerSecond, secondsLeft] of [
        [0, 0],
        [1, 1, bytesTotal],
        [1, 2 ** 53, 1],
        [Math.ceil(bytesTotal / 3), 1023.9 * KIB, 2 ** 43],
        [Math.max(1, bytesTotal - 1), 999.96 * GIB, 3599],
        [bytesTotal, 1, 0],
      ] as const) {
        for (const phase of ['spooling', 'converting', 'verifying'] as const) {
          const terminal = new FakeTerminal(columns)
          const bar = createBar(terminal, () => 0)
          bar?.update({ phase, bytesDone, bytesTotal, bytesPerSecond, secondsLeft })
          bar?.end()
          if (terminal.lines.length > 2) wrapped.push(`${columns} columns: ${terminal.lines.join('|')}`)
          if (terminal.lines.length === 2) drawn++
        }
      }
    }
  }
  t.same(wrapped, [])
  t.ok(drawn > 1000, `${drawn} lines`)
})

t.test('does without the bar where there is no room for it', async (t) => {
  const { bar, terminal } = drawing(t, 40)
  bar.update(converting(3 * MIB, 4 * MIB))
  t.match(terminal.line, /^ *75% 3\.0 MiB$/)
})

t.test('takes numbers that make no sense', async (t) => {
  const { bar, terminal } = drawing(t, 100)
  bar.update(converting(0, 10))
  t.match(terminal.line, /^ *0% \[-+\] 0 B of 10 B, 0 B\/s, \? left$/)
  bar.update(converting(20, 10))
  t.match(terminal.lines[0], /^ *100% /)
  t.same(terminal.lines.slice(1), [''])
})

t.test('writes bytes with three digits or four, and a unit', async (t) => {
  for (const [count, shown] of [
    [0, '0 B'],
    [0.4, '0 B'],
    [1, '1 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [1536, '1.5 KiB'],
    [99.94 * KIB, '99.9 KiB'],
    [100 * KIB, '100 KiB'],
    [1023 * KIB, '1023 KiB'],
    [MIB, '1.0 MiB'],
    [2.25 * GIB, '2.3 GiB'],
    [1024 * GIB, '1.0 TiB'],
    [64 * 2 ** 40, '64.0 TiB'],
    [2 ** 50, '1.0 PiB'],
    [2 ** 60, '1024 PiB'],
  ] as const) {
    t.equal(bytes(count), shown, String(count))
  }
})

t.test('writes time in two units at most', async (t) => {
  for (const [seconds, shown] of [
    [0, '0s'],
    [1, '1s'],
    [59, '59s'],
    [60, '1m00s'],
    [185, '3m05s'],
    [3599, '59m59s'],
    [3600, '1h00m'],
    [7659, '2h07m'],
    [1e6, '277h46m'],
    [undefined, '?'],
  ] as const) {
    t.equal(duration(seconds), shown, String(seconds))
  }
})
