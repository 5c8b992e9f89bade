/** How much is read at once, and ahead: it is bounded by bytes, whoever reads and however many threads decode. */
import { Blob } from 'node:buffer'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { LaneMemory } from '../../../lib/decode/lane-memory.js'
import { diskOf } from '../../../lib/image/image.js'
import { Qcow2Image, type Qcow2Input } from '../../../lib/index.js'
import { RunReader } from '../../../lib/stream/run-reader.js'
import { dataDisk } from '../../fixtures/mixed-disk.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { compressedDisk } from '../../fixtures/thread-worthy.js'
import { untilQuiet } from '../../fixtures/turns.js'

const KIB = 2 ** 10
const MIB = 2 ** 20
const data = dataDisk(640)
const compressed = compressedDisk('zlib')

/** The length of the first run. */
async function firstLength(input: Qcow2Input, threads: number, objectMode: boolean): Promise<number> {
  await using image = await Qcow2Image.open(input, { threads })
  const reader = new RunReader(image, { objectMode }, () => true)
  const chunk = await reader.next()
  await reader.close()
  return chunk!.length
}

t.test('runs of what is stored as it is are of one length, whatever threads there are', async (t) => {
  for (const threads of [0, 1, 8, 64]) {
    t.equal(await firstLength(data.bytes, threads, true), 4 * MIB)
    t.equal(await firstLength(data.bytes, threads, false), MIB)
  }
})

t.test('half as long where reading takes memory of its own', async (t) => {
  for (const input of [new Blob([data.bytes]), new RecordingSource(data.bytes)]) {
    t.equal(await firstLength(input, 2, true), 2 * MIB)
    t.equal(await firstLength(input, 2, false), MIB)
  }
})

t.test('threads share what is read ahead in shorter runs', async (t) => {
  for (const [threads, ofChunks, ofBuffers] of [
    [0, 4 * MIB, MIB],
    [1, 4 * MIB, MIB],
    [2, 4 * MIB, MIB],
    [3, 2 * MIB, 512 * KIB],
    [4, 2 * MIB, 512 * KIB],
    [8, MIB, 512 * KIB],
    [64, 512 * KIB, 512 * KIB],
  ] as const) {
    t.equal(await firstLength(compressed.bytes, threads, true), ofChunks, `${threads} threads, chunks`)
    t.equal(await firstLength(compressed.bytes, threads, false), ofBuffers, `${threads} threads, Buffers`)
  }
})

t.test('no more is read ahead than the window and one run hold', async (t) => {
  const long = dataDisk(50, 21)
  for (const [{ bytes }, threads, objectMode, window, run] of [
    [data, 2, true, 8 * MIB, 2 * MIB],
    [data, 2, false, 4 * MIB, MIB],
    [data, 16, true, 16 * MIB, 2 * MIB],
    [long, 4, true, 16 * MIB, 2 * MIB],
    // Not 256 MiB.
    [long, 64, true, 64 * MIB, 2 * MIB],
  ] as const) {
    const source = new RecordingSource(bytes)
    await using image = await Qcow2Image.open(source, { threads })
    const before = source.bytesRead
    const reader = new RunReader(image, { objectMode }, () => true)
    await reader.next()
    await untilQuiet(() => source.reads.length)
    const ahead = source.bytesRead - before - run
    // And the tables that say where it is.
    t.ok(ahead >= window - run && ahead <= window + run + MIB, `${threads} threads: ${ahead} bytes`)
    await reader.close()
    t.equal(source.underWay, 0)
  }
})

t.test('16 MiB where reading takes no memory of its own', async (t) => {
  const path = join(t.testdir(), 'disk')
  writeFileSync(path, data.bytes)
  for (const input of [path, data.bytes]) {
    await using image = await Qcow2Image.open(input, { threads: 2 })
    const [file] = diskOf(image).opened.files
    const read = file!.read.bind(file)
    let bytesRead = 0
    file!.read = (target, ...place) => {
      bytesRead += target.length
      return read(target, ...place)
    }
    const reader = new RunReader(image, { objectMode: true }, () => true)
    await reader.next()
    await untilQuiet(() => bytesRead)
    const ahead = bytesRead - 4 * MIB
    t.ok(ahead >= 12 * MIB && ahead <= 21 * MIB, `${ahead} bytes`)
    await reader.close()
  }
})

t.test(
  'an image that stays open gets its memory back: from what is taken, what nobody takes, and what fails',
  async (t) => {
    const damaged = compressedDisk('zlib', 200)
    for (const threads of [0, 1]) {
      await using image = await Qcow2Image.open(damaged.bytes, { threads })
      const lengths = new Set<number>()
      for (let round = 0; round < 12; round++) {
        const reader = new RunReader(image, {}, () => true)
        for (let left = round % 4 === 0 ? Infinity : round % 4; left > 0; left--) {
          const chunk = await reader.next().catch(() => undefined)
          if (chunk === undefined) break
        }
        await reader.close()
        const memory = diskOf(image)
          .readable()
          .decoding.memoryFor(4 * MIB)
        if (!(memory instanceof LaneMemory)) throw new Error('not the memory of a lane')
        lengths.add(memory.wasm.buffer.byteLength)
      }
      t.ok(Math.max(...lengths) <= 12 * MIB, `${threads} threads: ${[...lengths].join(', ')} bytes`)
    }
  },
)
