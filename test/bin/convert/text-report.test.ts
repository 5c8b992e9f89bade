/**
 * What is said to people: lines above a bar that stays what it was, and an answer to whoever asks.
 */
import t, { type Test } from 'tap'
import { NO_STEP, type Step } from '../../../bin/convert/report.js'
import type { ConvertRequest } from '../../../bin/convert/request.js'
import { TextReport } from '../../../bin/convert/text-report.js'
import { FakeTerminal } from '../../fixtures/fake-terminal.js'
import { replacedStderr, replaceStderr, textIn } from '../../fixtures/replaced-stderr.js'

const request: ConvertRequest = { kind: 'convert', input: 'in', output: 'out', options: {} }
const step = (phase: Step['phase'], bytesDone: number, bytesTotal?: number): Step => ({
  ...NO_STEP,
  phase,
  bytesDone,
  bytesTotal,
})

async function onTerminal(t: Test): Promise<{ report: TextReport; terminal: FakeTerminal }> {
  const before = process.env['TERM']
  process.env['TERM'] = 'xterm'
  t.teardown(() => {
    if (before === undefined) delete process.env['TERM']
    else process.env['TERM'] = before
  })
  const terminal = replaceStderr(t, new FakeTerminal(100))
  const report = new TextReport('name')
  await report.begin(request)
  return { report, terminal }
}

t.test('answers with percents, or with bytes where there is no total', async (t) => {
  const stream = replacedStderr(t, 1000)
  const report = new TextReport('name')
  const answers = [undefined, step('spooling', 1234), step('spooling', 1, 3), step('spooling', 0, 0)].concat(
    step('converting', 1234, 10_000),
    step('verifying', 10_000, 10_000),
  )
  for (const one of answers) {
    if (one !== undefined) report.progress(one)
    report.answer()
  }
  t.same(textIn(stream).split('\n'), [
    '    (0.00/100%)',
    '    (1234 bytes read)',
    '    (33.33/100%)',
    '    (0.00/100%)',
    '    (12.34/100%)',
    '    (100.00/100%)',
    '',
  ])
})

t.test('answers above the bar, which is drawn again', async (t) => {
  const { report, terminal } = await onTerminal(t)
  report.progress(step('spooling', 1000))
  report.answer()
  t.same(terminal.lines, ['    (1000 bytes read)', '1000 B read'])
  report.progress(step('converting', 1, 4))
  report.answer()
  t.equal(terminal.lines[1], '    (25.00/100%)')
  t.match(terminal.line, /^25% \[=+-+\] 1 B of 4 B/)
  report.progress(step('converting', 4, 4))
  report.end()
  report.answer()
  t.match(terminal.lines[2], /^100% /)
  t.same(terminal.lines.slice(3), ['    (100.00/100%)', ''])
})

t.test('warns above the bar', async (t) => {
  const { report, terminal } = await onTerminal(t)
  report.progress(step('spooling', 1000))
  report.warning({ message: 'one' })
  t.same(terminal.lines, ['name: warning: one', ''])
  report.end()
  t.equal(terminal.lines.length, 2)
})
