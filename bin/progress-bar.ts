/**
 * The bar on a terminal: percent, bytes, rate and time left.
 *
 * Knows terminals, not conversions. Invariant: draws nothing where a bar makes no sense (a dumb or narrow terminal,
 * nothing to do), and leaves the cursor at the beginning of a line.
 */
import ProgressBar from 'progress'
import type { Qcow2Progress } from '../lib/index.js'

/** A bar, or what stands in for it where none is drawn. */
export interface Bar {
  readonly update: (progress: Qcow2Progress) => void
  /** The same for a copy of the image that is made first, of which the length may not be known. */
  readonly spool: (bytesDone: number, bytesTotal: number | undefined) => void
  /** Leaves the time that has passed out of rate and time left. */
  readonly restart: () => void
  /** Makes room for other lines above the bar. */
  readonly clear: () => void
  /** Ends the line. */
  readonly end: () => void
}

/** Where the bar is drawn. */
export interface Terminal extends NodeJS.WritableStream {
  readonly columns?: number
  cursorTo(column: number): void
  clearLine(direction: 1): void
}

const nothing = (): void => undefined
const NO_BAR: Bar = { update: nothing, spool: nothing, restart: nothing, clear: nothing, end: nothing }
// Below the first, the line has no room for a bar; below the second, it would not fit at all.
const BAR_COLUMNS = 62
const MIN_COLUMNS = 20
const MAX_BAR_COLUMNS = 40
const THROTTLE_MILLISECONDS = 100
const LABELS: Readonly<Record<Qcow2Progress['phase'], string>> = { converting: '', verifying: 'verifying ' }

/**
 * A bar on a terminal.
 *
 * @param now Milliseconds on a clock that does not jump.
 */
export function createBar(stream: Terminal, now: () => number = performance.now.bind(performance)): Bar {
  const { columns = 0 } = stream
  if (process.env['TERM'] === 'dumb' || columns < MIN_COLUMNS) {
    return NO_BAR
  }
  let started = now()
  let bar: ProgressBar | undefined
  let isSpooling = false
  let counted = -Infinity
  /** The copy is made, and its line gone. */
  const endSpooling = (): void => {
    isSpooling = false
    clearLine(stream)
    bar = undefined
    started = now()
  }
  return {
    spool(bytesDone, bytesTotal) {
      isSpooling = false
      if (bytesTotal !== undefined) {
        this.update({ phase: 'converting', bytesDone, bytesTotal })
      } else if (now() - counted >= THROTTLE_MILLISECONDS) {
        counted = now()
        clearLine(stream)
        stream.write(`${bytes(bytesDone)} read`)
      }
      isSpooling = true
    },
    update({ phase, bytesDone, bytesTotal }) {
      if (isSpooling) {
        endSpooling()
      }
      if (bytesTotal === 0) {
        return
      }
      if (bar?.complete === true) {
        bar = undefined
      }
      bar ??= drawOn(stream, columns, bytesTotal, LABELS[phase])
      const seconds = Math.max(0.001, (now() - started) / 1000)
      const rate = bytesDone / seconds
      bar.update(Math.min(1, bytesDone / bytesTotal), {
        done: bytes(bytesDone),
        all: bytes(bytesTotal),
        speed: `${bytes(rate)}/s`,
        left: duration((bytesTotal - bytesDone) / rate),
      })
      if (bar.complete) {
        // If anything follows, it is the second of two parts.
        started = now()
      }
    },
    restart() {
      started = now()
    },
    clear() {
      if (isSpooling || (bar !== undefined && !bar.complete)) {
        clearLine(stream)
      }
    },
    end() {
      if (bar !== undefined && !bar.complete) {
        bar.terminate()
      } else if (isSpooling && bar === undefined) {
        clearLine(stream)
      }
    },
  }
}

function clearLine(stream: Terminal): void {
  stream.cursorTo(0)
  stream.clearLine(1)
}

function drawOn(stream: Terminal, columns: number, total: number, label: string): ProgressBar {
  // A line that wraps is drawn again and again below itself.
  const room = columns - label.length
  const format = room < BAR_COLUMNS ? ':percent :done' : ':percent [:bar] :done of :all, :speed, :left left'
  return new ProgressBar(room < MIN_COLUMNS ? format : label + format, {
    stream,
    total,
    width: Math.min(MAX_BAR_COLUMNS, room - BAR_COLUMNS + 1),
    renderThrottle: THROTTLE_MILLISECONDS,
  })
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** Bytes for people: three digits or four, and a unit. */
export function bytes(count: number): string {
  const unit = Math.min(UNITS.length - 1, count < 1 ? 0 : Math.floor(Math.log2(count) / 10))
  const value = count / 1024 ** unit
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]!}`
}

/** Seconds for people: 42s, 3m05s, 2h07m; a question mark for what nobody can know. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) {
    return '?'
  }
  const whole = Math.ceil(seconds)
  const two = (value: number): string => String(value).padStart(2, '0')
  if (whole < 60) {
    return `${whole}s`
  }
  return whole < 3600
    ? `${Math.floor(whole / 60)}m${two(whole % 60)}s`
    : `${Math.floor(whole / 3600)}h${two(Math.floor((whole % 3600) / 60))}m`
}
