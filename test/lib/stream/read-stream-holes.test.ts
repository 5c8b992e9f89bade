// Images in sparse files: what lies in a hole of the host file reads as zeros, and nothing else does.
import { closeSync, ftruncateSync, openSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { createReadStream, Qcow2Image, type GuestChunk } from '../../../lib/index.js'
import { bytesOfChunks, chunksOf, closing } from '../../fixtures/consume.js'
import { buildImage, type ClusterSpec } from '../../fixtures/image-builder.js'
import { noKoffi } from '../../fixtures/koffi.js'
import { pattern } from '../../fixtures/patterns.js'
import { turns } from '../../fixtures/turns.js'

const MIB = 2 ** 20
const SIZE = 96 * MIB
const part = pattern(1, MIB)
const HOLE = 65536
const CLUSTERS = 656
const cannotTell = process.platform !== 'linux' && 'only Linux is asked where holes are'

/** True if there are data at this mebibyte of the base: at every other one of the first and the last 24. */
const hasData = (mebibyte: number): boolean => mebibyte % 2 === 0 && (mebibyte < 24 || mebibyte >= 72)

/** An empty overlay over a sparse raw base. */
function sparseChain(t: Test): string {
  const folder = t.testdir()
  const overlay = buildImage({ virtualSize: SIZE + 5, backingFile: { name: 'base', format: 'raw' } })
  writeFileSync(join(folder, 'overlay'), overlay.bytes)
  const fd = openSync(join(folder, 'base'), 'wx')
  for (let i = 0; i < 96; i++) if (hasData(i)) writeSync(fd, part, 0, MIB, i * MIB)
  ftruncateSync(fd, SIZE)
  closeSync(fd)
  return join(folder, 'overlay')
}

/** True if these are the right bytes of the disk that {@link sparseChain} makes. */
function isRight(at: number, bytes: Buffer): boolean {
  for (let i = Math.floor(at / MIB); i * MIB < at + bytes.length; i++) {
    const from = Math.max(at, i * MIB)
    const to = Math.min(at + bytes.length, (i + 1) * MIB)
    const found = bytes.subarray(from - at, to - at)
    const expected = hasData(i) && i < 96 ? part.subarray(from - i * MIB, to - i * MIB) : Buffer.alloc(to - from)
    if (!found.equals(expected)) return false
  }
  return true
}

/** Waits until no file has been asked for anything for a while. */
async function untilIdle(): Promise<void> {
  for (let still = 0; still < 500; still++) {
    await turns()
    if (process.getActiveResourcesInfo().some((name) => name.startsWith('FSReq'))) still = 0
  }
}

t.test('reads the data around holes, and zeros in them', async (t) => {
  for (const start of [0, 1, 23 * MIB + 77, 71 * MIB]) {
    let at = start
    let wrong = 0
    for await (const chunk of createReadStream(sparseChain(t), { start })) {
      wrong += isRight(at, chunk as Buffer) ? 0 : 1
      at += (chunk as Buffer).length
    }
    t.equal(at, SIZE + 5)
    t.equal(wrong, 0, `from ${start}`)
  }
})

t.test('emits chunks that tile the disk, whatever it knows of holes', async (t) => {
  const path = sparseChain(t)
  const chunks = await chunksOf(createReadStream(path, { objectMode: true }))
  let at = 0
  for (const { guestOffset, length } of chunks) {
    t.equal(guestOffset, at)
    at += length
  }
  t.equal(at, SIZE + 5)
  const sum = (kind: GuestChunk['kind']): number =>
    chunks.reduce((total, chunk) => total + (chunk.kind === kind ? chunk.length : 0), 0)
  t.ok(sum('data') >= 24 * MIB)
  t.comment(`${sum('data') / MIB} MiB as data, ${statSync(join(path, '..', 'base')).blocks / 2048} MiB allocated`)
})

/** Writes what is not zero, and leaves holes elsewhere. */
function writeSparse(path: string, bytes: Buffer): void {
  const fd = openSync(path, 'wx')
  const zeros = Buffer.alloc(HOLE)
  for (let at = 0; at < bytes.length; at += HOLE) {
    const piece = bytes.subarray(at, at + HOLE)
    if (!piece.equals(zeros.subarray(0, piece.length))) writeSync(fd, piece, 0, piece.length, at)
  }
  ftruncateSync(fd, bytes.length)
  closeSync(fd)
}

/** Clusters that are all mapped; 39 MiB of them lie in a hole of their file: less is not worth asking. */
const mapped = Array.from({ length: CLUSTERS }, (_, i): [number, ClusterSpec] => [
  i,
  { kind: 'data', bytes: i >= 16 && i < CLUSTERS - 16 ? Buffer.alloc(HOLE) : pattern(i, HOLE) },
])

const LAYOUTS: Readonly<Record<string, (folder: string) => { image: string; sparse: string }>> = {
  'a raw backing file': (folder) => {
    const overlay = buildImage({ virtualSize: CLUSTERS * HOLE, backingFile: { name: 'base', format: 'raw' } })
    writeFileSync(join(folder, 'overlay'), overlay.bytes)
    writeSparse(join(folder, 'base'), buildImage({ clusters: mapped }).guest)
    return { image: join(folder, 'overlay'), sparse: join(folder, 'base') }
  },
  'a raw data file': (folder) => {
    const { bytes, dataFile } = buildImage({ clusters: mapped, dataFile: { name: 'data', raw: true } })
    writeFileSync(join(folder, 'image'), bytes)
    writeSparse(join(folder, 'data'), dataFile)
    return { image: join(folder, 'image'), sparse: join(folder, 'data') }
  },
  'a preallocated image': (folder) => {
    writeSparse(join(folder, 'image'), buildImage({ clusters: mapped }).bytes)
    return { image: join(folder, 'image'), sparse: join(folder, 'image') }
  },
}

for (const [what, write] of Object.entries(LAYOUTS)) {
  t.test(`does not read what lies in holes of ${what}`, { skip: noKoffi || cannotTell }, async (t) => {
    const { image, sparse } = write(t.testdir())
    const allocated = statSync(sparse).blocks * 512
    const chunks = await chunksOf(createReadStream(image, { objectMode: true }))
    const data = chunks.reduce((total, chunk) => total + (chunk.kind === 'data' ? chunk.length : 0), 0)
    t.ok(data <= allocated, `${data} bytes as data, ${allocated} allocated`)
    t.ok(bytesOfChunks(chunks).equals(buildImage({ clusters: mapped }).guest))
  })
}

t.test('fails, and does not end with zeros, when its image is closed while the stream is paused', async (t) => {
  const image = await Qcow2Image.open(sparseChain(t))
  const stream = createReadStream(image)
  let at = 0
  let wrong = 0
  stream.on('data', (chunk: Buffer) => {
    wrong += isRight(at, chunk) ? 0 : 1
    at += chunk.length
  })
  stream.once('data', () => {
    stream.pause()
    void (async () => {
      await untilIdle()
      await Promise.race([image.close(), turns(5000)])
      stream.resume()
    })()
  })
  const errors = await closing(stream)
  t.equal(wrong, 0, 'every chunk that was emitted is right')
  // Closing may wait for streams, or end them.
  if (stream.readableEnded) t.equal(at, SIZE + 5)
  else t.match(errors, [{ code: 'ERR_QCOW2_CLOSED' }])
})
