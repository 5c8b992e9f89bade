/**
 * An image's metadata as text: what a person wants to know first.
 *
 * Invariant: names from the image are quoted, as they are somebody else's and end up on a terminal.
 */
import { quoteText, type Qcow2FileInfo, type Qcow2Snapshot, type RawFileInfo } from '../../lib/index.js'
import { exactSizeText, sizeText } from './sizes.js'
import { unknownFeatures } from './unknown-features.js'

// A stranger's image may have tens of thousands of either.
const MAX_LISTED = 100

/**
 * The lines about one file of a chain.
 *
 * @param isNextShown Whether its backing file comes next.
 */
export function summary(info: Qcow2FileInfo | RawFileInfo, isNextShown: boolean): string[] {
  const rows: [title: string, text: string][] = [['virtual size', exactSizeText(info.virtualSize)]]
  if (info.allocatedBytes !== undefined) {
    rows.push(['on disk', sizeText(info.allocatedBytes)])
  }
  if (info.format === 'raw') {
    rows.push(['format', 'raw'])
  } else {
    rows.push(...imageRows(info, isNextShown))
  }
  const lines = rows.map(([title, text]) => `  ${title.padEnd(13)} ${text}`)
  return [quoteText(info.file, 300), ...lines, ...(info.format === 'raw' ? [] : snapshotLines(info.snapshots))]
}

function imageRows(info: Qcow2FileInfo, isNextShown: boolean): [string, string][] {
  const { header, extensions, snapshots, bitmaps, bitmapsProblem, backingFile } = info
  const { version, compressionType, features, refcountOrder, clusterBits } = header
  const rows: [string, string][] = [
    ['format', `qcow2 version ${version} (compat ${version === 2 ? '0.10' : '1.1'})`],
    ['clusters', `${sizeText(2 ** clusterBits)}, refcounts of ${2 ** refcountOrder} bits`],
    ['compression', `${compressionType === 1 ? 'zstd' : 'zlib'}, where clusters are compressed`],
    ['encryption', encryptionText(info)],
  ]
  if (backingFile !== undefined) {
    const format = extensions.backingFormat === undefined ? 'format not recorded' : quoteText(extensions.backingFormat)
    const more = isNextShown ? '' : '; not opened, --backing-chain shows it'
    rows.push(['backing file', `${quoteText(backingFile, 300)} (${format})${more}`])
  }
  if (features.hasExternalDataFile) {
    const kind = features.isExternalDataFileRaw ? 'raw' : 'not raw'
    rows.push(['data file', `${quoteText(extensions.dataFileName ?? '', 300)} (${kind})`])
  }
  const bits = [
    ...(features.isDirty ? ['dirty'] : []),
    ...(features.isCorrupt ? ['corrupt'] : []),
    ...(features.hasExtendedL2 ? ['extended L2 entries'] : []),
    ...(features.hasLazyRefcounts ? ['lazy refcounts'] : []),
    ...(features.hasCompressionType ? ['compression type'] : []),
    ...(features.hasExternalDataFile ? ['external data file'] : []),
    ...(features.hasConsistentBitmaps ? ['bitmaps'] : []),
    ...unknownFeatures(info).map(({ mask, bit, name }) => `unknown ${mask} bit ${bit} ${quoteText(name)}`),
  ]
  rows.push(['features', bits.length === 0 ? 'none' : bits.join(', ')])
  for (const [index, { name, granularityBytes, isInUse, isAuto }] of bitmaps.slice(0, MAX_LISTED).entries()) {
    const flags = `${isAuto ? ', auto' : ''}${isInUse ? ', in use: may be out of date' : ''}`
    rows.push([index === 0 ? 'bitmaps' : '', `${quoteText(name)}, ${sizeText(granularityBytes)} for each bit${flags}`])
  }
  if (bitmaps.length > MAX_LISTED) {
    rows.push(['', `and ${bitmaps.length - MAX_LISTED} more`])
  }
  if (bitmapsProblem !== undefined) {
    rows.push([bitmaps.length === 0 ? 'bitmaps' : '', `the directory is malformed: ${bitmapsProblem}`])
  }
  rows.push(['snapshots', snapshots.length === 0 ? 'none' : String(snapshots.length)])
  return rows
}

function encryptionText({ header, luks }: Qcow2FileInfo): string {
  if (header.cryptMethod === 0) {
    return 'none'
  }
  if (luks === undefined) {
    return 'AES, in the old way'
  }
  const { cipherName, cipherKeyBytes, cipherMode, ivGenerator, ivHash, hashSpec, keySlots } = luks
  const generator = `${ivGenerator}${ivHash === undefined ? '' : `:${ivHash}`}`
  const active = keySlots.filter(({ isActive }) => isActive).length
  return `LUKS, ${cipherName}-${cipherKeyBytes * 8}-${cipherMode}-${generator}, ${hashSpec}; passphrases: ${active}`
}

function snapshotLines(snapshots: readonly Qcow2Snapshot[]): string[] {
  const rows = snapshots
    .slice(0, MAX_LISTED)
    .map(({ id, name, date, virtualSize, vmStateSize }) => [
      quoteText(id),
      quoteText(name),
      `${date.toISOString().slice(0, 19).replace('T', ' ')} UTC`,
      sizeText(virtualSize),
      vmStateSize === 0 ? '' : `and ${sizeText(vmStateSize)} of machine state`,
    ])
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column]!.length)))
  const lines = rows.map((row) =>
    `    ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}`.trimEnd(),
  )
  const more = snapshots.length - rows.length
  return more > 0 ? [...lines, `    and ${more} more`] : lines
}
