/** The verdict of a check: its words, its JSON, and its exit code. */
import t from 'tap'
import { checkJson, checkLines, exitCodeOfCheck } from '../../../bin/info/check-report.js'
import type { Qcow2CheckResult } from '../../../lib/index.js'

const CLEAN: Qcow2CheckResult = {
  totalClusters: 320,
  allocatedClusters: 16,
  fragmentedClusters: 0,
  compressedClusters: 0,
  imageEndOffset: 1376256,
  leaks: 0,
  corruptions: 0,
  checkErrors: 0,
  findings: [],
  findingCount: 0,
}

const DAMAGED: Qcow2CheckResult = {
  ...CLEAN,
  fragmentedClusters: 1,
  compressedClusters: 2,
  leaks: 3,
  corruptions: 1,
  findings: [
    { kind: 'corruption', message: 'a cluster is used twice', hostOffset: 65536, guestOffset: undefined },
    { kind: 'leak', message: 'a cluster is not used', hostOffset: 131072, guestOffset: undefined },
  ],
  findingCount: 4,
}

t.test('exit codes: the worst counts', async (t) => {
  t.equal(exitCodeOfCheck(CLEAN), 0)
  t.equal(exitCodeOfCheck({ ...CLEAN, leaks: 1 }), 7)
  t.equal(exitCodeOfCheck(DAMAGED), 3)
  t.equal(exitCodeOfCheck({ ...DAMAGED, checkErrors: 1 }), 1)
})

t.test('as text', async (t) => {
  t.strictSame(checkLines(CLEAN), [
    'No errors were found.',
    '16 of 320 clusters (5.0 %) are allocated: 0 compressed, 0 fragmented. The image ends at byte 1376256.',
  ])
  t.strictSame(checkLines(DAMAGED).slice(0, -1), [
    'corruption: a cluster is used twice',
    'leak: a cluster is not used',
    'and 2 more',
    'corruptions: 1, leaks: 3, not checked because of errors: 0',
  ])
  t.match(checkLines({ ...CLEAN, totalClusters: 0, allocatedClusters: 0 }).at(-1), /^0 of 0 clusters \(0\.0 %\)/)
})

t.test('as JSON, what is 0 is left out', async (t) => {
  t.strictSame(JSON.parse(JSON.stringify(checkJson(CLEAN, 'a.qcow2'))), {
    filename: 'a.qcow2',
    format: 'qcow2',
    'check-errors': 0,
    'image-end-offset': 1376256,
    'total-clusters': 320,
    'allocated-clusters': 16,
    findings: [],
  })
  t.match(checkJson(DAMAGED, 'a.qcow2'), {
    corruptions: 1,
    leaks: 3,
    'fragmented-clusters': 1,
    'compressed-clusters': 2,
    findings: [{ kind: 'corruption' }, { kind: 'leak' }],
  })
})
