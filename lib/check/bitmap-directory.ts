/** Reads the directory of persistent bitmaps, as far as it can be understood. Spec: "Bitmap directory". */
import { MAX_DIRECTORY_BYTES, parseBitmapDirectory, type BitmapDirectory } from '../format/bitmaps.js'
import type { BitmapsExtension } from '../format/extensions.js'
import type { HostFile } from '../source/source.js'

/**
 * The bitmaps that the extension leads to; what lies past the end of the file is not there.
 *
 * @param mostBytes The longest directory that is read.
 * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
 */
export async function readBitmapDirectory(
  file: HostFile,
  extension: BitmapsExtension,
  clusterSize: number,
  mostBytes = MAX_DIRECTORY_BYTES,
): Promise<BitmapDirectory> {
  const { bitmapDirectoryOffset: offset, bitmapDirectorySize: size } = extension
  if (size === 0 || size > mostBytes) {
    return { bitmaps: [], problem: { at: 0, what: `it has ${size} bytes, allowed are 1 to ${mostBytes}` } }
  }
  const directory = new Uint8Array(Math.max(0, Math.min(size, file.size - offset)))
  await file.read(directory, offset)
  return parseBitmapDirectory(directory, extension, clusterSize)
}
