/**
 * Chains that come back to themselves or do not end: refused, with everything closed.
 */
import { linkSync, symlinkSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Qcow2FormatError, Qcow2Image, type Qcow2OpenOptions } from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { readDisk } from '../../fixtures/opened-image.js'
import { pattern } from '../../fixtures/patterns.js'
import { posingDevice } from '../../fixtures/posing-device.js'

const noLinks = process.platform === 'win32' ? 'symbolic links need a privilege on Windows' : false
const MOST_LAYERS = 200

const link = (name: string | undefined, format = 'qcow2'): Buffer =>
  buildImage({ clusterBits: 9, virtualSize: 512, ...(name === undefined ? {} : { backingFile: { name, format } }) })
    .bytes

/** A folder with an image for each name, which names another one. */
const chain = (t: Test, names: Readonly<Record<string, string>>): string => {
  const folder = t.testdir()
  for (const [name, backing] of Object.entries(names)) writeFileSync(join(folder, name), link(backing))
  return folder
}

const isLoop = async (
  t: Test,
  folder: string,
  { top = 'a', last = top, named = last, options = {} }: LoopCase,
): Promise<void> => {
  const error = await rejection(t, Qcow2Image.open(join(folder, top), options))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BACKING_LOOP', {
    layer: join(folder, last),
    field: 'backingFile',
    actual: join(folder, named),
  })
  t.match((error as Error).message, /is part of the chain already$/)
  if (cannotCount === false) t.strictSame(openDescriptors(folder), [], 'everything is closed')
}

interface LoopCase {
  readonly top?: string
  /** Who closes the loop, and by which name. */
  readonly last?: string
  readonly named?: string
  readonly options?: Qcow2OpenOptions
}

t.test('refuses an image that is its own backing file', async (t) => {
  await isLoop(t, chain(t, { a: 'a' }), { named: 'a' })
})

t.test('refuses a block device that comes again behind another node of it', async (t) => {
  const folder = chain(t, { a: 'node', node: 'again', again: 'missing' })
  for (const name of ['node', 'again']) posingDevice(t, join(folder, name), { number: 5n })
  await isLoop(t, folder, { last: 'node', named: 'again' })
})

t.test('refuses it by a roundabout name, and whatever the policy', async (t) => {
  for (const references of ['same-directory', 'any', () => true] as const) {
    await isLoop(t, chain(t, { a: './/././a' }), { named: 'a', options: { references } })
  }
})

t.test('refuses a loop of two and of five', async (t) => {
  await isLoop(t, chain(t, { a: 'b', b: 'a' }), { last: 'b', named: 'a' })
  await isLoop(t, chain(t, { a: 'b', b: 'c', c: 'd', d: 'e', e: 'b' }), { last: 'e', named: 'b' })
})

t.test('refuses a loop through a symbolic link', { skip: noLinks }, async (t) => {
  const folder = chain(t, { a: 'b' })
  symlinkSync('a', join(folder, 'b'))
  await isLoop(t, folder, { named: 'b' })
  await isLoop(t, folder, { top: 'b', last: 'b', named: 'b' })
})

t.test('refuses a loop through a hard link', async (t) => {
  const folder = chain(t, { a: 'b' })
  linkSync(join(folder, 'a'), join(folder, 'b'))
  await isLoop(t, folder, { named: 'b' })
})

t.test('refuses a loop whose last link is recorded as raw', async (t) => {
  const folder = t.testdir()
  writeFileSync(join(folder, 'a'), link('a', 'raw'))
  await isLoop(t, folder, { named: 'a' })
})

t.test('refuses a loop that begins with an open handle, or with a backing file of the caller', async (t) => {
  const folder = chain(t, { a: 'b', b: 'a' })
  const handle = await open(join(folder, 'a'))
  t.teardown(() => handle.close())
  const backingFile = join(folder, 'b')
  const error = await rejection(t, Qcow2Image.open(handle, { backingFile, references: 'any' }))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BACKING_LOOP', {
    layer: backingFile,
    actual: join(folder, 'a'),
  })
  await t.rejects(Qcow2Image.open(join(folder, 'a'), { backingFile: join(folder, 'a') }), {
    code: 'ERR_QCOW2_BACKING_LOOP',
  })
  t.ok((await handle.stat()).isFile(), 'the handle is open')
})

t.test('the same bytes in memory twice are two layers', async (t) => {
  const bytes = buildImage({ clusterBits: 9, clusters: [[0, { kind: 'data', bytes: pattern(1, 512) }]] }).bytes
  t.ok((await readDisk(bytes, { backingFile: bytes })).equals(pattern(1, 512)))
})

t.test(`opens a chain of ${MOST_LAYERS} layers and refuses one more`, async (t) => {
  const folder = t.testdir()
  for (let i = 0; i <= MOST_LAYERS; i++) {
    writeFileSync(join(folder, `${i}`), i === MOST_LAYERS ? pattern(1, 512) : link(`${i + 1}`, 'qcow2'))
  }
  writeFileSync(join(folder, `${MOST_LAYERS - 1}`), link(`${MOST_LAYERS}`, 'raw'))
  t.ok((await readDisk(join(folder, '1'))).equals(pattern(1, 512)), 'from the second on there are just enough')
  const image = await Qcow2Image.open(join(folder, '1'))
  t.equal(image.backingChain.length, MOST_LAYERS)
  await image.close()

  const error = await rejection(t, Qcow2Image.open(join(folder, '0')))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_CHAIN_TOO_DEEP', { layer: join(folder, `${MOST_LAYERS - 1}`) })
  t.match((error as Error).message, /more than 200 layers$/)
  if (cannotCount === false) t.strictSame(openDescriptors(folder), [], 'everything is closed')
})
