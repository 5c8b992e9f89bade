/**
 * References that a function of the caller decides about, and images that are named in other ways than by a plain path.
 */
import { realpathSync, symlinkSync, writeFileSync } from 'node:fs'
import { realpath, stat } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import t, { type Test } from 'tap'
import { convert, Qcow2AccessError, Qcow2Image, Qcow2SourceError, type Qcow2Reference } from '../../../lib/index.js'
import { causeCode, expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { opened, readBytes, readDisk } from '../../fixtures/opened-image.js'
import { patchPromises, systemError } from '../../fixtures/patched-fs.js'
import { pattern } from '../../fixtures/patterns.js'

const noLinks = process.platform === 'win32' ? 'symbolic links need a privilege on Windows' : false
const CONTENT = pattern(1, 512)

const naming = (name: string, format = 'raw'): Buffer =>
  buildImage({ clusterBits: 9, virtualSize: 512, backingFile: { name, format } }).bytes

t.test('asks the function about each reference, in order, and opens what it allows', async (t) => {
  const root = realpathSync(t.testdir({ a: {}, b: {} }))
  const [top, middle] = [join(root, 'a', 'top'), join(root, 'b', 'middle')]
  const cluster = { kind: 'data', bytes: CONTENT } as const
  writeFileSync(top, naming('../b/middle', 'qcow2'))
  writeFileSync(
    middle,
    buildImage({
      clusterBits: 9,
      virtualSize: 512,
      dataFile: { name: 'file:middle.data' },
      backingFile: { name: join(root, 'base'), format: 'raw' },
      clusters: [[0, cluster]],
    }).bytes,
  )
  writeFileSync(join(root, 'b', 'middle.data'), CONTENT)
  writeFileSync(join(root, 'base'), '')
  const expected: Qcow2Reference[] = [
    { kind: 'backing-file', name: '../b/middle', path: middle, image: top, depth: 0 },
    { kind: 'data-file', name: 'file:middle.data', path: join(root, 'b', 'middle.data'), image: middle, depth: 1 },
    { kind: 'backing-file', name: join(root, 'base'), path: join(root, 'base'), image: middle, depth: 1 },
  ]
  for (const answer of [true, Promise.resolve(true)]) {
    const asked: Qcow2Reference[] = []
    const references = (reference: Qcow2Reference): boolean | Promise<boolean> => {
      asked.push(reference)
      return answer
    }
    t.ok((await readDisk(top, { references })).equals(CONTENT))
    t.strictSame(asked, expected)
  }
})

t.test('opens nothing that the function does not allow', async (t) => {
  const root = realpathSync(t.testdir({ base: '' }))
  const top = join(root, 'top')
  writeFileSync(top, naming('base'))
  const answers: ((reference: Qcow2Reference) => boolean | Promise<boolean>)[] = [
    () => false,
    async () => false,
    (() => undefined) as unknown as () => boolean,
    (() => Promise.resolve(null)) as unknown as () => boolean,
  ]
  for (const references of answers) {
    const error = await rejection(t, Qcow2Image.open(top, { references }))
    expectError(t, error, Qcow2AccessError, 'ERR_QCOW2_REFERENCE_REFUSED', {
      layer: top,
      field: 'backingFile',
      actual: 'base',
    })
    t.match((error as Error).message, /because of the references function; references: 'any' would allow it$/)
    if (cannotCount === false) t.strictSame(openDescriptors(root), [], 'nothing is left open')
  }
})

t.test('passes on what the function throws, and closes the image', async (t) => {
  const root = realpathSync(t.testdir({ base: '' }))
  const top = join(root, 'top')
  writeFileSync(top, naming('base'))
  const reason = new Error('mine')
  for (const references of [
    () => Promise.reject(reason),
    () => {
      throw reason
    },
  ]) {
    t.equal(await rejection(t, Qcow2Image.open(top, { references })), reason)
    if (cannotCount === false) t.strictSame(openDescriptors(root), [], 'nothing is left open')
  }
})

t.test('does not ask about files that the caller names', async (t) => {
  const top = join(t.testdir(), 'top')
  writeFileSync(top, naming('missing'))
  let asked = 0
  const references = (): boolean => {
    asked += 1
    return true
  }
  t.ok((await readDisk(top, { references, backingFile: CONTENT })).equals(CONTENT))
  t.ok((await readDisk(top, { references, backingFile: null })).equals(Buffer.alloc(512)))
  t.equal(asked, 0)
})

t.test('resolves names against the folder of the image, however the image is named', { skip: noLinks }, async (t) => {
  const root = realpathSync(t.testdir({ images: { sub: {} }, other: {} }))
  const folder = join(root, 'images')
  const top = join(folder, 'top')
  writeFileSync(top, naming('sub/base'))
  writeFileSync(join(folder, 'sub', 'base'), CONTENT)
  symlinkSync(folder, join(root, 'folder-link'))
  symlinkSync('top', join(folder, 'link'))
  for (const input of [
    top,
    relative(process.cwd(), top),
    pathToFileURL(top),
    join(root, 'folder-link', 'top'),
    join(folder, 'link'),
    `${root}/other/../images/top`,
  ]) {
    t.ok((await readDisk(input)).equals(CONTENT), String(input).slice(-30))
  }

  const before = process.cwd()
  t.teardown(() => process.chdir(before))
  process.chdir(folder)
  t.ok((await readDisk('top')).equals(CONTENT), 'a bare name')
  t.ok((await readDisk('./link')).equals(CONTENT))
  process.chdir(join(folder, 'sub'))
  t.ok((await readDisk('../top')).equals(CONTENT), 'a name that goes up')
})

t.test(
  'an image behind a link: names stand where the link stands, permission where the image does',
  { skip: noLinks },
  async (t) => {
    const root = realpathSync(t.testdir({ store: {}, images: {} }))
    writeFileSync(join(root, 'store', 'top'), naming('base'))
    writeFileSync(join(root, 'store', 'base'), CONTENT)
    symlinkSync('../store/top', join(root, 'images', 'top'))
    writeFileSync(join(root, 'images', 'base'), pattern(9, 512))
    await t.rejects(Qcow2Image.open(join(root, 'images', 'top')), { code: 'ERR_QCOW2_REFERENCE_REFUSED' })
    const image = await opened(t, join(root, 'images', 'top'), { references: 'any' })
    t.ok((await readBytes(image)).equals(pattern(9, 512)))
  },
)

t.test('names of a lower layer are resolved against its own folder, within that of the image', async (t) => {
  const root = realpathSync(t.testdir({ images: { sub: {} } }))
  const folder = join(root, 'images')
  writeFileSync(join(folder, 'top'), naming('sub/middle', 'qcow2'))
  for (const [name, place] of [
    ['base', join(folder, 'sub', 'base')],
    ['../base', join(folder, 'base')],
  ] as const) {
    writeFileSync(join(folder, 'sub', 'middle'), naming(name))
    writeFileSync(place, CONTENT)
    const image = await opened(t, join(folder, 'top'))
    t.equal(image.backingChain[2]?.file, place)
    t.ok((await readBytes(image)).equals(CONTENT))
  }
  writeFileSync(join(folder, 'sub', 'middle'), naming('../../base'))
  writeFileSync(join(root, 'base'), CONTENT)
  await t.rejects(Qcow2Image.open(join(folder, 'top')), { code: 'ERR_QCOW2_REFERENCE_REFUSED' })
})

t.test('says so if the folder of the image cannot be found any more', { skip: noLinks }, async (t) => {
  const root = realpathSync(t.testdir({ images: { base: '' } }))
  const top = join(root, 'images', 'top')
  writeFileSync(top, naming('base'))
  const original = realpath
  patchPromises(t, {
    realpath: (path: string) => (path === top ? Promise.reject(systemError('ENOENT')) : original(path)),
  })
  const error = await rejection(t, Qcow2Image.open(top))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED', { layer: top })
  t.equal(causeCode(error), 'ENOENT')
  if (cannotCount === false) t.strictSame(openDescriptors(root), [], 'nothing is left open')
})

function pretendToBeOnWindows(t: Test): void {
  const platform = Object.getOwnPropertyDescriptor(process, 'platform')!
  Object.defineProperty(process, 'platform', { ...platform, value: 'win32' })
  t.teardown(() => Object.defineProperty(process, 'platform', platform))
}

t.test('on Windows a single letter before a colon is a drive, not a protocol', { skip: noLinks }, async (t) => {
  const folder = realpathSync(t.testdir())
  const top = join(folder, 'top')
  writeFileSync(top, naming('c:base'))
  writeFileSync(join(folder, 'c:base'), CONTENT)
  await t.rejects(Qcow2Image.open(top), { code: 'ERR_QCOW2_REFERENCE_REFUSED' }, 'elsewhere it is one')
  pretendToBeOnWindows(t)
  t.ok((await readDisk(top)).equals(CONTENT))
  writeFileSync(top, naming('nbd:base'))
  await t.rejects(Qcow2Image.open(top), { code: 'ERR_QCOW2_REFERENCE_REFUSED' })
})

t.test('on Windows what lies on another machine is not even looked at', async (t) => {
  const folder = t.testdir()
  pretendToBeOnWindows(t)
  const originals = { realpath, stat }
  const looked: string[] = []
  patchPromises(t, {
    realpath: (path: string) => {
      looked.push(path)
      return originals.realpath(path)
    },
    stat: (path: string, options: { bigint: true }) => {
      looked.push(path)
      return originals.stat(path, options)
    },
  })
  for (const name of [
    '\\\\server\\share\\base',
    '//server/share/base',
    'file://server/share/base',
    '\\\\.\\pipe\\base',
  ]) {
    for (const references of ['same-directory', 'any', () => true] as const) {
      const code = references === 'any' ? 'ERR_QCOW2_UNSUPPORTED_REFERENCE' : 'ERR_QCOW2_REFERENCE_REFUSED'
      await t.rejects(Qcow2Image.open(naming(name), { references }), { code, message: /is not a local file/ }, name)
    }
    // What an option replaces is compared with the output.
    await convert(naming(name), join(folder, 'out'), { backingFile: null, force: true })
  }
  t.ok(looked.length > 0)
  t.strictSame(
    looked.filter((path) => path.endsWith('base')),
    [],
  )
})
