/**
 * Files and devices as sources: what is opened, what is refused without waiting for it, and who closes what.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { Qcow2SourceError } from '../../../lib/errors.js'
import { fromFileHandle, openFile } from '../../../lib/source/file.js'
import { openSource, type Qcow2Input } from '../../../lib/source/open-source.js'
import { causeCode, expectError, rejection } from '../../fixtures/expect-error.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { pattern } from '../../fixtures/patterns.js'

const noUnixFiles = process.platform === 'win32' ? 'Windows has no such files' : false

/** What stands for an open handle where the real thing is hard to come by. */
const handleOf = (
  kind: 'file' | 'block device' | 'character device',
  size: number,
  read: (target: Uint8Array, at: number, length: number, offset: number) => Promise<{ bytesRead: number }>,
): FileHandle =>
  ({
    fd: 99,
    stat: async () => ({
      isFile: () => kind === 'file',
      isBlockDevice: () => kind === 'block device',
      size: kind === 'file' ? BigInt(size) : 0n,
      dev: 6n,
      ino: 2n ** 60n + 1n,
      rdev: 0x801n,
    }),
    read,
  }) as unknown as FileHandle

t.test('refuses what is neither a file nor a block device, and closes it', { skip: noUnixFiles }, async (t) => {
  const folder = t.testdir({ folder: {} })
  const fifo = join(folder, 'fifo')
  execFileSync('mkfifo', [fifo])
  for (const path of [fifo, join(folder, 'folder'), '/dev/null', '/dev/zero']) {
    const before = cannotCount === false ? openDescriptors(path) : []
    // Opening a FIFO that nobody writes to would never end.
    const error = await rejection(t, openSource(path))
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_NOT_A_FILE', { layer: path, hostOffset: undefined })
    t.match((error as Error).message, /is neither a regular file nor a block device$/)
    if (cannotCount === false) t.strictSame(openDescriptors(path), before, `${path} is closed`)
  }
})

t.test('refuses a socket', { skip: noUnixFiles }, async (t) => {
  // The name of a socket has room for about a hundred characters.
  const folder = mkdtempSync(join(tmpdir(), 'q-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 's')
  const server = createServer().listen(path)
  await once(server, 'listening')
  t.teardown(() => server.close())
  const error = await rejection(t, openSource(path))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED', { layer: path })
  t.ok(causeCode(error), 'the system says why')
})

t.test('says why a file could not be opened', async (t) => {
  const folder = t.testdir({ file: 'x' })
  for (const [path, code] of [
    [join(folder, 'missing'), 'ENOENT'],
    [join(folder, 'missing', 'too'), 'ENOENT'],
    [join(folder, 'file', 'below'), process.platform === 'win32' ? 'ENOENT' : 'ENOTDIR'],
    [join(folder, 'n'.repeat(300)), process.platform === 'win32' ? 'ENOENT' : 'ENAMETOOLONG'],
  ] as const) {
    const error = await rejection(t, openSource(path))
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED', { layer: path })
    t.equal(causeCode(error), code)
    t.match((error as Error).message, new RegExp(`cannot be opened: ${code}: `))
  }
})

t.test('says how addresses begin where a path that leads nowhere looks like one', async (t) => {
  const before = process.cwd()
  t.teardown(() => {
    process.chdir(before)
  })
  process.chdir(t.testdir({ 'backups.d': {}, 'a:1': {}, 'file.d': 'x' }))
  const addresses = ['localhost:8080/x', 'example.org/a/disk.qcow2', 'my-host.example:80/x', '127.0.0.1/x', '//host/x']
  const others = ['x', 'x.qcow2', 'images/x', './images/x', '../images/x', '.x/x', 'c:/x', '/host.example/x', 'a.b//x']
  const saysSo = /ENOENT: .*; addresses begin with http:\/\/ or https:\/\/$/
  for (const path of addresses) t.match(await rejection(t, openFile(path)), { message: saysSo }, path)
  for (const path of [...others, 'backups.d/x', 'a:1/x', 'file.d/x']) {
    const error = await rejection(t, openFile(path))
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED', { layer: path })
    t.notMatch((error as Error).message, /address/, path)
  }
  const role = 'the backing file of "a.qcow2"'
  const error = await rejection(t, openFile('example.org/x', { role }))
  t.notMatch((error as Error).message, /address/, 'what an image names is a path')
})

t.test('refuses the handle of a folder or device as it refuses their paths, and leaves it open', async (t) => {
  const handle = handleOf('character device', 0, async () => ({ bytesRead: 1 }))
  expectError(t, await rejection(t, openSource(handle)), Qcow2SourceError, 'ERR_QCOW2_NOT_A_FILE', {
    layer: 'file descriptor 99',
  })
  if (process.platform !== 'win32') {
    const folder = await open(t.testdir({}))
    t.teardown(() => folder.close())
    expectError(t, await rejection(t, openSource(folder)), Qcow2SourceError, 'ERR_QCOW2_NOT_A_FILE', {
      layer: `file descriptor ${folder.fd}`,
    })
    t.ok((await folder.stat()).isDirectory(), 'it is open')
  }
})

t.test('refuses a handle that is closed', async (t) => {
  const path = join(t.testdir({ file: 'x' }), 'file')
  const handle = await open(path)
  await handle.close()
  const error = await rejection(t, openSource(handle))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED')
  t.equal(causeCode(error), 'EBADF')
})

t.test('finds the size of a block device, which says 0 itself', async (t) => {
  for (const size of [0, 512, 1000 * 512]) {
    const bytes = pattern(1, size)
    const handle = handleOf('block device', size, async (target, at, length, offset) => {
      const part = bytes.subarray(offset, offset + length)
      target.set(part, at)
      return { bytesRead: part.length }
    })
    const file = await fromFileHandle(handle)
    t.equal(file.size, size)
    t.equal(file.identity, 'block device 2049')
    const target = Buffer.alloc(size + 5, 1)
    await file.read(target, 0)
    t.strictSame(target, Buffer.concat([bytes, Buffer.alloc(5)]))
  }
})

t.test('reports a device that cannot be read', async (t) => {
  const cause = Object.assign(new Error('EIO: i/o error'), { code: 'EIO' })
  const handle = handleOf('block device', 0, () => Promise.reject(cause))
  const error = await rejection(t, openSource(handle))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED', { layer: 'file descriptor 99', cause })
})

t.test('never asks the system for more bytes at once than it can count', async (t) => {
  // Node gives up its process when asked for 2^31 bytes. The memory is reserved here, but never touched.
  const length = 2 ** 31 + 12345
  const lengths: number[] = []
  const handle = handleOf('file', length, async (_target, _at, wanted) => {
    lengths.push(wanted)
    return { bytesRead: wanted }
  })
  const file = await openSource(handle)
  await file.read(new Uint8Array(length), 0)
  t.equal(
    lengths.reduce((sum, wanted) => sum + wanted, 0),
    length,
  )
  t.ok(
    lengths.every((wanted) => wanted < 2 ** 31),
    `asked for ${lengths.join(', ')}`,
  )
})

t.test('closes what it opened and nothing else', { skip: cannotCount }, async (t) => {
  const path = join(t.testdir(), 'disk')
  writeFileSync(path, pattern(1, 10))
  const file = await openFile(path)
  t.equal(openDescriptors(path).length, 1)
  await file.close()
  t.strictSame(openDescriptors(path), [])

  const handle = await open(path)
  const borrowed = await openSource(handle satisfies Qcow2Input)
  await borrowed.close()
  t.strictSame(openDescriptors(path), [handle.fd])
  await handle.close()
})
