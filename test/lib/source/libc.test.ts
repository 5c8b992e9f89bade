// The C library: only where its offsets are as long as ours.
import { createRequire } from 'node:module'
import t from 'tap'
import { openLibc } from '../../../lib/source/libc.js'
import { rejection } from '../../fixtures/expect-error.js'

function whyNot(): string | false {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return 'this system is not known to have what is looked for'
  try {
    createRequire(import.meta.url).resolve('koffi')
    return false
  } catch {
    return 'koffi, an optional dependency, is not installed'
  }
}

t.test('has the calls of the system', { skip: whyNot() }, async (t) => {
  const { libc } = await openLibc()
  t.equal(libc.func('int getpid()')(), process.pid)
})

t.test('is not to be had where offsets have 32 bits', { skip: whyNot() }, async (t) => {
  t.match(await rejection(t, openLibc(4)), { message: /shorter offsets/ })
})
