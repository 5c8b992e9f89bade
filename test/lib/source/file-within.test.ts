/**
 * Files that must lie in a folder: wherever their names lead, and whatever is swapped while they are opened.
 */
import { linkSync, mkdirSync, realpathSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Qcow2AccessError, Qcow2SourceError } from '../../../lib/errors.js'
import { openFile } from '../../../lib/source/file.js'
import { causeCode, expectError, rejection } from '../../fixtures/expect-error.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { patchPromises, systemError } from '../../fixtures/patched-fs.js'

const noLinks = process.platform === 'win32' ? 'symbolic links need a privilege on Windows' : false

/** `images/` is the folder; beside it lie things that are none of the image's business. */
const prepare = (t: Test): { root: string; within: string } => {
  const root = realpathSync(t.testdir({ images: { sub: { deep: { file: 'deep' } }, file: 'file' }, secret: 'secret' }))
  return { root, within: join(root, 'images') }
}

const content = async (path: string, within: string): Promise<string> => {
  const file = await openFile(path, { within })
  const bytes = Buffer.alloc(file.size)
  await file.read(bytes, 0)
  await file.close()
  return bytes.toString()
}

const isRefused = async (t: Test, path: string, within: string): Promise<void> => {
  const error = await rejection(t, openFile(path, { within }))
  expectError(t, error, Qcow2AccessError, 'ERR_QCOW2_REFERENCE_REFUSED', {
    layer: path,
    field: 'references',
    actual: 'same-directory',
  })
  t.match((error as Error).message, /lies outside the image's folder ".*images"; references: 'any' would allow it$/)
  if (cannotCount === false) t.strictSame(openDescriptors(join(within, '..')), [], 'nothing is left open')
}

t.test('opens what lies in the folder or below it, by any name', { skip: noLinks }, async (t) => {
  const { root, within } = prepare(t)
  writeFileSync(join(within, '..file'), 'dots')
  symlinkSync('sub/deep/file', join(within, 'link'))
  symlinkSync(join(within, 'link'), join(root, 'link-from-outside'))
  symlinkSync('images', join(root, 'folder-link'))
  for (const [path, expected] of [
    [join(within, 'file'), 'file'],
    [join(within, 'sub', 'deep', 'file'), 'deep'],
    [join(within, '..file'), 'dots'],
    [`${within}/sub/../file`, 'file'],
    [`${within}/../images/file`, 'file'],
    [join(within, 'link'), 'deep'],
    [join(root, 'link-from-outside'), 'deep'],
    [join(root, 'folder-link', 'sub', 'deep', 'file'), 'deep'],
  ] as const) {
    t.equal(await content(path, within), expected, path.slice(root.length))
  }
})

t.test('refuses what lies elsewhere, by any name', { skip: noLinks }, async (t) => {
  const { root, within } = prepare(t)
  mkdirSync(join(root, 'images-too'))
  writeFileSync(join(root, 'images-too', 'file'), 'neighbour')
  symlinkSync('../secret', join(within, 'link'))
  symlinkSync('link', join(within, 'link-to-link'))
  symlinkSync('..', join(within, 'up'))
  for (const path of [
    join(root, 'secret'),
    `${within}/../secret`,
    join(root, 'images-too', 'file'),
    join(within, 'link'),
    join(within, 'link-to-link'),
    join(within, 'up', 'secret'),
    join(within, 'up'),
    within,
    '/etc/passwd',
  ]) {
    await isRefused(t, path, within)
  }
})

t.test('opens a hard link in the folder: the file lies there as much as anywhere', async (t) => {
  const { root, within } = prepare(t)
  linkSync(join(root, 'secret'), join(within, 'hard'))
  t.equal(await content(join(within, 'hard'), within), 'secret')
})

t.test('says that a file in the folder is missing, not that it is refused', async (t) => {
  const { within } = prepare(t)
  for (const [path, code] of [
    [join(within, 'missing'), 'ENOENT'],
    [join(within, 'missing', 'and', 'deeper'), 'ENOENT'],
    [join(within, 'sub', 'missing'), 'ENOENT'],
    [join(within, 'file', 'below'), process.platform === 'win32' ? 'ENOENT' : 'ENOTDIR'],
  ] as const) {
    const error = await rejection(t, openFile(path, { within }))
    expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED', { layer: path })
    t.equal(causeCode(error), code)
  }
})

t.test('does not tell whether a file elsewhere exists', { skip: noLinks }, async (t) => {
  const { root, within } = prepare(t)
  symlinkSync('..', join(within, 'up'))
  for (const path of [
    join(root, 'missing'),
    join(root, 'missing', 'and', 'deeper'),
    join(root, 'secret', 'below'),
    join(within, 'up', 'missing'),
    join(within, 'up', 'missing', 'and', 'deeper'),
  ]) {
    await isRefused(t, path, within)
  }
})

t.test('refuses a folder inside the folder', { skip: noLinks }, async (t) => {
  const { within } = prepare(t)
  const path = join(within, 'sub')
  const error = await rejection(t, openFile(path, { within }))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_NOT_A_FILE', { layer: path })
})

// What is imported follows the replacement; this does not.
const openForReal = open

/** Replaces `open` by one that does something right before, and right after. */
const around = (t: Test, before: () => void, after: () => void = () => {}): void => {
  patchPromises(t, {
    open: async (...parameters: Parameters<typeof open>): Promise<FileHandle> => {
      before()
      const handle = await openForReal(...parameters)
      after()
      return handle
    },
  })
}

const swap = (target: string, path: string): void => {
  symlinkSync(target, `${path}.new`)
  renameSync(`${path}.new`, path)
}

t.test('refuses a file that is swapped for a link to the outside before it is opened', { skip: noLinks }, async (t) => {
  const { within } = prepare(t)
  const path = join(within, 'file')
  around(t, () => swap('../secret', path))
  await isRefused(t, path, within)
})

t.test('refuses it also if the link leads back inside when the look is taken', { skip: noLinks }, async (t) => {
  const { within } = prepare(t)
  const path = join(within, 'link')
  symlinkSync('file', path)
  around(
    t,
    () => swap('../secret', path),
    () => swap('file', path),
  )
  await isRefused(t, path, within)
})

t.test('opens a file that another one inside replaces before it is opened', { skip: noLinks }, async (t) => {
  const { within } = prepare(t)
  const path = join(within, 'file')
  around(t, () => swap('sub/deep/file', path))
  t.equal(await content(path, within), 'deep')
})

t.test('says so if nothing at all can be looked up', { skip: noLinks }, async (t) => {
  const { within } = prepare(t)
  const path = join(within, 'file')
  patchPromises(t, { realpath: () => Promise.reject(systemError('EIO')) })
  const error = await rejection(t, openFile(path, { within }))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED', { layer: path })
  t.equal(causeCode(error), 'EIO')
})
