// The C library: only where its offsets are as long as ours.
import t from 'tap'
import { openLibc } from '../../../lib/source/libc.js'
import { rejection } from '../../fixtures/expect-error.js'
import { noKoffi } from '../../fixtures/koffi.js'

function whyNot(): string | false {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return 'this system is not known to have what is looked for'
  return noKoffi
}

t.test('has the calls of the system', { skip: whyNot() }, async (t) => {
  const { libc } = await openLibc()
  t.equal(libc.func('int getpid()')(), process.pid)
})

t.test('is not to be had where offsets have 32 bits', { skip: whyNot() }, async (t) => {
  t.match(await rejection(t, openLibc(4)), { message: /shorter offsets/ })
})
