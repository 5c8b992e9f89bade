/**
 * Backing files of the caller's choice, and which format a backing file is read as.
 */
import { writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { Qcow2Image, Qcow2SourceError, Qcow2UnsupportedError } from '../../../lib/index.js'
import { causeCode, expectError, rejection } from '../../fixtures/expect-error.js'
import { buildImage, type BuiltImage } from '../../fixtures/image-builder.js'
import { opened, readBytes, readDisk } from '../../fixtures/opened-image.js'
import { pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'

const CLUSTER = 4096
const SIZE = 4 * CLUSTER

const overlay = (format?: string, name = 'base', contents?: Uint8Array): BuiltImage =>
  buildImage({
    clusterBits: 12,
    virtualSize: SIZE,
    backingFile: {
      name,
      ...(format === undefined ? {} : { format }),
      ...(contents === undefined ? {} : { contents }),
    },
    clusters: [[1, { kind: 'data', bytes: pattern(1, CLUSTER) }]],
  })

/** What the overlay shows over a disk. */
const over = (disk: Uint8Array): Buffer => {
  const bytes = Buffer.alloc(SIZE)
  bytes.set(disk.subarray(0, SIZE))
  pattern(1, CLUSTER).copy(bytes, CLUSTER)
  return bytes
}

const inner = buildImage({
  clusterBits: 9,
  virtualSize: SIZE,
  clusters: [[0, { kind: 'data', bytes: pattern(7, 512) }]],
})

t.test('a raw base that begins like a qcow2 image is read raw if that is recorded', async (t) => {
  const folder = t.testdir()
  writeFileSync(join(folder, 'base'), inner.bytes)
  for (const format of ['raw', 'file', 'host_device']) {
    writeFileSync(join(folder, 'top'), overlay(format).bytes)
    const image = await opened(t, join(folder, 'top'))
    t.ok((await readBytes(image)).equals(over(inner.bytes)), format)
    t.strictSame(image.warnings, [])
    t.equal(image.backingChain[1]?.format, 'raw')
  }
  writeFileSync(join(folder, 'top'), overlay('qcow2').bytes)
  const image = await opened(t, join(folder, 'top'))
  t.ok((await readBytes(image)).equals(over(inner.guest)), 'qcow2')
  t.strictSame(image.warnings, [])
})

t.test('a format that is not recorded is looked up, with a warning', async (t) => {
  const folder = t.testdir()
  const raw = pattern(3, SIZE - 100)
  for (const format of [undefined, '', '\0raw']) {
    writeFileSync(join(folder, 'top'), overlay(format).bytes)
    for (const [bytes, expected, found] of [
      [inner.bytes, inner.guest, 'qcow2'],
      [raw, raw, 'raw'],
      [Buffer.alloc(0), Buffer.alloc(0), 'raw'],
      [Buffer.from('QFI'), Buffer.from('QFI'), 'raw'],
    ] as const) {
      writeFileSync(join(folder, 'base'), bytes)
      const image = await opened(t, join(folder, 'top'))
      t.ok((await readBytes(image)).equals(over(expected)), found)
      t.strictSame(
        image.warnings.map(({ code, layer }) => [code, layer]),
        [['WARN_QCOW2_BACKING_FORMAT_PROBED', join(folder, 'top')]],
      )
      t.match(image.warnings[0]?.message, new RegExp(`base" is read as ${found}$`))
    }
  }
})

t.test('the option backingFormat wins over what is recorded, and over the looks of the file', async (t) => {
  for (const recorded of [undefined, 'raw', 'qcow2', 'vmdk']) {
    const { bytes } = overlay(recorded)
    const read = async (backingFormat: 'raw' | 'qcow2'): Promise<Buffer> => {
      const image = await opened(t, bytes, { backingFile: inner.bytes, backingFormat })
      t.strictSame(image.warnings, [])
      return readBytes(image)
    }
    t.ok((await read('raw')).equals(over(inner.bytes)))
    t.ok((await read('qcow2')).equals(over(inner.guest)))
  }
})

t.test('the option backingFormat is about the image, not about the layers below it', async (t) => {
  const folder = t.testdir()
  writeFileSync(join(folder, 'base'), pattern(3, SIZE))
  writeFileSync(join(folder, 'middle'), overlay('raw').bytes)
  writeFileSync(join(folder, 'top'), overlay('raw', 'middle').bytes)
  const image = await opened(t, join(folder, 'top'), { backingFormat: 'qcow2' })
  t.strictSame(
    image.backingChain.map(({ format }) => format),
    ['qcow2', 'qcow2', 'raw'],
  )
  t.ok((await readBytes(image)).equals(over(pattern(3, SIZE))))
})

t.test('refuses other formats by name, without opening the file', async (t) => {
  for (const format of ['vmdk', 'vdi', 'qcow', 'QCOW2', 'raw ', 'luks', 'host\u001b[31m']) {
    const top = overlay(format, 'missing')
    const options = { references: 'any', backingFile: undefined } as const
    const path = join(t.testdir(), 'top')
    writeFileSync(path, top.bytes)
    const error = await rejection(t, Qcow2Image.open(path, options))
    expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_BACKING_FORMAT', {
      layer: path,
      field: 'backingFormat',
      actual: format,
    })
    t.match((error as Error).message, /"raw" and "qcow2" are read$/)
  }
  const option = { backingFile: inner.bytes, backingFormat: 'vmdk' as 'raw' }
  const error = await rejection(t, Qcow2Image.open(overlay().bytes, option))
  expectError(t, error, Qcow2UnsupportedError, 'ERR_QCOW2_UNSUPPORTED_BACKING_FORMAT', { actual: 'vmdk' })
})

t.test('takes any kind of input as backing file, whatever the policy, and closes what is its own', async (t) => {
  const folder = t.testdir({ images: {}, elsewhere: {} })
  const path = join(folder, 'elsewhere', 'disk')
  writeFileSync(path, inner.bytes)
  const handle = await open(path)
  t.teardown(() => handle.close())
  const source = new RecordingSource(inner.bytes)
  const top = join(folder, 'images', 'top')
  for (const recorded of ['missing', '/etc/passwd', 'nbd://localhost/x', undefined]) {
    const { bytes } =
      recorded === undefined
        ? buildImage({
            clusterBits: 12,
            virtualSize: SIZE,
            clusters: [[1, { kind: 'data', bytes: pattern(1, CLUSTER) }]],
          })
        : overlay('qcow2', recorded)
    writeFileSync(top, bytes)
    for (const backingFile of [path, relative(process.cwd(), path), pathToFileURL(path), inner.bytes, handle]) {
      for (const references of ['same-directory', 'none'] as const) {
        const disk = await readDisk(top, { backingFile, backingFormat: 'qcow2', references })
        if (!disk.equals(over(inner.guest))) t.fail(`${recorded} ${references}`)
      }
    }
  }
  t.ok((await readDisk(top, { backingFile: source, backingFormat: 'qcow2' })).equals(over(inner.guest)))
  t.strictSame([source.closeCount, source.readsAfterClose], [1, 0])
  t.equal((await handle.stat()).size, inner.bytes.length, 'the handle is open')
})

t.test('backingFile: null shows what the image itself stores', async (t) => {
  const top = overlay('qcow2', 'nbd://localhost/x')
  for (const references of ['same-directory', 'any', 'none'] as const) {
    const image = await opened(t, top.bytes, { backingFile: null, references })
    t.equal(image.backingChain.length, 1)
    t.ok((await readBytes(image)).equals(over(Buffer.alloc(0))))
  }
})

t.test('what a backing file of the caller names itself is subject to the policy', async (t) => {
  const folder = t.testdir({ images: {}, elsewhere: {} })
  writeFileSync(join(folder, 'elsewhere', 'base'), pattern(3, SIZE))
  writeFileSync(join(folder, 'elsewhere', 'middle'), overlay('raw').bytes)
  writeFileSync(join(folder, 'images', 'top'), overlay('qcow2').bytes)
  const backingFile = join(folder, 'elsewhere', 'middle')
  for (const input of [join(folder, 'images', 'top'), overlay('qcow2').bytes]) {
    await t.rejects(readDisk(input, { backingFile }), { code: 'ERR_QCOW2_REFERENCE_REFUSED' })
    t.ok((await readDisk(input, { backingFile, references: 'any' })).equals(over(pattern(3, SIZE))))
  }
})

t.test('says which backing file is missing', async (t) => {
  const folder = t.testdir()
  writeFileSync(join(folder, 'top'), overlay('raw').bytes)
  const error = await rejection(t, Qcow2Image.open(join(folder, 'top')))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED', { layer: join(folder, 'base') })
  t.match(
    (error as Error).message,
    `cannot be opened as the backing file of ${JSON.stringify(join(folder, 'top'))}: ENOENT`,
  )
  t.equal(causeCode(error), 'ENOENT')
})
