/**
 * A program to be measured: `for await` over the library's stream, from the first byte of the disk to the last.
 *
 * Usage: node stream.js buffers|chunks IMAGE. Prints how many bytes it saw, and fails if that is not the whole disk.
 */
import { createReadStream, type GuestChunk } from '../lib/index.js'

const [kind, image] = process.argv.slice(2)
const stream = createReadStream(image!, { objectMode: kind === 'chunks' })
let bytes = 0
let dataBytes = 0
if (kind === 'chunks') {
  for await (const chunk of stream as AsyncIterable<GuestChunk>) {
    bytes += chunk.length
    if (chunk.kind === 'data') {
      dataBytes += chunk.length
      chunk.release()
    }
  }
} else {
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    bytes += chunk.length
  }
  dataBytes = bytes
}
if (bytes !== stream.virtualSize) {
  throw new Error(`the stream ended after ${bytes} bytes of ${stream.virtualSize ?? 'an unknown number'}`)
}
process.stdout.write(JSON.stringify({ bytes, dataBytes }))
