/**
 * The size of a block device, found by reading: `stat` says 0 for one, and Node has no `lseek`.
 *
 * Invariant: about a hundred reads of one byte, whatever the size.
 */

/** The part of a file handle that is needed. */
export interface ReadableAt {
  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesRead: number }>
}

/** Length of a device in bytes: the smallest offset at which nothing can be read. */
export async function deviceSize(handle: ReadableAt): Promise<number> {
  const byte = new Uint8Array(1)
  const exists = async (offset: number): Promise<boolean> => (await handle.read(byte, 0, 1, offset)).bytesRead === 1
  let beyond = 1
  while (beyond < 2 ** 53 && (await exists(beyond - 1))) {
    beyond *= 2
  }
  // Byte `low - 1` exists (or low is 0), byte `beyond - 1` does not.
  let low = Math.floor(beyond / 2)
  while (beyond - low > 1) {
    const middle = low + Math.floor((beyond - low) / 2)
    if (await exists(middle - 1)) {
      low = middle
    } else {
      beyond = middle
    }
  }
  return low
}
