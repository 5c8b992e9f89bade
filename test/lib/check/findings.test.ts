/**
 * Findings: all are counted, some are kept.
 */
import t from 'tap'
import { Findings, MAX_FINDINGS } from '../../../lib/check/findings.js'

t.test('kinds are counted apart, and kept in their order', async (t) => {
  const findings = new Findings()
  findings.leak(1, 512, () => 'a')
  findings.corruption(3, 1024, () => 'b', 65536)
  findings.error(2, 0, () => 'c')
  findings.corruption(1, 2048, () => 'd')
  t.match(findings, { leaks: 1, corruptions: 4, checkErrors: 2 })
  t.strictSame(findings.list, [
    { kind: 'leak', message: 'a', hostOffset: 512, guestOffset: undefined },
    { kind: 'corruption', message: 'b', hostOffset: 1024, guestOffset: 65536 },
    { kind: 'error', message: 'c', hostOffset: 0, guestOffset: undefined },
    { kind: 'corruption', message: 'd', hostOffset: 2048, guestOffset: undefined },
  ])
})

t.test('the first thousand are kept, and no words are made for the others', async (t) => {
  const findings = new Findings()
  let made = 0
  for (let i = 0; i < 5000; i++) findings.leak(1, i, () => `${made++}`)
  t.equal(MAX_FINDINGS, 1000)
  t.equal(findings.leaks, 5000)
  t.equal(findings.list.length, 1000)
  t.equal(made, 1000)
})
