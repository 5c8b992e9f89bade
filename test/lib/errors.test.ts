// The error family: classes, facts, and text from images made safe for a terminal.
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import t from 'tap'
import {
  assertNever,
  ERROR_CODES,
  hex,
  Qcow2AccessError,
  Qcow2Error,
  Qcow2FormatError,
  Qcow2SinkError,
  Qcow2SourceError,
  Qcow2UnsupportedError,
  Qcow2UsageError,
  quoteText,
  reasonOf,
} from '../../lib/errors.js'
import { thrownBy } from '../fixtures/expect-refusal.js'

const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/u

const CLASSES = {
  Qcow2FormatError,
  Qcow2UnsupportedError,
  Qcow2AccessError,
  Qcow2SourceError,
  Qcow2SinkError,
  Qcow2UsageError,
}

for (const [name, Class] of Object.entries(CLASSES)) {
  t.test(`a ${name} tells its class, code, facts and cause`, async (t) => {
    const cause = new Error('EIO: i/o error')
    const facts = { layer: 'base.qcow2', hostOffset: 0x50038, guestOffset: 512, field: 'L2 entry', actual: 3n }
    const error = new Class('ERR_QCOW2_READ_FAILED', 'the wording', facts, cause)
    t.ok(error instanceof Qcow2Error)
    t.ok(error instanceof Error)
    t.equal(error.name, name)
    t.equal(error.code, 'ERR_QCOW2_READ_FAILED')
    t.equal(error.message, '"base.qcow2": the wording')
    t.match(error.stack, `${name}: "base.qcow2": the wording`)
    const { layer, hostOffset, guestOffset, field, actual } = error
    t.strictSame({ layer, hostOffset, guestOffset, field, actual }, facts)
    t.equal(error.cause, cause)
    for (const Other of Object.values(CLASSES)) {
      t.equal(error instanceof Other, Other === Class, `instanceof ${Other.name}`)
    }
  })
}

t.test('an error without facts names no layer and has no cause', async (t) => {
  const error = new Qcow2UsageError('ERR_QCOW2_CLOSED', 'the image is closed')
  t.equal(error.message, 'the image is closed')
  t.notOk('cause' in error)
  for (const fact of ['layer', 'hostOffset', 'guestOffset', 'field', 'actual'] as const) {
    t.equal(error[fact], undefined, fact)
  }
})

t.test('the name of a layer cannot break the line of its error, and is cut at 300 characters', async (t) => {
  const hostile = new Qcow2FormatError('ERR_QCOW2_BAD_MAGIC', 'wrong', { layer: 'a\n\u001b[2Jb\u202ec' })
  t.equal(hostile.message, '"a\\n\\u001b[2Jb\\u202ec": wrong')
  t.equal(hostile.layer, 'a\n\u001b[2Jb\u202ec', 'the fact is what was given')
  const long = new Qcow2FormatError('ERR_QCOW2_BAD_MAGIC', 'wrong', { layer: 'x'.repeat(301) })
  t.equal(long.message, `"${'x'.repeat(300)}…": wrong`)
})

t.test('text is quoted so that a terminal shows it and obeys nothing in it', async (t) => {
  const rows: [title: string, text: string, shown: string][] = [
    ['plain text', 'disk.img', '"disk.img"'],
    ['nothing', '', '""'],
    ['quotes and backslashes', 'a"b\\c', '"a\\"b\\\\c"'],
    ['line breaks', 'a\r\nb', '"a\\r\\nb"'],
    ['NUL and escape', '\0\u001b', '"\\u0000\\u001b"'],
    ['delete', '\u007f', '"\\u007f"'],
    ['the first and last C1 control', '\u0080\u009f', '"\\u0080\\u009f"'],
    ['line and paragraph separators', '\u2028\u2029', '"\\u2028\\u2029"'],
    ['bidirectional overrides and isolates', '\u202e\u2066\u200f', '"\\u202e\\u2066\\u200f"'],
    ['zero width space, soft hyphen, byte order mark', '\u200b\u00ad\ufeff', '"\\u200b\\u00ad\\ufeff"'],
    ['a tag character beyond 16 bits, as its two units', '\u{e0041}', '"\\udb40\\udc41"'],
    ['half a surrogate pair', 'a\ud83d', '"a\\ud83d"'],
    ['letters of any script and pictures', 'диск 磁盘 💾', '"диск 磁盘 💾"'],
  ]
  for (const [title, text, shown] of rows) {
    t.equal(quoteText(text), shown, title)
  }
})

t.test('quoted text is cut at the length asked for, by default 100 characters', async (t) => {
  t.equal(quoteText('x'.repeat(100)), `"${'x'.repeat(100)}"`)
  t.equal(quoteText('x'.repeat(101)), `"${'x'.repeat(100)}…"`)
  t.equal(quoteText('abc', 3), '"abc"')
  t.equal(quoteText('abcd', 3), '"abc…"')
  t.equal(quoteText('ab💾', 3), '"ab\\ud83d…"', 'a cut through a pair leaves no half of it on the terminal')
})

t.test('whatever the text, quoting leaves nothing unsafe and says which text it was', async (t) => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 100 }), (text) => {
      const shown = quoteText(text)
      return !UNSAFE.test(shown) && (text.length > 100 || JSON.parse(shown) === text)
    }),
  )
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 120 }), (units) => {
      return !UNSAFE.test(quoteText(String.fromCharCode(...units)))
    }),
  )
  t.pass('for every text tried')
})

t.test('numbers of both kinds are shown in hex', async (t) => {
  t.equal(hex(0), '0x0')
  t.equal(hex(0x50038), '0x50038')
  t.equal(hex(2 ** 53 - 1), '0x1fffffffffffff')
  t.equal(hex(0xffff_ffff_ffff_ffffn), '0xffffffffffffffff')
})

t.test('the reason of a failure is its message on one line, whatever was thrown', async (t) => {
  t.equal(reasonOf(new Error('ENOSPC: no space left on device, write')), 'ENOSPC: no space left on device, write')
  t.equal(reasonOf(new Error('open "a.img"')), 'open "a.img"', 'quotes stay readable')
  t.equal(reasonOf(new Error('two\nlines\u001b[31m')), 'two\\nlines\\u001b[31m')
  t.equal(reasonOf('just text'), 'just text')
  t.equal(reasonOf(undefined), 'undefined')
  t.equal(reasonOf(7), '7')
  t.equal(reasonOf(new Error('x'.repeat(301))), `${'x'.repeat(300)}…`)
})

t.test('a state that a switch forgot is a bug and not an error of the family', async (t) => {
  const error = thrownBy(() => assertNever('new kind' as never))
  t.ok(error instanceof TypeError)
  t.notOk(error instanceof Qcow2Error)
  t.match(error, { message: 'unexpected value new kind' })
})

t.test('codes look alike, say what they mean in one line, and are all explained in docs/errors.md', async (t) => {
  const guide = readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8')
  for (const [code, meaning] of Object.entries(ERROR_CODES)) {
    t.match(code, /^ERR_QCOW2_[A-Z0-9]+(_[A-Z0-9]+)*$/)
    t.match(meaning, /^[a-z][^\n]{10,}[^.\s]$/, code)
    t.ok(guide.includes(`| \`${code}\` `), `docs/errors.md explains ${code}`)
  }
  const explained = [...guide.matchAll(/^\| `(ERR_\w+)`/gm)].map((match) => match[1])
  t.strictSame(explained.sort(), Object.keys(ERROR_CODES).sort(), 'and explains no others')
})
