/** For a coverage-guided fuzzer: the bytes are an image, which is read in every way, also salvaged. */
import { Qcow2Error, Qcow2Image } from '../../lib/index.js'

const READ_BYTES = 65536

export async function fuzz(bytes: Buffer): Promise<void> {
  for (const salvage of [undefined, () => undefined]) {
    try {
      await using image = await Qcow2Image.open(bytes, { backingFile: null, threads: 0, salvage })
      const { virtualSize } = image
      await image.info()
      await image.check()
      for (const offset of [0, Math.max(0, virtualSize - READ_BYTES)]) {
        const count = await image.read(Buffer.alloc(READ_BYTES), offset)
        if (count !== Math.min(READ_BYTES, virtualSize - offset)) {
          throw new Error(`${count} bytes at ${offset} of ${virtualSize}`)
        }
      }
      let at = 0
      for await (const { offset, length } of image.extents({ length: 2 ** 24 })) {
        if (offset !== at) {
          throw new Error(`an extent at ${offset}, not at ${at}`)
        }
        at += length
      }
    } catch (error) {
      if (!(error instanceof Qcow2Error)) {
        throw error
      }
    }
  }
}
