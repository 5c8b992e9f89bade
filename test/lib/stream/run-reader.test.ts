/** How much is read at once, and ahead: it is bounded by bytes, whoever reads and however many threads decode. */
import { Blob } from 'node:buffer'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { LaneMemory } from '../../../lib/decode/lane-memory.js'
import { diskOf } from '../../../lib/image/image.js'
import { createReadStream, Qcow2FormatError, Qcow2Image, type Qcow2Input } from '../../../lib/index.js'
import { GIVES_BACK } from '../../../lib/stream/options.js'
import { RunReader } from '../../../lib/stream/run-reader.js'
import { bytesOf } from '../../fixtures/consume.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
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
  const reader = new RunReader(image, { objectMode }, () => true, false)
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
    const reader = new RunReader(image, { objectMode }, () => true, false)
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
    const reader = new RunReader(image, { objectMode: true }, () => true, false)
    await reader.next()
    await untilQuiet(() => bytesRead)
    const ahead = bytesRead - 4 * MIB
    t.ok(ahead >= 12 * MIB && ahead <= 21 * MIB, `${ahead} bytes`)
    await reader.close()
  }
})

/** How long the memory of the lane is that would decode the next run. */
function laneLength(image: Qcow2Image): number {
  const memory = diskOf(image)
    .readable()
    .decoding.memoryFor(4 * MIB)
  if (!(memory instanceof LaneMemory)) throw new Error('not the memory of a lane')
  return memory.wasm.buffer.byteLength
}

t.test('a lane gets its memory back from who takes nothing more, and from what fails', async (t) => {
  const damaged = compressedDisk('zlib', 200)
  const options = { objectMode: true, [GIVES_BACK]: true }
  for (const threads of [0, 1]) {
    await using image = await Qcow2Image.open(damaged.bytes, { threads })
    const lengths = new Set<number>()
    for (let round = 0; round < 12; round++) {
      const reader = new RunReader(image, options, () => true, false)
      for (let taken = 0; taken < round % 3; taken++) {
        const chunk = await reader.next()
        if (chunk?.kind === 'data') chunk.release()
      }
      await reader.close()
      const failing = new RunReader(image, { ...options, start: 200 * 65_536 }, () => true, false)
      const error = await rejection(t, failing.next())
      expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER', { guestOffset: 200 * 65_536 })
      await failing.close()
      lengths.add(laneLength(image))
    }
    t.ok(Math.max(...lengths) <= 32 * MIB, `${threads} threads: ${[...lengths].join(', ')} bytes`)
  }
})

t.test('a lane gets its memory back when what it decoded has been copied into a Buffer', async (t) => {
  for (const threads of [0, 1]) {
    await using image = await Qcow2Image.open(compressed.bytes, { threads })
    const reader = new RunReader(image, {}, () => true, true)
    let at = 0
    for (let chunk = await reader.next(); chunk?.kind === 'data'; chunk = await reader.next()) {
      if (!compressed.guest.subarray(at, at + chunk.length).equals(chunk.bytes)) t.fail(`other bytes from ${at} on`)
      t.ok(chunk.bytes.buffer instanceof ArrayBuffer)
      at += chunk.length
    }
    await reader.close()
    t.equal(at, compressed.guest.length)
    t.ok(laneLength(image) <= 12 * MIB, `${threads} threads: ${laneLength(image)} bytes`)
  }
})

t.test('Buffers wait for their consumer in lanes only if the image was opened for their stream', async (t) => {
  const path = join(t.testdir(), 'disk')
  writeFileSync(path, compressed.bytes)
  for (const isAlone of [false, true]) {
    await using image = await Qcow2Image.open(path, { threads: 0 })
    const stream = createReadStream(isAlone ? path : image, { threads: 0 })
    let asked = 0
    stream.once('open', (opened: Qcow2Image) => {
      const { decoding } = diskOf(opened).readable()
      const memoryFor = decoding.memoryFor.bind(decoding)
      decoding.memoryFor = (bytes) => {
        asked++
        return memoryFor(bytes)
      }
    })
    t.ok((await bytesOf(stream)).equals(compressed.guest))
    t.equal(asked > 0, isAlone, `${asked} runs`)
  }
})
