/** What every part of a check works with. */
import type { Geometry } from '../format/entries.js'
import type { HeaderExtensions } from '../format/extensions.js'
import type { Qcow2Header } from '../format/header.js'
import type { Qcow2Snapshot } from '../format/snapshots.js'
import type { HostFile } from '../source/source.js'
import type { Findings } from './findings.js'
import type { Turns } from './turns.js'
import type { RecordedRefcounts } from './recorded-refcounts.js'
import type { ReferenceCounts } from './reference-counts.js'

export interface CheckedImage {
  readonly file: HostFile
  readonly header: Qcow2Header
  readonly extensions: HeaderExtensions
  readonly snapshots: readonly Qcow2Snapshot[]
  readonly geometry: Geometry
  readonly findings: Findings
  readonly counts: ReferenceCounts
  readonly recorded: RecordedRefcounts
  readonly turns: Turns
}
