/**
 * The set of L2 tables, compared with a Map.
 */
import t from 'tap'
import { L2TableSet } from '../../../lib/check/l2-table-set.js'
import { randomNumbers } from '../../fixtures/random-writes.js'

t.test('a table has as many uses as L1 entries point to it', async (t) => {
  const tables = new L2TableSet(() => undefined)
  tables.add(7, 3)
  tables.addActive(7, 40)
  tables.addActive(7, 12)
  tables.add(2, 1)
  tables.addActive(0, 5)
  t.strictSame(tables.get(7), { times: 5, activeTimes: 2, l1Index: 40 })
  t.strictSame(tables.get(2), { times: 1, activeTimes: 0, l1Index: 0 })
  t.strictSame(tables.get(0), { times: 1, activeTimes: 1, l1Index: 5 })
  t.equal(tables.get(3), undefined)
  t.equal(tables.size, 3)
  t.strictSame([...tables.clusters()], [0, 2, 7])
})

t.test('grows with what is in it, and knows all of it afterwards', async (t) => {
  const announced: number[] = []
  const tables = new L2TableSet((bytes) => announced.push(bytes))
  const random = randomNumbers(1)
  const expected = new Map<number, number>()
  for (let i = 0; i < 20000; i++) {
    const cluster = i % 2 === 0 ? 4294967295 - i : Math.floor(random() * 2 ** 32)
    tables.add(cluster, i)
    expected.set(cluster, (expected.get(cluster) ?? 0) + i)
  }
  t.equal(tables.size, expected.size)
  for (const [cluster, times] of expected) {
    if (tables.get(cluster)?.times !== times) t.fail(`cluster ${cluster}`)
  }
  t.strictSame(
    [...tables.clusters()],
    [...expected.keys()].sort((a, b) => a - b),
  )
  t.strictSame(
    announced,
    [1024, 2048, 4096, 8192, 16384].map((capacity) => capacity * 84),
  )
})

t.test('whoever hears of the growing can forbid it', async (t) => {
  const tables = new L2TableSet(() => {
    throw new Error('too large')
  })
  for (let i = 0; i < 1024; i++) tables.addActive(i, i)
  tables.add(0, 1)
  t.throws(() => tables.add(1024, 1), /too large/)
  t.strictSame(tables.get(0), { times: 2, activeTimes: 1, l1Index: 0 })
})
