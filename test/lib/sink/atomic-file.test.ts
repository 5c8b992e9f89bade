// A file that appears under its name only when it is complete: until then, and on every failure, the target is as it was.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import promises, { type FileHandle } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { Qcow2SinkError, Qcow2UsageError } from '../../../lib/index.js'
import { AtomicFile } from '../../../lib/sink/atomic-file.js'
import { causeCode, expectError, rejection } from '../../fixtures/expect-error.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { patchHandles, patchPromises, systemError } from '../../fixtures/patched-fs.js'

/** Names of the temporary files of a folder. */
const leftOvers = (folder: string): string[] => readdirSync(folder).filter((name) => name.endsWith('.part'))

async function written(path: string, contents: string, options = { force: false }): Promise<AtomicFile> {
  const file = await AtomicFile.create(path, options)
  await file.handle.write(contents)
  return file
}

/** Makes `open` hand out file handles that differ from the real ones. */
function patchOpened(t: Test, change: (handle: FileHandle) => void): void {
  const { open } = promises
  patchPromises(t, {
    open: async (...parameters: Parameters<typeof open>) => {
      const handle = await open(...parameters)
      change(handle)
      return handle
    },
  })
}

t.test('appears when it is committed, and not before', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'out')
  const file = await written(path, 'new')
  t.equal(existsSync(path), false)
  const [temporary = ''] = readdirSync(folder)
  t.match(temporary, /^\..*\.part$/, 'it lies beside the target, hidden')
  await file.commit(false)
  t.same(readdirSync(folder), ['out'])
  t.equal(readFileSync(path, 'utf8'), 'new')
  await file.discard()
  t.equal(readFileSync(path, 'utf8'), 'new', 'discarding does nothing any more')
})

t.test('disappears when it is discarded, once or twice', async (t) => {
  const folder = t.testdir({ out: 'old' })
  const file = await written(join(folder, 'out'), 'new', { force: true })
  await file.discard()
  await file.discard()
  t.same(readdirSync(folder), ['out'])
  t.equal(readFileSync(join(folder, 'out'), 'utf8'), 'old')
  if (cannotCount === false) t.same(openDescriptors(folder), [])
})

t.test('replaces an existing file with force, in one step', async (t) => {
  const folder = t.testdir({ out: 'old and longer' })
  const path = join(folder, 'out')
  const file = await written(path, 'new', { force: true })
  t.equal(readFileSync(path, 'utf8'), 'old and longer')
  await file.commit(false)
  t.equal(readFileSync(path, 'utf8'), 'new')
  t.same(leftOvers(folder), [])
})

t.test('refuses to replace what came into being meanwhile, whatever it is', async (t) => {
  for (const make of [
    (path: string): void => writeFileSync(path, 'theirs'),
    (path: string): void => mkdirSync(path),
    (path: string): void => symlinkSync('nowhere', path),
  ]) {
    const folder = t.testdir({})
    const path = join(folder, 'out')
    const file = await written(path, 'ours')
    make(path)
    const error = await rejection(t, file.commit(false))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_EXISTS', { layer: path, field: 'force' })
    await file.discard()
    t.same(readdirSync(folder), ['out'])
  }
})

t.test('lets two write at once: each has a file of its own, the first to end wins', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'out')
  const [first, second] = await Promise.all([written(path, 'first'), written(path, 'second')])
  t.equal(leftOvers(folder).length, 2)
  await second.commit(false)
  const error = await rejection(t, first.commit(false))
  expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_EXISTS')
  await first.discard()
  t.equal(readFileSync(path, 'utf8'), 'second')
  t.same(leftOvers(folder), [])
})

t.test('has the permissions of the file that it replaces, and never more of them', async (t) => {
  const folder = t.testdir({ out: 'old' })
  const path = join(folder, 'out')
  const umask = process.umask(0o022)
  t.teardown(() => process.umask(umask))
  for (const mode of [0o600, 0o444, 0o666, 0o751]) {
    chmodSync(path, mode)
    let before = -1
    await patchHandles(
      t,
      'chmod',
      (original) =>
        async function (...parameters) {
          before = (await this.stat()).mode & 0o777
          return original.apply(this, parameters)
        },
    )
    const file = await AtomicFile.create(path, { force: true, mode: statSync(path).mode })
    await file.handle.write('new')
    await file.commit(false)
    t.equal(statSync(path).mode & 0o7777, mode, `0${mode.toString(8)} is kept`)
    t.not(before, -1)
    t.equal(before & ~mode, 0, 'others could not open it meanwhile')
  }
})

t.test('has the permissions that the umask leaves if it is new', async (t) => {
  const path = join(t.testdir(), 'out')
  const umask = process.umask(0o027)
  t.teardown(() => process.umask(umask))
  await (await written(path, 'new')).commit(false)
  t.equal(statSync(path).mode & 0o777, 0o640)
})

t.test('is flushed with its folder if that is asked for, and only then', async (t) => {
  for (const isSynced of [true, false]) {
    const path = join(t.testdir(), 'out')
    const synced: string[] = []
    await patchHandles(
      t,
      'sync',
      (original) =>
        async function (...parameters) {
          synced.push((await this.stat()).isDirectory() ? 'folder' : existsSync(path) ? 'late' : 'file')
          return original.apply(this, parameters)
        },
    )
    await (await written(path, 'new')).commit(isSynced)
    t.same(synced, isSynced ? ['file', 'folder'] : [])
    t.equal(readFileSync(path, 'utf8'), 'new')
    if (cannotCount === false) t.same(openDescriptors(dirname(path)), [])
  }
})

for (const what of ['sync', 'close'] as const) {
  t.test(`fails and leaves nothing when it cannot ${what}`, async (t) => {
    const folder = t.testdir({ out: 'old' })
    const path = join(folder, 'out')
    const cause = systemError('EIO')
    patchOpened(t, (handle) => {
      const close = handle.close.bind(handle)
      handle[what] = async () => {
        if (what === 'close') await close()
        throw cause
      }
    })
    const file = await written(path, 'new', { force: true })
    const error = await rejection(t, file.commit(true))
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: path, cause })
    await file.discard()
    t.equal(readFileSync(path, 'utf8'), 'old')
    t.same(leftOvers(folder), [])
    if (cannotCount === false) t.same(openDescriptors(folder), [])
  })
}

t.test('says so when its folder cannot be flushed', async (t) => {
  const path = join(t.testdir(), 'out')
  const cause = systemError('EIO')
  await patchHandles(
    t,
    'sync',
    (original) =>
      async function (...parameters) {
        if ((await this.stat()).isDirectory()) throw cause
        return original.apply(this, parameters)
      },
  )
  const file = await written(path, 'new')
  const error = await rejection(t, file.commit(true))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: path, cause })
  await file.discard()
  t.same(leftOvers(dirname(path)), [])
})

t.test('is renamed where there are no hard links', async (t) => {
  const path = join(t.testdir(), 'out')
  patchPromises(t, { link: () => Promise.reject(systemError('EPERM')) })
  const file = await written(path, 'new')
  await file.commit(false)
  t.same(readdirSync(dirname(path)), [basename(path)])
  t.equal(readFileSync(path, 'utf8'), 'new')

  const other = await written(path, 'newer')
  const error = await rejection(t, other.commit(false))
  expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_EXISTS', { layer: path })
  await other.discard()
  t.equal(readFileSync(path, 'utf8'), 'new')
})

t.test('fails when the file cannot get its name', async (t) => {
  const folder = t.testdir({ out: {} })
  const path = join(folder, 'out')
  const file = await written(path, 'new', { force: true })
  const error = await rejection(t, file.commit(false))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: path })
  t.equal(causeCode(error), 'EISDIR')
  await file.discard()
  t.same(leftOvers(folder), [])
})

t.test('cannot be created where there is no folder', async (t) => {
  const folder = t.testdir({ file: '' })
  for (const [path, code] of [
    [join(folder, 'missing', 'out'), 'ENOENT'],
    [join(folder, 'file', 'out'), 'ENOTDIR'],
  ] as const) {
    const error = await rejection(t, AtomicFile.create(path, { force: false }))
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: path })
    t.equal(causeCode(error), code)
  }
})

t.test('leaves nothing when its permissions cannot be set', async (t) => {
  const folder = t.testdir({ out: 'old' })
  const path = join(folder, 'out')
  const cause = systemError('EPERM')
  await patchHandles(t, 'chmod', () => () => Promise.reject(cause))
  const error = await rejection(t, AtomicFile.create(path, { force: true, mode: 0o600 }))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: path, cause })
  t.same(readdirSync(folder), ['out'])
  if (cannotCount === false) t.same(openDescriptors(folder), [])
})
