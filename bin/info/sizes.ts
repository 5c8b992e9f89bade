/** Numbers of bytes as people read them. */

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** `512 bytes`, `1.35 MiB`, `10 GiB`: three digits, without zeros at their end. */
export function sizeText(bytes: number): string {
  let value = bytes
  let unit = -1
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024
    unit++
  }
  return unit === -1 ? `${bytes} bytes` : `${Number(value.toPrecision(value < 1000 ? 3 : 4))} ${UNITS[unit]!}`
}

/** `10 GiB (10737418240 bytes)`. */
export const exactSizeText = (bytes: number): string =>
  bytes < 1024 ? sizeText(bytes) : `${sizeText(bytes)} (${bytes} bytes)`
