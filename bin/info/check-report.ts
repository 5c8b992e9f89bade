/**
 * The verdict of a check, as text and as JSON with the names that `qemu-img check --output=json` uses.
 *
 * Invariant: what qemu-img prints is there under the same name with the same value; `findings` is our own.
 */
import type { Qcow2CheckResult } from '../../lib/index.js'
import { LEAKED } from '../exit-code.js'

const INCOMPLETE = 1
const CORRUPT = 3

/** The exit code for a verdict. */
export function exitCodeOfCheck({ checkErrors, corruptions, leaks }: Qcow2CheckResult): number {
  return checkErrors > 0 ? INCOMPLETE : corruptions > 0 ? CORRUPT : leaks > 0 ? LEAKED : 0
}

/** What qemu-img prints: it leaves out what is 0, but for errors. */
export function checkJson(result: Qcow2CheckResult, filename: string): Record<string, unknown> {
  const unlessZero = (count: number): number | undefined => (count === 0 ? undefined : count)
  return {
    filename,
    format: 'qcow2',
    'check-errors': result.checkErrors,
    'image-end-offset': result.imageEndOffset,
    'total-clusters': unlessZero(result.totalClusters),
    'allocated-clusters': unlessZero(result.allocatedClusters),
    'fragmented-clusters': unlessZero(result.fragmentedClusters),
    'compressed-clusters': unlessZero(result.compressedClusters),
    corruptions: unlessZero(result.corruptions),
    leaks: unlessZero(result.leaks),
    findings: result.findings,
  }
}

/** A line for each finding, then the sums. */
export function checkLines(result: Qcow2CheckResult): string[] {
  const { findings, findingCount, corruptions, leaks, checkErrors } = result
  const more = findingCount - findings.length
  const lines = findings.map(({ kind, message }) => `${kind}: ${message}`)
  if (more > 0) {
    lines.push(`and ${more} more`)
  }
  lines.push(
    findingCount === 0
      ? 'No errors were found.'
      : `corruptions: ${corruptions}, leaks: ${leaks}, not checked because of errors: ${checkErrors}`,
  )
  const { totalClusters, allocatedClusters, fragmentedClusters, compressedClusters, imageEndOffset } = result
  const percent = totalClusters === 0 ? 0 : (allocatedClusters / totalClusters) * 100
  lines.push(
    `${allocatedClusters} of ${totalClusters} clusters (${percent.toFixed(1)} %) are allocated: ` +
      `${compressedClusters} compressed, ${fragmentedClusters} fragmented. The image ends at byte ${imageEndOffset}.`,
  )
  return lines
}
