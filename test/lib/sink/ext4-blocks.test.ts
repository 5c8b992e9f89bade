// Blocks that are taken before they are written: on ext4, where much is written, and never more than that.
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, statfsSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Ext4Blocks } from '../../../lib/sink/ext4-blocks.js'
import { SparseWriteStream } from '../../../lib/sink/sparse-write-stream.js'
import { dataChunk, feed } from '../../fixtures/guest-chunks.js'
import { patchFs, patchPromises } from '../../fixtures/patched-fs.js'
import { pattern } from '../../fixtures/patterns.js'
import { until } from '../../fixtures/turns.js'

const MIB = 2 ** 20
const EXT4_MAGIC = 0xef53

function whyNot(folder: string): string | false {
  if (process.platform !== 'linux') return 'ext4 is a file system of Linux'
  if (statfsSync(folder).type !== EXT4_MAGIC) return 'the folder of this test is not on ext4'
  try {
    createRequire(import.meta.url).resolve('koffi')
    return false
  } catch {
    return 'koffi, an optional dependency, is not installed'
  }
}

const SKIP = { skip: whyNot(t.testdir()) }

/** A file of 1 GiB that is nothing but a hole. */
function hole(t: Test): { readonly fd: number; readonly allocated: () => number } {
  const fd = openSync(join(t.testdir(), 'file'), 'w+')
  t.teardown(() => {
    closeSync(fd)
  })
  ftruncateSync(fd, 2 ** 30)
  return { fd, allocated: () => fstatSync(fd).blocks * 512 }
}

/** Blocks of the file, after so much was written that they are taken. */
async function openBlocks(fd: number, allocated: () => number): Promise<Ext4Blocks> {
  const blocks = new Ext4Blocks(fd)
  blocks.take(0, 32 * MIB)
  await until(() => {
    blocks.take(99 * MIB, MIB)
    return allocated() > 0
  })
  return blocks
}

t.test('takes a range, as long as it is', SKIP, async (t) => {
  const { fd, allocated } = hole(t)
  const blocks = await openBlocks(fd, allocated)
  t.equal(allocated(), MIB, 'nothing but the range that was asked for when they could be taken')
  blocks.take(5 * MIB, 3 * MIB)
  t.equal(allocated(), 4 * MIB)
  blocks.take(5 * MIB, 3 * MIB)
  t.equal(allocated(), 4 * MIB, 'once')
  t.equal(fstatSync(fd).size, 2 ** 30, 'the length stays')
  const bytes = Buffer.alloc(3 * MIB, 1)
  readSync(fd, bytes, 0, bytes.length, 5 * MIB)
  t.ok(bytes.equals(Buffer.alloc(3 * MIB)), 'they read as zeros')
})

t.test('leaves a short range alone', SKIP, async (t) => {
  const { fd, allocated } = hole(t)
  const blocks = await openBlocks(fd, allocated)
  blocks.take(0, 512 * 1024 - 1)
  t.equal(allocated(), MIB)
  blocks.take(0, 512 * 1024)
  t.equal(allocated(), 1.5 * MIB)
})

t.test('does nothing before 32 MiB are written', async (t) => {
  const asked: unknown[] = []
  patchPromises(t, {
    statfs: async (path: unknown) => {
      asked.push(path)
      return { type: 0 }
    },
  })
  const { fd, allocated } = hole(t)
  const blocks = new Ext4Blocks(fd)
  blocks.take(0, 20 * MIB)
  blocks.take(20 * MIB, 12 * MIB - 1)
  t.same(asked, [])
  blocks.take(32 * MIB - 1, 1)
  blocks.take(32 * MIB, MIB)
  t.same(asked, process.platform === 'linux' ? [`/proc/self/fd/${fd}`] : [], 'asks once')
  await setImmediate()
  blocks.take(40 * MIB, MIB)
  t.equal(allocated(), 0, 'nothing on another file system')
})

t.test('does nothing where nobody knows what the file is on', async (t) => {
  patchPromises(t, { statfs: () => Promise.reject(new Error('there is no /proc')) })
  const { fd, allocated } = hole(t)
  const blocks = new Ext4Blocks(fd)
  blocks.take(0, 32 * MIB)
  await setImmediate()
  blocks.take(40 * MIB, MIB)
  t.equal(allocated(), 0)
})

t.test('gives up where none can be had', SKIP, async (t) => {
  const { fd, allocated } = hole(t)
  const blocks = await openBlocks(fd, allocated)
  // No file is that long.
  t.doesNotThrow(() => {
    blocks.take(2 ** 60, MIB)
  })
  blocks.take(0, MIB)
  t.equal(allocated(), MIB, 'does not ask again')
})

t.test('a sink that may wait takes blocks for what it is about to write, and for no zeros', SKIP, async (t) => {
  for (const isBlocking of [true, false]) {
    const { fd, allocated } = hole(t)
    const taken: number[] = []
    // Nothing is written, so that what is allocated was taken.
    const write = (length: number): number => {
      taken.push(allocated())
      return length
    }
    patchFs(t, { writeSync: (_fd: number, _bytes: Uint8Array, _at: number, length: number) => write(length) })
    const handle = {
      fd,
      truncate: async () => undefined,
      write: async (bytes: Uint8Array, _at: number, length: number) => ({ bytesWritten: write(length), buffer: bytes }),
    } as unknown as FileHandle
    const target = { handle, path: 'out', guestStart: 0, length: 2 ** 30, isSparse: true, isBlocking }
    const bytes = Buffer.concat([pattern(1, MIB), Buffer.alloc(MIB), pattern(2, MIB / 4)])
    const chunks = Array.from({ length: 200 }, (_, index) => dataChunk(index * 3 * MIB, bytes))
    t.same(await feed(new SparseWriteStream(target), chunks), [])
    const last = taken.at(-1)!
    if (isBlocking) {
      // And a block for the list of where they are.
      t.ok(last >= MIB && last % MIB <= 4096, `${last} bytes are taken`)
      t.ok(last < (200 - 25) * MIB, 'those from 32 MiB on')
      t.equal(allocated(), last, 'and none for the short ranges')
    } else {
      t.equal(last, 0, 'one that may not does not')
    }
  }
})
