/**
 * A program to be measured: `image.read` over the allocated parts of a disk, in order or at random.
 *
 * Usage: node reads.js sequential|random IMAGE COUNT. Sequential: pieces of 1 MiB, one after the other; random: pieces
 * of 4 KiB, 32 of them under way. Prints how many it read and in which time; opening the image is not in it.
 */
import { Qcow2Image } from '../lib/index.js'
import { randomNumbers } from './layers.js'

const SEQUENTIAL_BYTES = 2 ** 20
const RANDOM_BYTES = 4096
const IN_FLIGHT = 32

const [kind, path, countWord] = process.argv.slice(2)
const pieceBytes = kind === 'sequential' ? SEQUENTIAL_BYTES : RANDOM_BYTES
await using image = await Qcow2Image.open(path!)

// Offsets of the pieces that hold something.
const pieces: number[] = []
for await (const { offset, length, kind: stored } of image.extents()) {
  if (stored === 'data' || stored === 'compressed') {
    const next = pieces.length === 0 ? 0 : pieces[pieces.length - 1]! + pieceBytes
    const first = Math.max(next, offset - (offset % pieceBytes))
    for (let piece = first; piece < offset + length; piece += pieceBytes) {
      pieces.push(piece)
    }
  }
}

const random = randomNumbers()
const count = kind === 'sequential' ? Math.min(pieces.length, Number(countWord)) : Number(countWord)
let started = 0
let bytes = 0

async function readUntilDone(): Promise<void> {
  const target = Buffer.alloc(pieceBytes)
  while (started < count) {
    const index = kind === 'sequential' ? started : Math.floor(random() * pieces.length)
    started++
    const length = await image.read(target, pieces[index]!)
    bytes += length
  }
}

const before = performance.now()
await Promise.all(Array.from({ length: kind === 'sequential' ? 1 : IN_FLIGHT }, readUntilDone))
const seconds = (performance.now() - before) / 1000
process.stdout.write(JSON.stringify({ count, bytes, seconds }))
