/**
 * A disk as a picture for a terminal: blocks in guest order, coloured by how their bytes are stored.
 *
 * Invariant: a block with a stored byte in it never looks empty, however small its share.
 */
import type { Qcow2Extent } from '../../lib/index.js'
import { sizeText } from './sizes.js'

const ROWS = 8
const MIN_WIDTH = 20

// In the order of the legend; the first three are stored bytes.
const KINDS = [
  { name: 'data', colour: 32, letter: 'd' },
  { name: 'compressed', colour: 36, letter: 'c' },
  { name: 'backing', colour: 33, letter: 'b' },
  { name: 'zero', colour: 34, letter: '0' },
  { name: 'unallocated', colour: 90, letter: '.' },
] as const
const STORED_KINDS = 3
const DATA = 0
const COMPRESSED = 1
const BACKING = 2
const ZERO = 3
const UNALLOCATED = 4
const FILLED = ['░', '▒', '▓', '█']
const EMPTY = '·'
const GAP = '   '

/** What the picture is painted on. */
export interface Canvas {
  /** Characters in a line. */
  readonly width: number
  readonly hasColours: boolean
}

/**
 * The picture's lines, with a legend below it.
 *
 * @param extents In detail.
 * @param diskBytes All of the disk.
 * @param clusterBytes No block stands for less.
 */
export async function picture(
  extents: AsyncIterable<Qcow2Extent>,
  diskBytes: number,
  clusterBytes: number,
  canvas: Canvas,
): Promise<string[]> {
  const width = Math.max(MIN_WIDTH, canvas.width)
  const blockBytes = Math.max(1, Math.ceil(diskBytes / (ROWS * width) / clusterBytes)) * clusterBytes
  const blocks = Math.ceil(diskBytes / blockBytes)
  const bytes = new Float64Array(blocks * KINDS.length)
  const totals = KINDS.map(() => 0)
  for await (const extent of extents) {
    const kind = kindOf(extent)
    totals[kind]! += extent.length
    const end = extent.offset + extent.length
    for (let at = extent.offset; at < end;) {
      const block = Math.floor(at / blockBytes)
      const next = Math.min(end, (block + 1) * blockBytes)
      bytes[block * KINDS.length + kind]! += next - at
      at = next
    }
  }
  const paint = (kind: number, text: string): string =>
    canvas.hasColours ? `\u001b[${KINDS[kind]!.colour}m${text}\u001b[0m` : text
  const cells = Array.from({ length: blocks }, (_, block) =>
    cell(bytes.subarray(block * KINDS.length, (block + 1) * KINDS.length), canvas.hasColours),
  )
  const lines: string[] = []
  for (let from = 0; from < blocks; from += width) {
    lines.push(joined(cells.slice(from, from + width), paint))
  }
  const legend = KINDS.flatMap(({ name, letter }, kind) => {
    const sample = canvas.hasColours ? (kind < STORED_KINDS ? '█' : EMPTY) : letter
    const text = `${name} ${sizeText(totals[kind]!)}`
    return totals[kind] === 0 ? [] : [{ text: `${paint(kind, sample)} ${text}`, width: text.length + 2 }]
  })
  const scale = canvas.hasColours ? '▒: half of it or less is stored' : 'capitals: more than half of it is stored'
  return [...lines, ...inLines(legend, width), `each block ${sizeText(blockBytes)}; ${scale}`]
}

/** Texts side by side, in as many lines as they need. */
function inLines(texts: readonly { text: string; width: number }[], width: number): string[] {
  const lines: string[] = []
  let used = Infinity
  for (const { text, width: needed } of texts) {
    if (used + GAP.length + needed > width) {
      lines.push(text)
      used = needed
    } else {
      lines.push(`${lines.pop()!}${GAP}${text}`)
      used += GAP.length + needed
    }
  }
  return lines
}

function kindOf(extent: Qcow2Extent): number {
  const { kind, depth } = extent
  if (kind === 'zero' || kind === 'unallocated') {
    return kind === 'zero' ? ZERO : UNALLOCATED
  }
  // Room that was preallocated is mapped, yet holds nothing.
  if (kind === 'data' && extent.isHole === true) {
    return ZERO
  }
  return depth > 0 ? BACKING : kind === 'data' ? DATA : COMPRESSED
}

interface Cell {
  readonly kind: number
  readonly text: string
}

/** How a block looks: the kind that most of what it stores is of, and how much of it is stored. */
function cell(bytes: Float64Array, hasColours: boolean): Cell {
  const all = bytes.reduce((sum, one) => sum + one, 0)
  const stored = bytes.subarray(0, STORED_KINDS).reduce((sum, one) => sum + one, 0)
  const [from, to] = stored > 0 ? [0, STORED_KINDS] : [STORED_KINDS, KINDS.length]
  const candidates = bytes.subarray(from, to)
  const kind = from + candidates.indexOf(Math.max(...candidates))
  const { letter } = KINDS[kind]!
  if (hasColours) {
    return { kind, text: stored > 0 ? FILLED[Math.ceil((stored / all) * FILLED.length) - 1]! : EMPTY }
  }
  return { kind, text: stored > all / 2 ? letter.toUpperCase() : letter }
}

/** Cells side by side, with a colour for each run of one kind. */
function joined(cells: readonly Cell[], paint: (kind: number, text: string) => string): string {
  let line = ''
  for (let from = 0; from < cells.length;) {
    const { kind } = cells[from]!
    let to = from
    while (cells[to]?.kind === kind) {
      to++
    }
    line += paint(
      kind,
      cells
        .slice(from, to)
        .map(({ text }) => text)
        .join(''),
    )
    from = to
  }
  return line
}
