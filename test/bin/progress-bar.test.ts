/**
 * The bar on a terminal that only looks like one: what the line says, how wide it is, and where it leaves the cursor.
 */
import t, { type Test } from 'tap'
import { bytes, createBar, duration, type Bar } from '../../bin/progress-bar.js'
import { FakeTerminal } from '../fixtures/fake-terminal.js'

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
  const bar = createBar(terminal, () => now)
  return { bar, terminal, pass: (milliseconds) => (now += milliseconds) }
}

t.test('shows percent, bytes, rate and time left', async (t) => {
  const { bar, terminal, pass } = drawing(t, 120)
  pass(2000)
  bar.update({ phase: 'converting', bytesDone: 256 * MIB, bytesTotal: GIB })
  t.match(terminal.line, /^ *25% \[=+-+\] 256 MiB of 1\.0 GiB, 128 MiB\/s, 6s left$/)
  pass(3000)
  bar.update({ phase: 'converting', bytesDone: 640 * MIB, bytesTotal: GIB })
  t.match(terminal.line, /^ *62% \[=+-+\] 640 MiB of 1\.0 GiB, 128 MiB\/s, 3s left$/)
  t.equal(terminal.lines.length, 1, 'on the same line')
  const [, done, open] = /\[(=+)(-+)\]/.exec(terminal.line)!
  t.equal(done!.length, Math.round((done!.length + open!.length) * 0.625), 'as long as it should be')
})

t.test('makes room for lines above it', async (t) => {
  const { bar, terminal, pass } = drawing(t, 100)
  bar.clear()
  t.same(terminal.lines, [''], 'before it is drawn')
  pass(1000)
  bar.update({ phase: 'converting', bytesDone: MIB, bytesTotal: GIB })
  bar.clear()
  terminal.write('a line\n')
  pass(1000)
  bar.update({ phase: 'converting', bytesDone: 2 * MIB, bytesTotal: GIB })
  t.equal(terminal.lines[0], 'a line')
  t.match(terminal.line, /2\.0 MiB of 1\.0 GiB/)
  bar.update({ phase: 'converting', bytesDone: GIB, bytesTotal: GIB })
  bar.clear()
  t.match(terminal.lines[1], /100%/, 'what is complete stays')
})

t.test('leaves the time out that passed before it was restarted', async (t) => {
  const { bar, terminal, pass } = drawing(t, 120)
  pass(60_000)
  bar.restart()
  t.same(terminal.lines, [''], 'draws nothing')
  pass(2000)
  bar.update({ phase: 'converting', bytesDone: 256 * MIB, bytesTotal: GIB })
  t.match(terminal.line, /128 MiB\/s, 6s left$/)
})

t.test('ends its line when all is done, and only once', async (t) => {
  const { bar, terminal, pass } = drawing(t, 100)
  pass(1000)
  bar.update({ phase: 'converting', bytesDone: MIB, bytesTotal: MIB })
  t.match(terminal.lines[0], /^ *100% \[=+\] 1\.0 MiB of 1\.0 MiB, 1\.0 MiB\/s, 0s left$/)
  t.same(terminal.lines.slice(1), [''])
  bar.end()
  bar.end()
  t.same(terminal.lines.slice(1), [''])
})

t.test('begins anew below itself with the second of two parts', async (t) => {
  const { bar, terminal, pass } = drawing(t, 120)
  bar.update({ phase: 'converting', bytesDone: 0, bytesTotal: 4 * MIB })
  pass(1000)
  bar.update({ phase: 'converting', bytesDone: 2 * MIB, bytesTotal: 4 * MIB })
  pass(1000)
  bar.update({ phase: 'converting', bytesDone: 4 * MIB, bytesTotal: 4 * MIB })
  bar.clear()
  pass(1000)
  bar.update({ phase: 'converting', bytesDone: 512 * MIB, bytesTotal: GIB })
  pass(3000)
  bar.update({ phase: 'converting', bytesDone: GIB, bytesTotal: GIB })
  bar.end()
  t.equal(terminal.lines.length, 3)
  t.match(terminal.lines[0], /^ *100% \[=+\] 4\.0 MiB of 4\.0 MiB, 2\.0 MiB\/s, 0s left$/)
  t.match(terminal.lines[1], /^ *100% \[=+\] 1\.0 GiB of 1\.0 GiB, 256 MiB\/s, 0s left$/)
  t.equal(terminal.line, '')
})

t.test('knows the second part by its beginning, middle or end', async (t) => {
  for (const [bytesDone, shown] of [
    [0, /^ *0% \[-+\] 0 B of 4\.0 MiB, 0 B\/s, \? left$/],
    [MIB, /^ *25% \[=+-+\] 1\.0 MiB of 4\.0 MiB, 512 KiB\/s, 6s left$/],
    [4 * MIB, /^ *100% \[=+\] 4\.0 MiB of 4\.0 MiB, 2\.0 MiB\/s, 0s left$/],
  ] as const) {
    const { bar, terminal, pass } = drawing(t, 120)
    pass(60_000)
    bar.update({ phase: 'converting', bytesDone: 4 * MIB, bytesTotal: 4 * MIB })
    pass(2000)
    bar.update({ phase: 'converting', bytesDone, bytesTotal: 4 * MIB })
    t.match(terminal.lines[0], /100%/)
    t.match(terminal.lines[1], shown)
    bar.end()
    t.equal(terminal.lines.length, 3)
    t.equal(terminal.line, '')
  }
})

t.test('counts what is copied first, in a line that gives way to the bar', async (t) => {
  const { bar, terminal, pass } = drawing(t, 100)
  bar.spool(0, undefined)
  t.equal(terminal.line, '0 B read')
  bar.spool(3 * MIB, undefined)
  t.equal(terminal.line, '0 B read', 'drawn ten times a second at most')
  pass(100)
  bar.spool(512 * MIB, undefined)
  t.equal(terminal.line, '512 MiB read')
  bar.clear()
  t.equal(terminal.line, '', 'other lines have room')
  pass(60_000)
  bar.spool(513 * MIB, undefined)
  bar.update({ phase: 'converting', bytesDone: 0, bytesTotal: 4 * MIB })
  pass(1000)
  bar.update({ phase: 'converting', bytesDone: 2 * MIB, bytesTotal: 4 * MIB })
  t.match(terminal.line, /^ *50% \[=+-+\] 2\.0 MiB of 4\.0 MiB, 2\.0 MiB\/s, 1s left$/, 'whose time begins here')
  t.equal(terminal.lines.length, 1)
})

t.test('draws a bar for a copy of which the length is known, and goes on with the disk', async (t) => {
  const { bar, terminal, pass } = drawing(t, 100)
  bar.spool(0, 8 * MIB)
  pass(1000)
  bar.spool(4 * MIB, 8 * MIB)
  t.match(terminal.line, /^ *50% \[=+-+\] 4\.0 MiB of 8\.0 MiB, 4\.0 MiB\/s, 1s left$/)
  pass(1000)
  bar.update({ phase: 'converting', bytesDone: 0, bytesTotal: 4 * MIB })
  t.match(terminal.line, /^ *0% \[-+\] 0 B of 4\.0 MiB/)
})

t.test('takes the count away when the copy is cut short', async (t) => {
  const { bar, terminal } = drawing(t, 100)
  bar.spool(MIB, undefined)
  bar.end()
  t.equal(terminal.line, '')
  bar.end()
  t.equal(terminal.lines.length, 1)
})

t.test('says so while the output is verified, where there is room for it', async (t) => {
  const { bar, terminal, pass } = drawing(t, 120)
  pass(4000)
  bar.update({ phase: 'converting', bytesDone: GIB, bytesTotal: GIB })
  bar.update({ phase: 'verifying', bytesDone: 0, bytesTotal: GIB })
  pass(2000)
  bar.update({ phase: 'verifying', bytesDone: 256 * MIB, bytesTotal: GIB })
  t.equal(terminal.lines.length, 2)
  t.match(terminal.lines[0], /^ *100% \[=+\] 1\.0 GiB of 1\.0 GiB, 256 MiB\/s, 0s left$/)
  t.match(terminal.line, /^verifying 25% \[=+-+\] 256 MiB of 1\.0 GiB, 128 MiB\/s, 6s left$/)
  for (const [columns, line] of [
    [71, /^verifying 100% 1\.0 GiB$/],
    [30, /^verifying 100% 1\.0 GiB$/],
    [29, /^100% 1\.0 GiB$/],
  ] as const) {
    const narrow = drawing(t, columns)
    narrow.bar.update({ phase: 'verifying', bytesDone: GIB, bytesTotal: GIB })
    t.match(narrow.terminal.lines[0], line)
  }
})

t.test('ends its line when it is cut short', async (t) => {
  const { bar, terminal } = drawing(t, 100)
  bar.update({ phase: 'converting', bytesDone: MIB, bytesTotal: GIB })
  bar.end()
  t.equal(terminal.lines.length, 2)
  t.equal(terminal.line, '')
})

t.test('draws nothing if there was nothing to show', async (t) => {
  const { bar, terminal } = drawing(t, 100)
  bar.end()
  bar.update({ phase: 'converting', bytesDone: 0, bytesTotal: 0 })
  bar.end()
  t.same(terminal.lines, [''])
  t.equal(terminal.redrawCount, 0)
})

t.test('draws nothing on a dumb terminal, nor on one without room', async (t) => {
  for (const [columns, term] of [
    [100, 'dumb'],
    [0, 'xterm'],
    [5, 'xterm'],
  ] as const) {
    const { bar, terminal } = drawing(t, columns, term)
    bar.restart()
    bar.update({ phase: 'converting', bytesDone: 1, bytesTotal: 2 })
    bar.update({ phase: 'converting', bytesDone: 2, bytesTotal: 2 })
    bar.end()
    t.same(terminal.lines, [''])
  }
})

t.test('survives a terminal that does not tell its width', async (t) => {
  const { bar, terminal, pass } = drawing(t)
  pass(1000)
  t.doesNotThrow(() => {
    bar.update({ phase: 'converting', bytesDone: 1000, bytesTotal: 2000 })
    bar.end()
  })
  t.equal(terminal.line, '', 'the cursor is at the beginning of a line')
})

t.test('draws at once, at most ten times a second, and always the end', async (t) => {
  const { bar, terminal, pass } = drawing(t, 100)
  for (let done = 1; done <= 100; done++) {
    bar.update({ phase: 'converting', bytesDone: done, bytesTotal: 1000 })
    pass(10)
  }
  t.match(terminal.line, /^ *9% /)
  t.equal(terminal.redrawCount, 10)
  bar.update({ phase: 'converting', bytesDone: 1000, bytesTotal: 1000 })
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
      for (const [bytesDone, milliseconds] of [
        [1, 0],
        [1, 1],
        [1, 1e9],
        [Math.ceil(bytesTotal / 3), 12_345_678],
        [Math.max(1, bytesTotal - 1), 3],
        [bytesTotal, 1e7],
      ] as const) {
        for (const phase of ['converting', 'verifying'] as const) {
          const terminal = new FakeTerminal(columns)
          let now = 0
          const bar = createBar(terminal, () => now)
          // The clock of the second phase begins with it.
          bar.update({ phase, bytesDone: 0, bytesTotal })
          now += milliseconds
          bar.update({ phase, bytesDone, bytesTotal })
          bar.end()
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
  bar.update({ phase: 'converting', bytesDone: 3 * MIB, bytesTotal: 4 * MIB })
  t.match(terminal.line, /^ *75% 3\.0 MiB$/)
})

t.test('takes numbers that make no sense', async (t) => {
  const { bar, terminal } = drawing(t, 100)
  bar.update({ phase: 'converting', bytesDone: 0, bytesTotal: 10 })
  t.match(terminal.line, /^ *0% \[-+\] 0 B of 10 B, 0 B\/s, \? left$/)
  bar.update({ phase: 'converting', bytesDone: 20, bytesTotal: 10 })
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

t.test('writes time in two units at most, rounded up', async (t) => {
  for (const [seconds, shown] of [
    [0, '0s'],
    [0.2, '1s'],
    [59, '59s'],
    [59.5, '1m00s'],
    [185, '3m05s'],
    [3599, '59m59s'],
    [3600, '1h00m'],
    [7659, '2h07m'],
    [1e6, '277h46m'],
    [Infinity, '?'],
    [NaN, '?'],
  ] as const) {
    t.equal(duration(seconds), shown, String(seconds))
  }
})
