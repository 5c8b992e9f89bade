/**
 * bench/growth.svg: wall time against the data in a disk, and against the length of a disk. Numbers in, text out.
 */
import type { GrowthPoint } from './extras.js'

const WIDTH = 400
const HEIGHT = 280
const LEFT = 52
const RIGHT = 16
const TOP = 56
const BOTTOM = 48
const OURS = '#0b6bcb'
const RIVAL = '#c2410c'
const GiB = 2 ** 30

interface Panel {
  readonly title: string
  readonly unit: string
  readonly points: readonly GrowthPoint[]
  /** From bytes to a place on the axis, in any unit. */
  readonly scale: (bytes: number) => number
  readonly label: (bytes: number) => string
}

/** The plot, as an SVG document. */
export function plotGrowth({ data, disk }: { data: readonly GrowthPoint[]; disk: readonly GrowthPoint[] }): string {
  const panels: Panel[] = [
    {
      title: 'Wall time against data (zlib, into a file)',
      unit: 'GiB of files',
      points: data,
      scale: (bytes) => bytes,
      label: (bytes) => String(Number((bytes / GiB).toFixed(1))),
    },
    {
      title: 'Wall time against disk size (the same data)',
      unit: 'size of the disk',
      points: disk,
      scale: Math.log2,
      label: (bytes) => (bytes < 1024 * GiB ? `${bytes / GiB} GiB` : `${bytes / GiB / 1024} TiB`),
    },
  ]
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH * 2} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH * 2}" height="${HEIGHT}" fill="#fff"/>`,
    ...panels.map((panel, index) => `<g transform="translate(${index * WIDTH} 0)">\n${drawPanel(panel)}\n</g>`),
    '</svg>\n',
  ].join('\n')
}

function drawPanel({ title, unit, points, scale, label }: Panel): string {
  const places = points.map(({ bytes }) => scale(bytes))
  // A linear axis begins at nothing; on a logarithmic one there is no such place.
  const first = scale === Math.log2 ? Math.min(...places) : 0
  const last = Math.max(...places)
  const step = niceStep(Math.max(...points.flatMap(({ ours, rival }) => [seconds(ours), seconds(rival)])))
  const highest = step * 5
  const x = (bytes: number): number =>
    round(LEFT + ((scale(bytes) - first) / (last - first)) * (WIDTH - LEFT - RIGHT - 24) + 12)
  const y = (value: number): number => round(HEIGHT - BOTTOM - (value / highest) * (HEIGHT - TOP - BOTTOM))

  const grid = Array.from({ length: 6 }, (_, index) => {
    const value = Number((index * step).toPrecision(6))
    const line = `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(value)}" y2="${y(value)}" stroke="#ddd"/>`
    return `${line}<text x="${LEFT - 6}" y="${y(value) + 4}" text-anchor="end">${value} s</text>`
  })
  const marks = points.map(
    ({ bytes }) => `<text x="${x(bytes)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${label(bytes)}</text>`,
  )
  const line = (name: string, color: string, side: 'ours' | 'rival', legendLeft: number): string => {
    const corners = points.map((point) => [x(point.bytes), y(seconds(point[side]))] as const)
    const path = corners.map((corner) => corner.join(',')).join(' ')
    const dots = corners.map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3" fill="${color}"/>`).join('')
    const legend = `<text x="${LEFT + legendLeft}" y="38" fill="${color}">${name}</text>`
    return `<polyline points="${path}" fill="none" stroke="${color}" stroke-width="2"/>${dots}${legend}`
  }
  return [
    `<text x="${LEFT}" y="20" font-weight="bold">${title}</text>`,
    ...grid,
    ...marks,
    `<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 10}" text-anchor="middle">${unit}</text>`,
    line('qemu-img convert -W', RIVAL, 'rival', 44),
    line('ours', OURS, 'ours', 0),
  ].join('\n')
}

const seconds = ({ best }: GrowthPoint['ours']): number => best.wallSeconds
const round = (value: number): number => Math.round(value * 10) / 10

/** A fifth of an axis that holds the value, as 1, 2 or 5 times a power of ten. */
function niceStep(value: number): number {
  const raw = value / 5
  const power = 10 ** Math.floor(Math.log10(raw))
  return power * ([1, 2, 5].find((factor) => factor * power >= raw) ?? 10)
}
