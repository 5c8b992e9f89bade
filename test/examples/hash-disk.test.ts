/**
 * The digest of a disk that is not written: that of the raw file, printed as sha256sum prints it.
 */
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { checksumLine, hashDisk } from '../../examples/hash-disk.js'
import { expectError, rejection } from '../fixtures/expect-error.js'
import { buildImage } from '../fixtures/image-builder.js'
import { mixedDisk } from '../fixtures/mixed-disk.js'
import { oracleTest, qemuImg } from '../fixtures/qemu.js'
import { missingPrograms, start } from '../fixtures/run-command.js'
import { unpackSamples } from '../fixtures/sample-images.js'
import { Qcow2FormatError } from 'qcow2'
import { testNeeding } from '../fixtures/test-needing.js'
import { settling, turns } from '../fixtures/turns.js'

const script = fileURLToPath(new URL('../../examples/hash-disk.js', import.meta.url))
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

oracleTest('samples have the digest of what qemu-img converts', async (t) => {
  const folder = t.testdir()
  unpackSamples(folder)
  for (const name of ['sample.qcow2', 'zstd.qcow2', 'extended-l2.qcow2', 'chain/overlay.qcow2']) {
    await qemuImg(folder, 'convert', '-f', 'qcow2', '-O', 'raw', name, 'qemu.raw')
    t.equal(await hashDisk(join(folder, name)), sha256(readFileSync(join(folder, 'qemu.raw'))), name)
  }
})

t.test('disks of everything, of nothing, and of zeros of an odd length', async (t) => {
  const { bytes, guest } = mixedDisk()
  t.equal(await hashDisk(bytes), sha256(guest))
  for (const virtualSize of [0, 1, 2 ** 20, 5 * 2 ** 20 + 7]) {
    t.equal(await hashDisk(buildImage({ virtualSize }).bytes), sha256(Buffer.alloc(virtualSize)), `${virtualSize}`)
  }
})

t.test('a long run of zeros leaves others their turns', async (t) => {
  const hashing = hashDisk(buildImage({ virtualSize: 2 ** 28 }).bytes)
  const hasEnded = settling(hashing)
  await turns(50)
  t.notOk(hasEnded())
  t.equal(await hashing, 'a6d72ac7690f53be6ae46ba88506bd97302a093f7108472bd9efc3cefda06484')
})

t.test('an image that cannot be read is an error', async (t) => {
  const error = await rejection(t, hashDisk(Buffer.from('something else')))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_MAGIC')
})

testNeeding(missingPrograms('sha256sum'), 'the line is that of sha256sum, whatever the name', async (t) => {
  const cwd = t.testdir()
  for (const name of ['disk.img', ' a b', 'a\\b', 'a\nb\\', 'a\rb', 'ü']) {
    writeFileSync(join(cwd, name), 'abc')
    const { stdout } = await start('sha256sum', ['--', name], { cwd }).ended
    // Other versions than 9 leave a carriage return as it is.
    const expected = stdout.toString().replaceAll('\r', '\\r')
    const line = `${checksumLine(sha256(Buffer.from('abc')), name)}\n`
    t.equal(
      name.includes('\r') ? line.replace(/^\\/, '') : line,
      name.includes('\r') ? expected.replace(/^\\/, '') : expected,
    )
  }
})

t.test('on the command line', async (t) => {
  const { bytes, guest } = mixedDisk()
  const cwd = t.testdir({
    'a.qcow2': bytes,
    'b.qcow2': 'something else',
    'c.qcow2': buildImage({ virtualSize: 1 }).bytes,
  })
  const run = (...words: string[]): ReturnType<typeof start>['ended'] =>
    start(process.execPath, [script, ...words], { cwd }).ended
  const { code, stdout, stderr } = await run('a.qcow2', 'b.qcow2', 'c.qcow2')
  t.equal(stdout.toString(), `${sha256(guest)}  a.qcow2\n${sha256(Buffer.alloc(1))}  c.qcow2\n`)
  t.match(stderr, /^hash-disk: "b\.qcow2": .*\n$/)
  t.equal(code, 1)
  const fine = await run('a.qcow2')
  t.strictSame([fine.code, fine.stderr], [0, ''])
  const wrong = await run()
  t.equal(wrong.code, 1)
  t.match(wrong.stderr, /^hash-disk: usage: .*\n$/)
})
