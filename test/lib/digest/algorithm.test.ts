// Which digests can be asked for: all with one result, by whatever case their name is in.
import { getHashes } from 'node:crypto'
import t from 'tap'
import { checkAlgorithm } from '../../../lib/digest/algorithm.js'
import { Hasher } from '../../../lib/digest/hasher.js'
import { Qcow2UsageError } from '../../../lib/index.js'
import { expectError } from '../../fixtures/expect-error.js'

t.test('allows every hash of node:crypto but those without a length of their own', async (t) => {
  const names = getHashes().filter((name) => !/^(shake|keccak-kmac)/.test(name))
  t.ok(names.includes('sha256') && names.length > 20, `${names.length} names`)
  for (const name of [...names, 'SHA256', 'Md5']) {
    t.doesNotThrow(() => {
      checkAlgorithm(name)
    }, name)
    t.match(new Hasher(name).finish(0), /^[0-9a-f]{32,}$/)
  }
})

t.test('refuses everything else, and says what there is', async (t) => {
  const others: unknown[] = ['crc32', '', 'sha_256', 'sha256 ', 'sha\n256', 7, false, null, {}]
  // Newer versions of Node know more of them.
  const ofAnyLength = ['shake128', 'SHAKE256', 'shake-128', 'Keccak-KMAC-128', 'keccak-kmac256']
  for (const name of [...others, ...ofAnyLength]) {
    let error: unknown
    try {
      checkAlgorithm(name)
    } catch (caught) {
      error = caught
    }
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'digest', actual: name })
    t.match((error as Error).message, /^digest: found ".*", allowed is .*\bsha256\b.*\bmd5$/)
  }
})
