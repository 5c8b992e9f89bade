/**
 * The bar on a terminal: percent, bytes, rate and time left.
 *
 * Knows terminals, not conversions. Invariant: is not there where a bar makes no sense (a dumb or narrow terminal), draws nothing
 * if there is nothing to do, and leaves the cursor at the beginning of a line.
 */
import ProgressBar from 'progress'
import type { Step } from './report.js'

/** A line that shows how far something has come. */
export interface Bar {
  /** Draws it; anew for each phase, and for each copy, which begins at 0. Of a copy the length may not be known: it is counted. */
  readonly update: (step: Step) => void
  /** Makes room for other lines above the bar. */
  readonly clear: () => void
  /** Writes such lines, and draws the bar again. */
  readonly above: (lines: string) => void
  /** Ends the line. */
  readonly end: () => void
}

/** Where the bar is drawn. */
export interface Terminal extends NodeJS.WritableStream {
  readonly columns?: number
  cursorTo(column: number): void
  clearLine(direction: 1): void
}

/** `progress`, with what it keeps, but does not declare: the text on the line; it does not write the same text again. */
type DrawnBar = ProgressBar & { lastDraw: string }

// Below the first, the line has no room for a bar; below the second, it would not fit at all.
const BAR_COLUMNS = 62
const MIN_COLUMNS = 20
const MAX_BAR_COLUMNS = 40
const THROTTLE_MILLISECONDS = 100
const LABELS: Readonly<Record<Step['phase'], string>> = { spooling: '', converting: '', verifying: 'verifying ' }

/**
 * A bar on a terminal; undefined if that has no place for one.
 *
 * @param now Milliseconds on a clock that does not jump.
 */
export function createBar(stream: Terminal, now: () => number = performance.now.bind(performance)): Bar | undefined {
  const { columns = 0 } = stream
  if (process.env['TERM'] === 'dumb' || columns < MIN_COLUMNS) {
    return undefined
  }
  let step: Step | undefined
  let bar: DrawnBar | undefined
  /** What stands in the line in place of a bar. */
  let count = ''
  let counted = -Infinity
  const isBarDrawn = (): boolean => bar !== undefined && !bar.complete && bar.lastDraw !== ''
  const drawCount = (text: string): void => {
    clearLine(stream)
    stream.write(text)
    count = text
  }
  const clear = (): void => {
    if (count !== '' || isBarDrawn()) {
      clearLine(stream)
    }
    count = ''
    if (bar !== undefined) {
      bar.lastDraw = ''
    }
  }
  return {
    update(next) {
      if (next.phase !== step?.phase || next.bytesDone === 0) {
        clear()
        bar = undefined
        counted = -Infinity
      }
      step = next
      const { phase, bytesDone, bytesTotal, bytesPerSecond, secondsLeft } = next
      if (bytesTotal === undefined) {
        if (now() - counted >= THROTTLE_MILLISECONDS) {
          counted = now()
          drawCount(`${bytes(bytesDone)} read`)
        }
        return
      }
      if (bytesTotal === 0 || bar?.complete === true) {
        return
      }
      bar ??= drawOn(stream, columns, bytesTotal, LABELS[phase])
      bar.update(Math.min(1, bytesDone / bytesTotal), {
        done: bytes(bytesDone),
        all: bytes(bytesTotal),
        speed: `${bytes(bytesPerSecond)}/s`,
        left: duration(secondsLeft),
      })
    },
    clear,
    above(lines) {
      const [wasBarDrawn, text] = [isBarDrawn(), count]
      clear()
      stream.write(lines)
      if (text !== '') {
        drawCount(text)
      } else if (wasBarDrawn) {
        bar!.render(undefined, true)
      }
    },
    end() {
      if (isBarDrawn()) {
        bar!.terminate()
      } else {
        clear()
      }
      bar = undefined
    },
  }
}

function clearLine(stream: Terminal): void {
  stream.cursorTo(0)
  stream.clearLine(1)
}

function drawOn(stream: Terminal, columns: number, total: number, label: string): DrawnBar {
  // A line that wraps is drawn again and again below itself.
  const room = columns - label.length
  const format = room < BAR_COLUMNS ? ':percent :done' : ':percent [:bar] :done of :all, :speed, :left left'
  return new ProgressBar(room < MIN_COLUMNS ? format : label + format, {
    stream,
    total,
    width: Math.min(MAX_BAR_COLUMNS, room - BAR_COLUMNS + 1),
    renderThrottle: THROTTLE_MILLISECONDS,
  }) as DrawnBar
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** Bytes for people: three digits or four, and a unit. */
export function bytes(count: number): string {
  const unit = Math.min(UNITS.length - 1, count < 1 ? 0 : Math.floor(Math.log2(count) / 10))
  const value = count / 1024 ** unit
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]!}`
}

/** Whole seconds for people: 42s, 3m05s, 2h07m; a question mark for what nobody can know. */
export function duration(seconds: number | undefined): string {
  if (seconds === undefined) {
    return '?'
  }
  const two = (value: number): string => String(value).padStart(2, '0')
  if (seconds < 60) {
    return `${seconds}s`
  }
  return seconds < 3600
    ? `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`
    : `${Math.floor(seconds / 3600)}h${two(Math.floor((seconds % 3600) / 60))}m`
}
