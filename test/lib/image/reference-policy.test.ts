/**
 * What the names in an image may lead to, by default and with each named policy, for backing files and data files alike.
 */
import { mkdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join, relative } from 'node:path'
import t, { type Test } from 'tap'
import {
  Qcow2AccessError,
  Qcow2FormatError,
  Qcow2Image,
  Qcow2SourceError,
  Qcow2UnsupportedError,
  Qcow2UsageError,
  type Qcow2Input,
} from '../../../lib/index.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { opened, readDisk } from '../../fixtures/opened-image.js'
import { pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { KINDS, naming, type Kind } from '../../fixtures/referring-image.js'

const noLinks = process.platform === 'win32' ? 'symbolic links need a privilege on Windows' : false
const CONTENT = pattern(1, 512)
const SECRET = pattern(2, 512)

const optionOf = (kind: Kind): 'backingFile' | 'dataFile' => (kind === 'backing file' ? 'backingFile' : 'dataFile')

interface Place {
  readonly root: string
  readonly folder: string
  readonly image: string
}

/** `images/` holds the image and what it may have; the rest of the folder is none of its business. */
const prepare = (t: Test): Place => {
  const root = realpathSync(t.testdir({ images: { sub: { deep: {} } }, elsewhere: {} }))
  const folder = join(root, 'images')
  for (const name of ['disk', 'sub/deep/disk', 'file', 'a b%20c', '-', '..disk']) {
    writeFileSync(join(folder, name), CONTENT)
  }
  for (const name of ['secret', 'elsewhere/secret']) writeFileSync(join(root, name), SECRET)
  return { root, folder, image: join(folder, 'image') }
}

for (const kind of KINDS) {
  t.test(`opens a ${kind} in the image's folder or below`, { skip: noLinks }, async (t) => {
    const { root, folder, image } = prepare(t)
    symlinkSync('sub/deep/disk', join(folder, 'link'))
    symlinkSync(join(folder, 'sub'), join(root, 'way-in'))
    const names = [
      ...['disk', './disk', 'sub/deep/disk', 'sub/../disk', '../images/disk', 'link', '../way-in/deep/disk'],
      ...['a b%20c', '-', '..disk', 'file:disk', 'file:sub/deep/disk', `file:${folder}/disk`, join(folder, 'disk')],
      ...['./sub//deep/disk', 'disk\0/../../secret', `${'./'.repeat(508)}.//disk`],
    ]
    for (const name of names) {
      writeFileSync(image, naming(kind, name))
      for (const references of [undefined, 'same-directory', 'any', () => true] as const) {
        if (!(await readDisk(image, { references })).equals(CONTENT)) t.fail(JSON.stringify(name))
      }
      t.pass(JSON.stringify(name.slice(-40)))
    }
    t.equal(Buffer.byteLength(names.at(-1)!), 1023, 'the longest name there is')
  })

  t.test(`refuses a ${kind} elsewhere, and opens it if any is allowed`, { skip: noLinks }, async (t) => {
    const { root, folder, image } = prepare(t)
    symlinkSync('../secret', join(folder, 'link'))
    symlinkSync(join(folder, 'link'), join(folder, 'sub', 'link-to-link'))
    symlinkSync('../elsewhere', join(folder, 'way-out'))
    mkdirSync(join(root, 'images2'))
    writeFileSync(join(root, 'images2', 'secret'), SECRET)
    const names = [
      ...['../secret', '../elsewhere/secret', join(root, 'secret'), 'link', 'sub/link-to-link', 'way-out/secret'],
      ...['sub/../../secret', './../secret', 'file:../secret', `file:${root}/secret`, `file://${root}/secret`],
      ...['../images2/secret', `/proc/self/cwd/${relative(process.cwd(), join(root, 'secret'))}`],
    ].filter((name) => !name.startsWith('/proc') || process.platform === 'linux')
    for (const name of names) {
      writeFileSync(image, naming(kind, name))
      for (const references of [undefined, 'same-directory'] as const) {
        const error = await rejection(t, Qcow2Image.open(image, { references }))
        expectError(t, error, Qcow2AccessError, 'ERR_QCOW2_REFERENCE_REFUSED', { field: 'references' })
        t.match((error as Error).message, /references: 'any' would allow it$/, name)
      }
      if (cannotCount === false) t.strictSame(openDescriptors(root), [], 'nothing is left open')
      t.ok((await readDisk(image, { references: 'any' })).equals(SECRET), `any: ${name}`)
    }
  })

  t.test(`does not say whether a ${kind} elsewhere exists`, async (t) => {
    const { image } = prepare(t)
    const messages = ['../secret', '../nothing'].map(async (name) => {
      const path = `${image}${name.length}`
      writeFileSync(path, naming(kind, name))
      const error = await rejection(t, Qcow2Image.open(path))
      expectError(t, error, Qcow2AccessError, 'ERR_QCOW2_REFERENCE_REFUSED')
      return (error as Error).message.replaceAll(/secret|nothing/g, 'X')
    })
    const [secret, nothing] = await Promise.all(messages)
    t.equal(secret, nothing)
  })

  t.test(`refuses a ${kind} that is no local file`, async (t) => {
    const { image } = prepare(t)
    const names = [
      ...['nbd://localhost/disk', 'nbd:localhost:10809', 'http://localhost/disk', 'https://localhost/', 'ssh://host/x'],
      ...['json:{"driver":"file","filename":"disk"}', 'json:', 'fat:/etc', 'FILE:disk', 'c:disk', ':disk', 'a b:c'],
      ...['host_device:/dev/sda', 'nbd+unix:///?socket=x', 'x\u001b[31m:disk\r\n'],
    ]
    for (const name of names) {
      writeFileSync(image, naming(kind, name))
      for (const references of [undefined, 'same-directory', () => true] as const) {
        const error = await rejection(t, Qcow2Image.open(image, { references }))
        expectError(t, error, Qcow2AccessError, 'ERR_QCOW2_REFERENCE_REFUSED', {
          layer: image,
          field: optionOf(kind),
          actual: name,
        })
        t.match((error as Error).message, new RegExp(`is not a local file; .* option ${optionOf(kind)}$`))
      }
      const error = await rejection(t, Qcow2Image.open(image, { references: 'any' }))
      expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_REFERENCE', {
        layer: image,
        field: optionOf(kind),
        actual: name,
      })
    }
  })

  t.test(`refuses the name of a ${kind} that is not UTF-8, or that is too long for a file`, async (t) => {
    const { image, folder } = prepare(t)
    for (const bytes of [[0xff], [0x64, 0x80], [0xc0, 0xaf], [0xed, 0xa0, 0x80]]) {
      writeFileSync(image, naming(kind, Uint8Array.from(bytes)))
      for (const references of ['same-directory', 'any', () => true] as const) {
        const error = await rejection(t, Qcow2Image.open(image, { references }))
        expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_REFERENCE_NAME', {
          layer: image,
          field: optionOf(kind),
        })
      }
    }
    writeFileSync(image, naming(kind, 'n'.repeat(1023)))
    for (const references of ['same-directory', 'any'] as const) {
      const error = await rejection(t, Qcow2Image.open(image, { references }))
      expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED', { layer: join(folder, 'n'.repeat(1023)) })
    }
  })

  t.test(`refuses a ${kind} that is no file, wherever it lies`, { skip: noLinks }, async (t) => {
    const { image } = prepare(t)
    for (const [name, references] of [
      ['sub', 'same-directory'],
      ['sub', 'any'],
      ['/dev/null', 'any'],
      ['/dev/null', () => true],
    ] as const) {
      writeFileSync(image, naming(kind, name))
      const error = await rejection(t, Qcow2Image.open(image, { references }))
      expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_NOT_A_FILE')
    }
  })

  t.test(`with none, an image that names a ${kind} can be inspected, but not read`, async (t) => {
    const { image } = prepare(t)
    for (const name of ['disk', '../secret', 'nbd://localhost/x', 'json:{}', 'x\u202e', Uint8Array.from([0xff])]) {
      const bytes = naming(kind, name)
      writeFileSync(image, bytes)
      for (const input of [image, bytes] satisfies Qcow2Input[]) {
        const found = await opened(t, input, { references: 'none' })
        t.equal(found.virtualSize, 512)
        t.equal(found[optionOf(kind)], typeof name === 'string' ? name : '\ufffd')
        t.equal(found.backingChain.length, 1)
        const attempts = [found.read(Buffer.alloc(1), 0), found.extents().next()]
        for (const attempt of attempts) {
          const error = await rejection(t, attempt)
          expectError(t, error, Qcow2AccessError, 'ERR_QCOW2_REFERENCE_REFUSED', { field: optionOf(kind) })
          t.match(
            (error as Error).message,
            /is not opened because of references: 'none'; references: 'same-directory' or references: 'any' would/,
          )
        }
      }
    }
  })

  t.test(`refuses a relative ${kind} of an image without a folder`, async (t) => {
    const { image, folder } = prepare(t)
    const bytes = naming(kind, 'disk')
    writeFileSync(image, bytes)
    const handle = await open(image)
    t.teardown(() => handle.close())
    for (const input of [bytes, handle, new RecordingSource(bytes)]) {
      for (const references of ['same-directory', 'any', () => true] as const) {
        const error = await rejection(t, Qcow2Image.open(input, { references }))
        expectError(t, error, Qcow2AccessError, 'ERR_QCOW2_REFERENCE_REFUSED', {
          field: optionOf(kind),
          actual: 'disk',
        })
        t.match((error as Error).message, new RegExp(`has no folder; name it with the option ${optionOf(kind)}$`))
      }
    }
    const absolute = naming(kind, join(folder, 'disk'))
    t.ok((await readDisk(absolute, { references: 'any' })).equals(CONTENT), 'an absolute name needs no folder')
    t.ok((await readDisk(absolute, { references: () => true })).equals(CONTENT))
    const error = await rejection(t, Qcow2Image.open(absolute))
    expectError(t, error, Qcow2AccessError, 'ERR_QCOW2_REFERENCE_REFUSED', { field: optionOf(kind) })
  })
}

t.test('refuses a policy that it does not know', async (t) => {
  for (const references of ['all', '', 'ANY', null, 1, true, {}, ['any']]) {
    const error = await rejection(t, Qcow2Image.open(naming('backing file', 'x'), { references: references as 'any' }))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'references', actual: references })
    t.match((error as Error).message, /allowed are "same-directory", "any", "none" and a function$/)
  }
})
