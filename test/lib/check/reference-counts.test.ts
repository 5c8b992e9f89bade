/**
 * Counting uses of clusters: at the end of the file, and at the end of what can be counted.
 */
import t from 'tap'
import { Findings } from '../../../lib/check/findings.js'
import { bytesToCount, ReferenceCounts } from '../../../lib/check/reference-counts.js'

function countsOf(fileSize: number, refcountOrder = 4): { counts: ReferenceCounts; findings: Findings } {
  const findings = new Findings()
  return { counts: new ReferenceCounts(fileSize, 512, refcountOrder, findings), findings }
}

const listed = (counts: ReferenceCounts): number[] =>
  Array.from({ length: counts.clusters }, (_, cluster) => counts.get(cluster))

t.test('each cluster that a range touches is counted', async (t) => {
  const { counts } = countsOf(512 * 5)
  t.ok(counts.add(512, 1, 1))
  t.ok(counts.add(1000, 600, 2))
  t.ok(counts.add(2048, 512, 1))
  t.strictSame(listed(counts), [0, 3, 2, 2, 1])
})

t.test('a range may reach into the cluster behind a file that ends in mid-cluster, and no further', async (t) => {
  const { counts, findings } = countsOf(1000)
  t.equal(counts.clusters, 2)
  t.ok(counts.add(512, 512, 1))
  t.equal(counts.clusters, 2)
  t.ok(counts.add(700, 1000 + 511 - 700, 1))
  t.strictSame(listed(counts), [0, 2, 1])
  t.notOk(counts.add(700, 1000 + 512 - 700, 1))
  t.notOk(counts.add(2 ** 55, 512, 1))
  t.strictSame(listed(counts), [0, 2, 1])
  t.equal(findings.corruptions, 0)
})

t.test('metadata is marked; past the end it is a corruption for each use', async (t) => {
  const { counts, findings } = countsOf(512 * 20)
  counts.addMetadata(512 * 9, 1024, 2, 'a table')
  counts.add(512 * 12, 512, 1)
  counts.addMetadata(512 * 20, 512, 3, 'another table')
  t.strictSame(
    Array.from({ length: 20 }, (_, cluster) => cluster).filter((cluster) => counts.isMetadata(cluster)),
    [9, 10],
  )
  t.equal(counts.get(9), 2)
  t.match(findings, {
    corruptions: 3,
    list: [
      {
        hostOffset: 10240,
        message: 'another table at host offset 0x2800, 512 bytes, ends past the end of the file (10240 bytes)',
      },
    ],
  })
})

t.test('what a refcount cannot count is a corruption for each use beyond', async (t) => {
  for (const [refcountOrder, ceiling] of [
    [0, 1],
    [1, 3],
    [2, 15],
    [3, 255],
    [4, 65535],
    [5, 4294967295],
  ] as const) {
    const { counts, findings } = countsOf(1024, refcountOrder)
    t.equal(counts.ceiling, ceiling)
    counts.add(512, 512, ceiling)
    t.equal(findings.corruptions, 0)
    counts.add(512, 512, 7)
    counts.add(512, 512, 1)
    t.equal(counts.get(1), ceiling)
    t.match(findings, { corruptions: 8, list: [{ kind: 'corruption', hostOffset: 512 }, {}] })
    t.match(findings.list[0]?.message, new RegExp(`of ${2 ** refcountOrder} bits can count`))
  }
})

t.test('with 64 bits counting ends at 2^32 - 1, which is no corruption', async (t) => {
  const { counts, findings } = countsOf(1024, 6)
  counts.add(512, 512, 2 ** 40)
  t.equal(counts.get(1), 4294967295)
  t.equal(counts.ceiling, 4294967295)
  t.equal(findings.corruptions, 0)
})

t.test('memory follows from the length of the file and the width of refcounts', async (t) => {
  t.equal(bytesToCount(2 ** 41, 65536, 4), (2 ** 25 + 1) * 2 + 2 ** 22 + 1)
  t.equal(bytesToCount(1, 512, 0), 2 + 1)
  t.equal(bytesToCount(512 * 7, 512, 6), 32 + 1)
})
