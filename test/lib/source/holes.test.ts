/**
 * Where a sparse file holds data: asked of the file system if it is worth it and can be done, else nothing is known.
 */
import { closeSync, fstatSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Qcow2UsageError } from '../../../lib/index.js'
import { openHoleMap, type HoleMap } from '../../../lib/source/holes.js'
import { openSource } from '../../../lib/source/open-source.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { filled } from '../../fixtures/patterns.js'

const MIB = 2 ** 20
const SIZE = 100 * MIB
const DATA: readonly (readonly [from: number, to: number])[] = [
  [20 * MIB, 21 * MIB],
  [60 * MIB, 60 * MIB + 1],
]

interface Sparse {
  readonly path: string
  readonly fd: number
  readonly allocatedBytes: number
}

/** A sparse file with data in two places. */
const sparseFile = (t: Test): Sparse => {
  const path = join(t.testdir(), 'sparse')
  const fd = openSync(path, 'w+')
  ftruncateSync(fd, SIZE)
  for (const [from, to] of DATA) writeSync(fd, filled(1, to - from), 0, to - from, from)
  return { path, fd, allocatedBytes: fstatSync(fd).blocks * 512 }
}

/** The map of the file, or why there is none on this machine. */
const mapOf = async (t: Test): Promise<(Sparse & { readonly map: HoleMap }) | string> => {
  const file = sparseFile(t)
  if (file.allocatedBytes > SIZE / 2) return 'this file system does not leave holes'
  const map = await openHoleMap(file.fd, SIZE - file.allocatedBytes)
  return map === undefined ? 'this system cannot be asked for holes (no koffi, or no such question)' : { ...file, map }
}

t.test('finds data and holes', async (t) => {
  const found = await mapOf(t)
  if (typeof found === 'string') return void t.pass(found, { skip: found })
  const { map, fd } = found
  t.teardown(() => closeSync(fd))
  let at = 0
  const parts: [from: number, to: number][] = []
  while (at < SIZE) {
    const from = map.nextData(at)
    if (from === Infinity) break
    const to = Math.min(map.nextHole(from), SIZE)
    t.ok(from >= at && to > from, 'goes on')
    parts.push([from, to])
    at = to
  }
  for (const [from, to] of DATA) {
    t.ok(
      parts.some((part) => part[0] <= from && part[1] >= to),
      `the data from ${from} on are known`,
    )
  }
  const total = parts.reduce((sum, [from, to]) => sum + to - from, 0)
  t.ok(total < 40 * MIB, `${total} bytes count as data`)
  t.equal(map.nextHole(0), 0)
  t.equal(map.nextData(DATA[0]![0] + 5), DATA[0]![0] + 5)
  t.equal(map.nextData(SIZE), Infinity, 'nothing comes after the end')
  t.equal(map.nextHole(SIZE + 5), Infinity)
})

t.test('counts everything as data if the file cannot be asked any more', async (t) => {
  const found = await mapOf(t)
  if (typeof found === 'string') return void t.pass(found, { skip: found })
  const { map, fd } = found
  closeSync(fd)
  t.equal(map.nextData(5), 5)
  t.equal(map.nextHole(5), Infinity)
})

t.test('does not ask for little, nor where nobody can answer', async (t) => {
  const { fd, allocatedBytes } = sparseFile(t)
  t.teardown(() => closeSync(fd))
  t.equal(await openHoleMap(fd, 0), undefined, 'no holes')
  t.equal(await openHoleMap(fd, 32 * MIB - 1), undefined, 'small holes')
  t.equal(await openHoleMap(-1, SIZE), undefined, 'no such descriptor')
  t.equal(await openHoleMap('x' as unknown as number, SIZE), undefined, 'no descriptor at all')
  const platform = Object.getOwnPropertyDescriptor(process, 'platform')!
  Object.defineProperty(process, 'platform', { ...platform, value: 'win32' })
  try {
    t.equal(await openHoleMap(fd, SIZE - allocatedBytes), undefined, 'a system that does not know the question')
  } finally {
    Object.defineProperty(process, 'platform', platform)
  }
})

t.test('a file that is opened by its path has a map until it is closed', async (t) => {
  const found = await mapOf(t)
  if (typeof found === 'string') return void t.pass(found, { skip: found })
  closeSync(found.fd)
  const file = await openSource(found.path)
  t.equal(file.holes?.nextHole(0), 0)
  const target = Buffer.alloc(10, 7)
  await file.read(target, 20 * MIB - 5)
  t.strictSame([...target], [0, 0, 0, 0, 0, 1, 1, 1, 1, 1], 'reading does not depend on where it was asked')
  await file.close()
  try {
    t.fail('a closed file told of its holes', { found: file.holes })
  } catch (error) {
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_CLOSED', { layer: found.path })
  }
})

t.test('small holes are found when that is asked for', async (t) => {
  const path = join(t.testdir(), 'small')
  const handle = await open(path, 'w')
  await handle.write(Buffer.alloc(4096, 1), 0, 4096, MIB)
  await handle.close()
  const file = await openSource(path)
  t.equal(file.holes, undefined)
  await file.findHoles()
  if (file.holes === undefined) {
    t.pass('no map', { skip: 'koffi is not here, or the file system does not tell of holes' })
  } else {
    t.equal(file.holes.nextData(0), MIB)
  }
  await file.findHoles()
  await file.close()
  expectError(t, await rejection(t, file.findHoles()), Qcow2UsageError, 'ERR_QCOW2_CLOSED', { layer: path })
  const memory = await openSource(filled(0, 10))
  await memory.findHoles()
  t.equal(memory.holes, undefined, 'there are none in memory')
})

t.test('nothing is asked of a handle of the caller, whose position would move', async (t) => {
  const { path, fd } = sparseFile(t)
  closeSync(fd)
  const handle = await open(path)
  t.teardown(() => handle.close())
  const file = await openSource(handle)
  t.equal(file.holes, undefined)
  const bytes = Buffer.alloc(1, 7)
  t.equal((await handle.read(bytes, 0, 1, null)).bytesRead, 1)
  t.equal(bytes[0], 0)
  t.equal((await openSource(filled(0, 64 * MIB))).holes, undefined, 'nor of memory')
})
