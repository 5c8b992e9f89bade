// Pipes on Linux: how much they hold, bytes and zeros that are moved into them, and that nothing happens to what is no pipe.
import { spawn } from 'node:child_process'
import fs, { closeSync, constants, createReadStream, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openSequential } from '../../../lib/sink/sequential-output.js'
import { convert, type Qcow2SinkError } from '../../../lib/index.js'
import { enlargePipe, openPipeMover, type PipeMover } from '../../../lib/sink/linux-pipe.js'
import { SequentialWriteStream } from '../../../lib/sink/sequential-write-stream.js'
import { bytesOf } from '../../fixtures/consume.js'
import { causeCode, rejection } from '../../fixtures/expect-error.js'
import { makeFifo, openFifo } from '../../fixtures/fifo.js'
import { dataChunk, feed, zeroChunk } from '../../fixtures/guest-chunks.js'
import { noKoffi } from '../../fixtures/koffi.js'
import { countDescriptors } from '../../fixtures/open-descriptors.js'
import { buildImage, type BuiltImage } from '../../fixtures/image-builder.js'
import type { ClusterSpec } from '../../fixtures/image-spec.js'
import { patchFs, systemError } from '../../fixtures/patched-fs.js'
import { pattern } from '../../fixtures/patterns.js'
import { turns, until } from '../../fixtures/turns.js'

function whyNot(): string | false {
  if (process.platform !== 'linux') return 'only Linux lets a pipe be enlarged'
  if (process.arch !== 'x64') return 'pages may be longer here, of which a pipe holds fewer'
  return noKoffi
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
async function moverOf(t: Test, fd: number, mayWait?: boolean): Promise<PipeMover> {
  const mover = (await openPipeMover(fd, mayWait))!
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
  const closed = 2 ** 20
  await t.resolves(enlargePipe(closed))
  const another = await openPipeMover(closed)
  t.equal(another?.works ?? false, false)
  t.equal(another?.moveZeros(4096) ?? 0, 0)
  t.equal(another?.moveBytes(pattern(1, 4096)) ?? 0, 0)
  another?.close()
})

t.test('moves as many zeros as are wanted and fit', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  await enlargePipe(fd)
  const mover = await moverOf(t, fd)
  const bytes = Buffer.alloc(2 ** 24, 1)
  t.equal(mover.moveZeros(5), 5)
  writeSync(fd, 'data')
  t.equal(mover.moveZeros(100_000), 100_000)
  t.equal(readSync(fd, bytes), 5 + 4 + 100_000)
  t.ok(bytes.subarray(0, 100_009).equals(Buffer.concat([Buffer.alloc(5), Buffer.from('data'), Buffer.alloc(100_000)])))
  const moved = mover.moveZeros(2 ** 40)
  t.ok(moved > 2 ** 20, `${moved} zeros are more than a write puts in`)
  t.equal(mover.moveZeros(2 ** 40), 0, 'the pipe is full')
  bytes.fill(1)
  t.equal(readSync(fd, bytes), moved)
  t.ok(bytes.subarray(0, moved).equals(Buffer.alloc(moved)))
  t.equal(mover.moveZeros(1), 1)
})

t.test('moves as many bytes as fit, once half of a mebibyte is left to be read', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  await enlargePipe(fd)
  const mover = await moverOf(t, fd)
  // Twice as many as a write would put in.
  const most = 2 ** 21
  const rest = 2 ** 19
  const bytes = pattern(1, 2 * most)
  const found = Buffer.alloc(2 * most)
  t.equal(mover.moveBytes(bytes.subarray(0, 0)), 0)
  t.equal(mover.moveBytes(bytes), most)
  t.equal(mover.moveBytes(bytes), 0, 'the pipe is full')
  t.equal(readSync(fd, found, 0, most - rest - 4096, null), most - rest - 4096)
  t.equal(mover.moveBytes(bytes), 0, 'there is more to be read')
  t.equal(readSync(fd, found, 0, 4096, null), 4096)
  t.equal(mover.moveBytes(bytes.subarray(most)), most - rest)
  t.equal(readSync(fd, found), most)
  t.ok(found.subarray(0, most).equals(bytes.subarray(most - rest, 2 * most - rest)))
})

t.test('waits for the reader if it may, and not for long', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  await enlargePipe(fd)
  const [patient, hasty] = [await moverOf(t, fd, true), await moverOf(t, fd)]
  const bytes = pattern(1, 2 ** 21)
  const found = Buffer.alloc(2 ** 21)
  const waits: unknown[] = []
  let readAfter = Infinity
  t.capture(Atomics, 'wait', (_array: unknown, _index: unknown, _value: unknown, milliseconds: number) => {
    waits.push(milliseconds)
    if (waits.length === readAfter) readSync(fd, found, 0, 3 * 2 ** 19, null)
  })
  t.equal(patient.moveBytes(bytes), 2 ** 21)
  t.same(waits, [], 'there was room')
  t.equal(hasty.moveBytes(bytes), 0)
  t.same(waits, [], 'one that may not wait does not')
  t.equal(patient.moveBytes(bytes), 0, 'nobody reads')
  t.same(waits.splice(0), [0.05, 0.1, 0.2, 0.4, 0.8])
  readAfter = 3
  t.equal(patient.moveBytes(bytes), 3 * 2 ** 19)
  t.same(waits, [0.05, 0.1, 0.2])
  t.ok(found.subarray(0, 3 * 2 ** 19).equals(bytes.subarray(0, 3 * 2 ** 19)))
  // Of zeros the pipe holds more.
  waits.length = 0
  readAfter = Infinity
  t.ok(patient.moveZeros(2 ** 40) > 2 ** 20)
  t.same(waits, [], 'there was room')
  t.equal(hasty.moveZeros(2 ** 40), 0)
  t.same(waits, [], 'one that may not wait does not')
  t.equal(patient.moveZeros(2 ** 40), 0, 'nobody reads')
  t.same(waits, [0.05, 0.1, 0.2, 0.4, 0.8])
})

t.test('waits for half of a pipe that was filled by writes', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  await enlargePipe(fd)
  const mover = await moverOf(t, fd, true)
  const bytes = pattern(1, 2 ** 20)
  const found = Buffer.alloc(2 ** 21)
  t.equal(writeSync(fd, bytes), 2 ** 20, 'page by page, it holds no more')
  const waits = t.capture(Atomics, 'wait', () => 'timed-out' as const)
  let writes = 0
  const { writeSync: original } = fs
  patchFs(t, {
    writeSync: (...parameters: Parameters<typeof original>) => {
      writes++
      return original(...parameters)
    },
  })
  t.equal(mover.moveBytes(bytes), 0)
  t.equal(waits().length, 5)
  t.equal(writes, 0, 'nothing is copied in vain')
  t.equal(readSync(fd, found, 0, 2 ** 19, null), 2 ** 19)
  const moved = mover.moveBytes(bytes)
  t.ok(moved >= 2 ** 19, `${moved} bytes find room in the other half`)
  t.equal(readSync(fd, found), 2 ** 19 + moved)
  t.ok(found.subarray(0, 2 ** 19 + moved).equals(Buffer.concat([bytes.subarray(2 ** 19), bytes.subarray(0, moved)])))
})

t.test('waits for few zeros only if there is no room for them', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  await enlargePipe(fd)
  const mover = await moverOf(t, fd, true)
  const waits = t.capture(Atomics, 'wait', () => 'timed-out' as const)
  while (mover.moveZeros(2 ** 20) === 2 ** 20);
  waits()
  readSync(fd, Buffer.alloc(2 ** 21), 0, 2 ** 21, null)
  t.equal(mover.moveZeros(2 ** 20), 2 ** 20)
  t.equal(waits().length, 0)
})

t.test('moves only the bytes that find room behind pieces that are short', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  await enlargePipe(fd)
  const mover = await moverOf(t, fd)
  const bytes = pattern(1, 300_001)
  const found = Buffer.alloc(2 ** 20)
  // The pipe has 256 places for pieces.
  for (let count = 0; count < 253; count++) {
    t.equal(mover.moveZeros(5), 5)
  }
  let moved = 0
  for (let count = 1; count > 0; moved += count) {
    count = mover.moveBytes(bytes.subarray(moved))
  }
  t.ok(moved > 0 && moved < bytes.length, `${moved} bytes find room`)
  t.equal(readSync(fd, found), 253 * 5 + moved)
  t.ok(found.subarray(0, 253 * 5 + moved).equals(Buffer.concat([Buffer.alloc(253 * 5), bytes.subarray(0, moved)])))
  t.equal(mover.moveBytes(bytes.subarray(moved)), bytes.length - moved)
  t.equal(readSync(fd, found), bytes.length - moved)
  t.ok(found.subarray(0, bytes.length - moved).equals(bytes.subarray(moved)))
  t.equal(mover.moveBytes(pattern(2, 5000)), 5000)
  t.equal(readSync(fd, found), 5000)
  t.ok(found.subarray(0, 5000).equals(pattern(2, 5000)), 'what found no room does not come again')
})

t.test('what was moved stays, whatever becomes of the memory that it came from', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  await enlargePipe(fd)
  const mover = await moverOf(t, fd)
  const bytes = Buffer.from(pattern(1, 2 ** 20))
  const found = Buffer.alloc(2 ** 21)
  t.equal(mover.moveBytes(bytes), 2 ** 20)
  bytes.fill(0xff)
  mover.close()
  t.equal(readSync(fd, found), 2 ** 20)
  t.ok(found.subarray(0, 2 ** 20).equals(pattern(1, 2 ** 20)))
})

t.test('does without when its own sockets take nothing', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  const mover = await moverOf(t, fd)
  patchFs(t, {
    writeSync: () => {
      throw systemError('ENOMEM')
    },
  })
  t.equal(mover.works, true)
  t.equal(mover.moveBytes(pattern(1, 4096)), 0)
  t.equal(mover.works, false)
  t.equal(mover.moveZeros(4096), 0)
})

t.test('is none where its own sockets take nothing from the beginning', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  const before = countDescriptors()
  patchFs(t, {
    writeSync: () => {
      throw systemError('ENOMEM')
    },
  })
  const mover = (await openPipeMover(fd))!
  t.equal(mover.works, false)
  t.equal(mover.moveZeros(4096), 0)
  mover.close()
  t.equal(countDescriptors(), before)
})

t.test('never moves what it could not take back', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  await enlargePipe(fd)
  const mover = await moverOf(t, fd)
  while (mover.moveZeros(5) > 0);
  patchFs(t, {
    readSync: () => {
      throw systemError('EIO')
    },
  })
  t.equal(mover.moveBytes(pattern(1, 4096)), 0)
  t.equal(mover.works, false)
})

t.test('moves nothing once it is closed, which it may be twice', { skip: whyNot() }, async (t) => {
  const { fd } = openFifo(t)
  const before = countDescriptors()
  const mover = (await openPipeMover(fd))!
  t.equal(countDescriptors(), before + 4)
  mover.close()
  mover.close()
  t.equal(countDescriptors(), before)
  t.equal(mover.works, false)
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
    works: true,
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

/** 4 MiB of data in a disk that is long enough for a large pipe. */
function imageWithData(): BuiltImage {
  const bytes = pattern(1, 2 ** 22)
  const clusters = Array.from({ length: 64 }, (_, i): [number, ClusterSpec] => [
    i * 16,
    { kind: 'data', bytes: bytes.subarray(i * 65536, (i + 1) * 65536) },
  ])
  return buildImage({ clusterBits: 16, clusters, virtualSize: 64 * 2 ** 20 })
}

t.test('a conversion waits for the reader of a FIFO if it may block', { skip: whyNot() }, async (t) => {
  const image = imageWithData()
  const waits = t.capture(Atomics, 'wait', () => 'timed-out' as const)
  for (const blocking of [false, true]) {
    const path = makeFifo(t)
    // Read in this thread, that is, not while it waits.
    const [found] = await Promise.all([bytesOf(createReadStream(path)), convert(image.bytes, path, { blocking })])
    t.ok(found.equals(image.guest))
    t.equal(waits().length > 0, blocking, `blocking: ${blocking}`)
  }
})

t.test('leaves no descriptor open, however a conversion into a FIFO ends', { skip: whyNot() }, async (t) => {
  const image = imageWithData()
  const before = countDescriptors()
  for (const ending of ['read to its end', 'aborted', 'without its reader'] as const) {
    const path = makeFifo(t)
    const controller = new AbortController()
    const reader = createReadStream(path)
    const reason = new Error('enough')
    const conversion = convert(image.bytes, path, {
      signal: controller.signal,
      onProgress: () => {
        if (ending === 'aborted') controller.abort(reason)
        if (ending === 'without its reader') reader.destroy()
      },
    })
    if (ending === 'read to its end') {
      const [found] = await Promise.all([bytesOf(reader), conversion])
      t.ok(found.equals(image.guest), ending)
    } else {
      const error = await rejection(t, conversion)
      t.equal(ending === 'aborted' ? error === reason : causeCode(error) === 'EPIPE', true, ending)
      reader.destroy()
    }
    await until(() => reader.closed)
    await turns(20)
    t.equal(countDescriptors(), before, ending)
  }
})

t.test(
  'nothing is moved in a thread, whose standard output goes through the main thread',
  { skip: whyNot() },
  async (t) => {
    const module = new URL('../../../lib/sink/sequential-output.js', import.meta.url).href
    // Moved bytes would overtake written ones, but only now and then: hence not the bytes are looked at, but the mover.
    const tell = `const { isMainThread } = require('node:worker_threads')
    import(${JSON.stringify(module)})
      .then(({ openSequential }) => openSequential(1, 2 ** 26))
      .then(({ mover }) => console.error(isMainThread ? 'main' : 'thread', mover?.works ?? false))`
    const script = `${tell}
    process.once('beforeExit', () => new (require('node:worker_threads').Worker)(${JSON.stringify(tell)}, { eval: true }))`
    // A pipe of the shell, as those that Node makes are sockets.
    const child = spawn('sh', ['-c', '"$0" -e "$1" | cat', process.execPath, script], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    t.equal((await bytesOf(child.stderr)).toString(), 'main true\nthread false\n')
  },
)
