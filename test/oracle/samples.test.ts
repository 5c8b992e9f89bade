/**
 * The committed images, made by qemu-img and converted by it: the library and the command get the same disks. Needs no
 * QEMU.
 */
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import t from 'tap'
import { convert, createReadStream, Qcow2Image } from '../../lib/index.js'
import { runCommand } from '../fixtures/run-command.js'
import { samples, unpackedPath, unpackSamples, type SampleDisk } from '../fixtures/sample-images.js'

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** The words and options that choose a disk of an image. */
const choice = ({ snapshot }: SampleDisk) => (snapshot === undefined ? {} : { snapshot })

t.test('the list is complete', async (t) => {
  t.ok(samples.images.length >= 15, `${samples.images.length} images`)
  t.match(samples.madeWith, /^qemu-img version /)
})

const folder = t.testdir({ images: {}, outputs: {} })
unpackSamples(join(folder, 'images'))

for (const [number, sample] of samples.images.entries()) {
  const { file, description, passphrase, bytes, sha256: checksum, disks } = sample
  t.test(`${file}: ${description}`, async (t) => {
    const image = unpackedPath(join(folder, 'images'), file)
    t.equal(readFileSync(image).length, bytes)
    t.equal(sha256(readFileSync(image)), checksum, 'the image itself is undamaged')
    for (const [index, disk] of disks.entries()) {
      const name = disk.snapshot ?? 'the active disk'
      const options = { ...choice(disk), passphrase }

      const ours = join(folder, 'outputs', `${number}-${index}-library.raw`)
      const result = await convert(image, ours, options)
      t.equal(result.length, disk.virtualSize, `${name}: size`)
      t.equal(sha256(readFileSync(ours)), disk.sha256, `${name}: convert`)
      if (disk.qemuRaw !== undefined) {
        // It cuts an odd size, and gives a snapshot the length of the active disk.
        const resized = Buffer.alloc(disk.qemuRaw.bytes)
        readFileSync(ours).copy(resized)
        t.equal(sha256(resized), disk.qemuRaw.sha256, `${name}: with the length that qemu-img gives it`)
      }
      t.equal(sha256(await buffer(createReadStream(image, options))), disk.sha256, `${name}: createReadStream`)

      await using opened = await Qcow2Image.open(image, options)
      const whole = Buffer.alloc(opened.virtualSize + 1, 0xff)
      t.equal(await opened.read(whole, 0), disk.virtualSize)
      t.equal(sha256(whole.subarray(0, -1)), disk.sha256, `${name}: read`)

      const words = disk.snapshot === undefined ? [] : ['--snapshot', disk.snapshot]
      if (passphrase !== undefined) {
        writeFileSync(join(folder, 'passphrase'), passphrase)
        // Quiet: that AES cannot tell a wrong one is a warning.
        words.push('--quiet', '--passphrase-file', join(folder, 'passphrase'))
      }
      const theirs = join(folder, 'outputs', `${number}-${index}-command.raw`)
      const { code, stderr } = await runCommand([...words, image, theirs])
      t.equal(stderr, '')
      t.equal(code, 0)
      t.equal(sha256(readFileSync(theirs)), disk.sha256, `${name}: the command`)
    }
  })
}
