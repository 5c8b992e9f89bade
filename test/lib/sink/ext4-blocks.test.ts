// Blocks that are taken before they are written: on ext4, where much is written, and never more than that.
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { convert } from '../../../lib/index.js'
import { Ext4Blocks } from '../../../lib/sink/ext4-blocks.js'
import { SparseWriteStream } from '../../../lib/sink/sparse-write-stream.js'
import { dataChunk, feed } from '../../fixtures/guest-chunks.js'
import { buildImage, type BuiltImage } from '../../fixtures/image-builder.js'
import { noKoffi } from '../../fixtures/koffi.js'
import { patchFs, patchPromises } from '../../fixtures/patched-fs.js'
import { pattern } from '../../fixtures/patterns.js'
import { until } from '../../fixtures/turns.js'

const MIB = 2 ** 20
const EXT4_MAGIC = 0xef53

function whyNot(folder: string): string | false {
  if (process.platform !== 'linux') return 'ext4 is a file system of Linux'
  if (noKoffi !== false) return noKoffi
  const { status } = spawnSync('fallocate', ['--length', '1MiB', join(folder, 'taken')])
  return status !== 0 && 'this file system takes no blocks beforehand, or fallocate (util-linux) is missing'
}

const FOLDER = t.testdir()
const SKIP = { skip: whyNot(FOLDER) }

/** A file of 1 GiB that is nothing but a hole. */
interface Hole {
  readonly fd: number
  /** Bytes that have blocks. */
  allocated(): number
}

let holes = 0

function makeHole(t: Test): Hole {
  const fd = openSync(join(t.testdir(), `hole-${holes++}`), 'w+')
  t.teardown(() => {
    closeSync(fd)
  })
  ftruncateSync(fd, 2 ** 30)
  return { fd, allocated: () => fstatSync(fd).blocks * 512 }
}

/** Makes all files, or only those of these descriptors, lie on ext4; returns the paths that are asked for. */
function pretendExt4(t: Test, ...fds: number[]): string[] {
  const asked: string[] = []
  patchPromises(t, {
    statfs: async (path: string) => {
      asked.push(path)
      return { type: fds.length === 0 || fds.some((fd) => path.endsWith(`/${fd}`)) ? EXT4_MAGIC : 0x58465342 }
    },
  })
  return asked
}

/** Blocks of the file, after so much was written that they are taken: those of 1 MiB near its end are. */
async function openBlocks({ fd, allocated }: Hole): Promise<Ext4Blocks> {
  const blocks = new Ext4Blocks(fd)
  blocks.take(0, 32 * MIB)
  await until(() => {
    blocks.take(999 * MIB, MIB)
    return allocated() > 0
  })
  return blocks
}

t.test('takes a range, as long as it is', SKIP, async (t) => {
  pretendExt4(t)
  const hole = makeHole(t)
  const blocks = await openBlocks(hole)
  t.equal(hole.allocated(), MIB, 'nothing but the range that was asked for when they could be taken')
  blocks.take(5 * MIB, 3 * MIB)
  t.equal(hole.allocated(), 4 * MIB)
  blocks.take(5 * MIB, 3 * MIB)
  t.equal(hole.allocated(), 4 * MIB, 'once')
  blocks.take(1023 * MIB, 3 * MIB)
  t.equal(fstatSync(hole.fd).size, 2 ** 30, 'the length stays')
  const bytes = Buffer.alloc(3 * MIB, 1)
  readSync(hole.fd, bytes, 0, bytes.length, 5 * MIB)
  t.ok(bytes.equals(Buffer.alloc(3 * MIB)), 'they read as zeros')
})

t.test('leaves a short range alone', SKIP, async (t) => {
  pretendExt4(t)
  const hole = makeHole(t)
  const blocks = await openBlocks(hole)
  blocks.take(0, 512 * 1024 - 1)
  t.equal(hole.allocated(), MIB)
  blocks.take(0, 512 * 1024)
  t.equal(hole.allocated(), 1.5 * MIB)
})

t.test('asks once, when 32 MiB are written', SKIP, async (t) => {
  const asked = pretendExt4(t)
  const { fd } = makeHole(t)
  const blocks = new Ext4Blocks(fd)
  blocks.take(0, 20 * MIB)
  blocks.take(20 * MIB, 12 * MIB - 1)
  t.same(asked, [])
  blocks.take(32 * MIB - 1, 1)
  blocks.take(32 * MIB, MIB)
  t.same(asked, [`/proc/self/fd/${fd}`])
})

t.test('knows ext4', SKIP, async (t) => {
  const { type } = statfsSync(FOLDER)
  const skip = type !== EXT4_MAGIC && 'the folder of this test is not on ext4'
  await t.test('by what the system says', { skip }, async (t) => {
    const hole = makeHole(t)
    await openBlocks(hole)
    t.equal(hole.allocated(), MIB)
  })
})

t.test('takes nothing on another file system, or where nobody knows which it is', SKIP, async (t) => {
  for (const isKnown of [true, false]) {
    const [other, hole] = [makeHole(t), makeHole(t)]
    pretendExt4(t, hole.fd)
    if (!isKnown) {
      patchPromises(t, {
        statfs: async (path: string) => {
          if (path.endsWith(`/${other.fd}`)) throw new Error('there is no /proc')
          return { type: EXT4_MAGIC }
        },
      })
    }
    const blocks = new Ext4Blocks(other.fd)
    blocks.take(0, 32 * MIB)
    // Later than the other would, if it did.
    await openBlocks(hole)
    blocks.take(40 * MIB, MIB)
    t.equal(other.allocated(), 0)
  }
})

t.test('gives up where none can be had', SKIP, async (t) => {
  pretendExt4(t)
  const hole = makeHole(t)
  const blocks = await openBlocks(hole)
  // No file is that long.
  t.doesNotThrow(() => {
    blocks.take(2 ** 62, MIB)
  })
  blocks.take(0, MIB)
  t.equal(hole.allocated(), MIB, 'does not ask again')
})

t.test('a sink takes blocks for what it is about to write, if it may, and for no zeros', SKIP, async (t) => {
  pretendExt4(t)
  // Nothing is written, so that what is allocated was taken.
  patchFs(t, { writeSync: (_fd: number, _bytes: Uint8Array, _at: number, length: number) => length })
  const bytes = Buffer.concat([pattern(1, MIB), Buffer.alloc(MIB), pattern(2, MIB / 4)])
  const sinkOf = ({ fd }: Hole, isBlocking: boolean, takesBlocks: boolean): SparseWriteStream => {
    const handle = {
      fd,
      truncate: async () => undefined,
      write: async (memory: Uint8Array, _at: number, length: number) => ({ bytesWritten: length, buffer: memory }),
    } as unknown as FileHandle
    return new SparseWriteStream({
      ...{ handle, path: 'out', guestStart: 0, length: 2 ** 30, isSparse: true },
      ...{ isBlocking, takesBlocks },
    })
  }
  const hole = makeHole(t)
  const sink = sinkOf(hole, true, true)
  let count = 0
  const write = async (): Promise<void> => {
    await new Promise((resolve) => {
      sink.write(dataChunk((count++ % 300) * 3 * MIB, bytes), resolve)
    })
  }
  while (hole.allocated() === 0) await write()
  t.ok(count > 32 / 1.25, 'none before 32 MiB are written')
  const before = hole.allocated()
  await write()
  t.ok(hole.allocated() - before >= MIB, 'a range of 1 MiB')
  t.ok(hole.allocated() - before < 1.25 * MIB, 'and neither zeros nor a short range')
  sink.destroy()
  const chunks = Array.from({ length: 2 * count }, (_, index) => dataChunk((index % 300) * 3 * MIB, bytes))
  for (const [isBlocking, takesBlocks] of [
    [false, true],
    [true, false],
  ] as const) {
    const other = makeHole(t)
    t.same(await feed(sinkOf(other, isBlocking, takesBlocks), chunks), [])
    t.equal(other.allocated(), 0, `isBlocking: ${isBlocking}, takesBlocks: ${takesBlocks}`)
  }
})

/** 64 MiB of data on a disk whose last block is cut. */
function imageWithData(): BuiltImage {
  const bytes = pattern(1, 64 * MIB)
  const at = (index: number): Buffer => bytes.subarray(index * 65536, (index + 1) * 65536)
  return buildImage({
    clusterBits: 16,
    clusters: Array.from({ length: 1024 }, (_, index) => [index, { kind: 'data', bytes: at(index) }]),
    virtualSize: 64 * MIB - 512,
  })
}

t.test('a conversion takes them where nothing is replaced, or all is synced', SKIP, async (t) => {
  const asked = pretendExt4(t)
  const image = imageWithData()
  const path = join(t.testdir(), 'disk.img')
  for (const { title, isThere, takes, ...options } of [
    { title: 'new', isThere: false, takes: true, blocking: true },
    { title: 'replaced', isThere: true, takes: false, blocking: true, force: true },
    { title: 'replaced and synced', isThere: true, takes: true, blocking: true, force: true, fsync: true },
    { title: 'not blocking', isThere: false, takes: false, force: true },
  ]) {
    if (isThere) writeFileSync(path, 'old')
    else spawnSync('rm', ['-f', path])
    asked.length = 0
    await convert(image.bytes, path, options)
    t.equal(asked.length, takes ? 1 : 0, title)
    t.ok(readFileSync(path).equals(image.guest), `${title}: every byte, and no more`)
  }
})
