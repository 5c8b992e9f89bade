/** How many threads there are if nobody says: no more than there are processors, and than memory is to be spent on. */
import t from 'tap'
import { defaultThreads } from '../../../lib/decode/default-threads.js'

const plain = { leavesMemory: false }
const frugal = { leavesMemory: true }

t.test('one for each processor, up to four; two where reading takes memory', async (t) => {
  for (const [processors, ofPlain, ofFrugal] of [
    [1, 1, 1],
    [2, 2, 2],
    [3, 3, 2],
    [4, 4, 2],
    [64, 4, 2],
  ] as const) {
    t.equal(defaultThreads([plain, plain], processors), ofPlain)
    t.equal(defaultThreads([plain, frugal], processors), ofFrugal)
  }
  t.ok(defaultThreads([plain]) >= 1 && defaultThreads([plain]) <= 4)
})
