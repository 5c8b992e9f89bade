// Pipes on Linux: how much they hold, bytes and zeros that are moved into them, and that nothing happens to what is no pipe.
import {
  closeSync,
  constants,
  createReadStream,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import t, { type Test } from 'tap'
import { openSequential } from '../../../lib/sink/sequential-output.js'
import type { Qcow2SinkError } from '../../../lib/index.js'
import { enlargePipe, openPipeMover, type PipeMover } from '../../../lib/sink/linux-pipe.js'
import { SequentialWriteStream } from '../../../lib/sink/sequential-write-stream.js'
import { causeCode } from '../../fixtures/expect-error.js'
import { makeFifo, openFifo } from '../../fixtures/fifo.js'
import { dataChunk, feed, zeroChunk } from '../../fixtures/guest-chunks.js'
import { pattern } from '../../fixtures/patterns.js'
import { turns, until } from '../../fixtures/turns.js'

function whyNot(): string | false {
  if (process.platform !== 'linux') return 'only Linux lets a pipe be enlarged'
  try {
    createRequire(import.meta.url).resolve('koffi')
    return false
  } catch {
    return 'koffi, an optional dependency, is not installed'
  }
}

/** Bytes that fit into a pipe before anybody reads. */
function capacityOf(fd: number): number {
  const bytes = Buffer.alloc(4096)
  for (let total = 0; ; total += bytes.length) {
    try {
      writeSync(fd, bytes)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return total
      throw error
    }
  }
}

t.test('makes a pipe hold a mebibyte', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  await enlargePipe(fd)
  t.equal(capacityOf(fd), 2 ** 20)
})

t.test('is asked for when much is to be written, and only then', { skip: whyNot() }, async (t) => {
  for (const [length, isLarge] of [
    [64 * 2 ** 20 - 1, false],
    [64 * 2 ** 20, true],
  ] as const) {
    const { path, fd } = openFifo(t)
    const output = await openSequential(path, length)
    t.equal(capacityOf(fd) === 2 ** 20, isLarge, `${length} bytes`)
    await output.close()
  }
})

/** A mover that is closed with the test. */
async function moverOf(t: Test, fd: number): Promise<PipeMover> {
  const mover = (await openPipeMover(fd))!
  t.teardown(() => {
    mover.close()
  })
  return mover
}

t.test('does nothing to what is no pipe', async (t) => {
  const path = join(t.testdir({ file: 'content' }), 'file')
  const fd = openSync(path, 'r+')
  await enlargePipe(fd)
  const mover = await openPipeMover(fd)
  for (const when of ['first', 'again']) {
    t.equal(mover?.moveZeros(4096) ?? 0, 0, when)
    t.equal(mover?.moveBytes(pattern(1, 4096)) ?? 0, 0, when)
  }
  mover?.close()
  t.equal(readFileSync(path, 'utf8'), 'content')
  closeSync(fd)
  await t.resolves(enlargePipe(fd))
  const another = await openPipeMover(fd)
  t.equal(another?.moveZeros(4096) ?? 0, 0)
  t.equal(another?.moveBytes(pattern(1, 4096)) ?? 0, 0)
  another?.close()
})

t.test('moves as many zeros as are wanted and fit', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  await enlargePipe(fd)
  const mover = await moverOf(t, fd)
  const bytes = Buffer.alloc(2 ** 21, 1)
  t.equal(mover.moveZeros(5), 5)
  writeSync(fd, 'data')
  t.equal(mover.moveZeros(100_000), 100_000)
  t.equal(readSync(fd, bytes), 5 + 4 + 100_000)
  t.ok(bytes.subarray(0, 100_009).equals(Buffer.concat([Buffer.alloc(5), Buffer.from('data'), Buffer.alloc(100_000)])))
  const moved = mover.moveZeros(2 ** 40)
  t.equal(moved, 2 ** 20)
  t.equal(mover.moveZeros(2 ** 40), 0, 'the pipe is full')
  bytes.fill(1)
  t.equal(readSync(fd, bytes), moved)
  t.ok(bytes.subarray(0, moved).equals(Buffer.alloc(moved)))
  t.equal(mover.moveZeros(1), 1)
})

t.test('moves as many bytes as fit, once half of the pipe is empty', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  await enlargePipe(fd)
  const mover = await moverOf(t, fd)
  const bytes = pattern(1, 3 * 2 ** 20)
  const found = Buffer.alloc(2 ** 21)
  t.equal(mover.moveBytes(bytes.subarray(0, 0)), 0)
  t.equal(mover.moveBytes(bytes), 2 ** 20)
  t.equal(mover.moveBytes(bytes), 0, 'the pipe is full')
  t.equal(readSync(fd, found, 0, 2 ** 19 - 4096, null), 2 ** 19 - 4096)
  t.equal(mover.moveBytes(bytes), 0, 'more than half of it is')
  t.equal(readSync(fd, found, 0, 4096, null), 4096)
  t.equal(mover.moveBytes(bytes.subarray(2 ** 20)), 2 ** 19)
  t.equal(readSync(fd, found), 2 ** 20)
  t.ok(found.subarray(0, 2 ** 20).equals(bytes.subarray(2 ** 19, 3 * 2 ** 19)))
})

t.test(
  'moves bytes behind pages that are partly filled, and those again that found no room',
  { skip: whyNot() },
  async (t) => {
    const { fd } = openFifo(t)
    await enlargePipe(fd)
    const mover = await moverOf(t, fd)
    const bytes = pattern(1, 2 ** 20)
    const parts: Buffer[] = []
    const found = Buffer.alloc(2 ** 21)
    for (let at = 0; at < bytes.length;) {
      // Two pages for these, as nothing is added to a page that was moved.
      const zeros = mover.moveZeros(5)
      const moved = mover.moveBytes(bytes.subarray(at, at + 300_001))
      parts.push(Buffer.alloc(zeros), bytes.subarray(at, at + moved))
      at += moved
      if (moved === 0) {
        const count = readSync(fd, found)
        const expected = Buffer.concat(parts.splice(0))
        t.ok(found.subarray(0, count).equals(expected), `${count} bytes`)
      }
    }
    t.ok(found.subarray(0, readSync(fd, found)).equals(Buffer.concat(parts)))
  },
)

t.test('moves nothing once it is closed, which it may be twice', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  const count = (): number => readdirSync('/proc/self/fd').length
  const before = count()
  const mover = (await openPipeMover(fd))!
  t.equal(count(), before + 2)
  mover.close()
  mover.close()
  t.equal(count(), before)
  t.equal(mover.moveBytes(pattern(1, 4096)), 0)
  t.equal(mover.moveZeros(4096), 0)
})

t.test('a FIFO gets data and zeros in order, however slowly it is read', { skip: whyNot() }, async (t) => {
  const path = makeFifo(t)
  const parts = [
    pattern(1, 300_000),
    Buffer.alloc(5 * 2 ** 20 + 7),
    pattern(2, 2 ** 21),
    Buffer.alloc(2 ** 20),
    pattern(3, 9),
  ]
  const read = (async () => {
    const found: Buffer[] = []
    for await (const chunk of createReadStream(path, { highWaterMark: 100_000 }) as AsyncIterable<Buffer>) {
      found.push(chunk)
      await turns(3)
    }
    return Buffer.concat(found)
  })()
  const output = await openSequential(path, 64 * 2 ** 20)
  const moved = { zeros: 0, bytes: 0 }
  const sink = new SequentialWriteStream(output.write, {
    moveZeros: (most) => {
      const count = output.mover!.moveZeros(most)
      moved.zeros += count
      return count
    },
    moveBytes: (bytes) => {
      const count = output.mover!.moveBytes(bytes)
      moved.bytes += count
      return count
    },
  })
  let at = 0
  const chunks = parts.map((bytes, i) => {
    const guestOffset = at
    at += bytes.length
    return i % 2 === 0 ? dataChunk(guestOffset, bytes) : zeroChunk(guestOffset, bytes.length)
  })
  t.same(await feed(sink, chunks), [])
  await output.close()
  t.equal(sink.bytesWritten, at)
  t.ok((await read).equals(Buffer.concat(parts)))
  t.ok(moved.zeros > 2 ** 20, `${moved.zeros} zeros were moved`)
  t.ok(moved.bytes >= 300_000, `${moved.bytes} bytes were moved`)
  t.equal(output.mover!.moveZeros(1), 0, 'none once it is closed')
  t.equal(output.mover!.moveBytes(pattern(1, 1)), 0, 'none once it is closed')
})

for (const kind of ['zeros', 'data'] as const) {
  t.test(`${kind}: whose reader has gone away fails as it would without a mover`, { skip: whyNot() }, async (t) => {
    const path = makeFifo(t)
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const output = await openSequential(path, 2 ** 30)
    const sink = new SequentialWriteStream(output.write, output.mover)
    const length = kind === 'zeros' ? 2 ** 30 : 2 ** 23
    const done = feed(sink, [kind === 'zeros' ? zeroChunk(0, length) : dataChunk(0, pattern(1, length))])
    await until(() => sink.bytesWritten > 0)
    closeSync(fd)
    const errors = await done
    t.equal(errors.length, 1)
    t.equal((errors[0] as Qcow2SinkError).code, 'ERR_QCOW2_WRITE_FAILED')
    t.equal(causeCode(errors[0]), 'EPIPE')
    await output.close()
  })
}

t.test('bytes for a reader that is gone are not moved, nor is anything later', { skip: whyNot() }, async (t) => {
  const path = makeFifo(t)
  const from = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const fd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
  const mover = await moverOf(t, fd)
  closeSync(from)
  t.equal(mover.moveBytes(pattern(1, 4096)), 0)
  t.equal(mover.moveZeros(4096), 0)
  closeSync(fd)
})

t.test('zeros stay zeros when the thread that moved them is gone', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  const module = new URL('../../../lib/sink/linux-pipe.js', import.meta.url)
  const worker = new Worker(
    `const { workerData } = require('node:worker_threads')
     import(workerData.module).then(async ({ enlargePipe, openPipeMover }) => {
       await enlargePipe(workerData.fd)
       process.exitCode = (await openPipeMover(workerData.fd)).moveZeros(2 ** 20) === 2 ** 20 ? 0 : 1
     })`,
    { eval: true, workerData: { module: module.href, fd } },
  )
  const [code] = (await once(worker, 'exit')) as [number]
  t.equal(code, 0)
  const others = Array.from({ length: 64 }, () => new Uint8Array(2 ** 20).fill(1))
  const bytes = Buffer.alloc(2 ** 20, 1)
  t.equal(readSync(fd, bytes), 2 ** 20)
  t.ok(bytes.equals(Buffer.alloc(2 ** 20)))
  t.ok(others.every((other) => other[0] === 1))
})
