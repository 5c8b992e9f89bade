// Images in sparse files: what lies in a hole of the host file reads as zeros, and nothing else does.
import { closeSync, ftruncateSync, openSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { createReadStream, Qcow2Image, type GuestChunk } from '../../../lib/index.js'
import { chunksOf, closing } from '../../fixtures/consume.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { pattern } from '../../fixtures/patterns.js'
import { turns } from '../../fixtures/turns.js'

const MIB = 2 ** 20
const SIZE = 96 * MIB
const part = pattern(1, MIB)

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
