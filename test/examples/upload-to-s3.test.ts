/**
 * The real client uploads a disk to a server that plays S3: all of it, or nothing that stays behind.
 */
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { uploadDisk } from '../../examples/upload-to-s3.js'
import { Qcow2FormatError } from 'qcow2'
import { expectError, rejection } from '../fixtures/expect-error.js'
import { buildImage } from '../fixtures/image-builder.js'
import { mixedDisk } from '../fixtures/mixed-disk.js'
import { readDisk } from '../fixtures/opened-image.js'
import { pattern } from '../fixtures/patterns.js'
import { firstDifference } from '../fixtures/qemu.js'
import { RecordingSource } from '../fixtures/recording-source.js'
import { start } from '../fixtures/run-command.js'
import { BUCKET, KEY, S3Server, type S3Options } from '../fixtures/s3-server.js'
import { sampleBytes } from '../fixtures/sample-images.js'
import { Gate, until } from '../fixtures/turns.js'

const MIB = 2 ** 20
const PART_BYTES = 300_000
const NOTHING = Buffer.from('what was there before')
const target = { bucket: BUCKET, key: KEY }
const { bytes, guest } = mixedDisk()
const partCount = Math.ceil(guest.length / PART_BYTES)

const startServer = (t: Test, options?: S3Options): ReturnType<typeof S3Server.start> =>
  S3Server.start(t, NOTHING, options)

/** Nothing of an upload is left, and the object is what it was. */
function isUndone(t: Test, { uploads, object }: S3Server): void {
  t.strictSame({ open: uploads.openCount, aborted: uploads.abortCount }, { open: 0, aborted: 1 })
  t.ok(NOTHING.equals(object.bytes))
}

t.test('the object is the disk', async (t) => {
  const { server, client } = await startServer(t)
  for (const image of [bytes, sampleBytes('sample.qcow2')]) {
    await uploadDisk(client, image, target, { partBytes: PART_BYTES })
    t.equal(firstDifference(Buffer.from(server.object.bytes), await readDisk(image)), undefined)
  }
  t.strictSame({ open: server.uploads.openCount, aborted: server.uploads.abortCount }, { open: 0, aborted: 0 })
})

t.test('parts are of 16 MiB, those of zeros too, and the last one of what is left', async (t) => {
  const virtualSize = 49 * MIB + 5
  const { bytes } = buildImage({ virtualSize, clusters: [[300, { kind: 'data', bytes: pattern(1, 65536) }]] })
  const { server, client } = await startServer(t)
  await uploadDisk(client, bytes, target)
  t.equal(firstDifference(Buffer.from(server.object.bytes), await readDisk(bytes)), undefined)
  t.strictSame(
    server.uploads.partBytes.sort((a, b) => b - a),
    [16 * MIB, 16 * MIB, 16 * MIB, MIB + 5],
  )
})

t.test('an empty disk is an empty object', async (t) => {
  const { server, client } = await startServer(t)
  await uploadDisk(client, buildImage({ virtualSize: 0 }).bytes, target)
  t.equal(server.object.bytes.length, 0)
  t.strictSame(server.uploads.partBytes, [0])
})

t.test('four parts are under way at once, and no more', async (t) => {
  const all = new Gate()
  const refusesPart = async (): Promise<boolean> => {
    if (server.uploads.underWay === 4) {
      all.open()
    }
    await all.opened
    return false
  }
  const { server, client } = await startServer(t, { refusesPart })
  await uploadDisk(client, bytes, target, { partBytes: PART_BYTES })
  t.equal(server.uploads.mostUnderWay, 4)
  t.ok(guest.equals(server.object.bytes))
})

t.test('a part that is refused ends the upload, and the others with it', async (t) => {
  const { server, client } = await startServer(t, {
    // All others would wait for good.
    refusesPart: (number) => number === 2 || new Gate<boolean>().opened,
  })
  const source = new RecordingSource(bytes)
  const failed = uploadDisk(client, source, target, { partBytes: PART_BYTES })
  await t.rejects(failed, { name: 'AccessDenied' })
  isUndone(t, server)
  t.ok(server.uploads.partBytes.length < partCount)
  t.equal(source.closeCount, 1)
  await until(() => server.uploads.underWay === 0)
})

t.test('an image that cannot be read ends the upload', async (t) => {
  const damaged = buildImage({ clusters: [[9, { kind: 'compressed-raw', payload: Buffer.alloc(9, 255) }]] }).bytes
  const { server, client } = await startServer(t)
  const error = await rejection(t, uploadDisk(client, damaged, target, { partBytes: PART_BYTES }))
  expectError(t, error, Qcow2FormatError, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER')
  isUndone(t, server)
})

t.test('a completion that is refused ends the upload', async (t) => {
  const { server, client } = await startServer(t, { refusesCompletion: true })
  await t.rejects(uploadDisk(client, bytes, target), { name: 'InvalidPart' })
  isUndone(t, server)
})

t.test('an upload that cannot be aborted is named', async (t) => {
  const { client } = await startServer(t, { refusesPart: () => true, refusesAbort: true })
  await t.rejects(uploadDisk(client, bytes, target), {
    message: 'refused: AccessDenied; and upload upload-1 could not be aborted: refused: AccessDenied',
    errors: [{ name: 'AccessDenied' }],
  })
})

t.test('a signal ends the upload with its reason', async (t) => {
  const controller = new AbortController()
  const reason = new Error('enough')
  const refusesPart = (): Promise<boolean> => {
    controller.abort(reason)
    return new Gate<boolean>().opened
  }
  const { server, client } = await startServer(t, { refusesPart })
  const { signal } = controller
  t.equal(await rejection(t, uploadDisk(client, bytes, target, { partBytes: PART_BYTES, signal })), reason)
  isUndone(t, server)
})

t.test(
  'larger disks have larger parts; one of which even those would be too many is refused before there is an upload',
  async (t) => {
    const { server, client } = await startServer(t, { refusesPart: () => true })
    await t.rejects(uploadDisk(client, buildImage({ virtualSize: 160_001 * MIB }).bytes, target), {
      name: 'AccessDenied',
    })
    t.equal(server.uploads.partBytes[0], 32 * MIB)
    const tooLarge = 10_000 * 512 * MIB + 1
    await t.rejects(uploadDisk(client, buildImage({ clusterBits: 21, virtualSize: tooLarge }).bytes, target), {
      message: `a disk of ${tooLarge} bytes: allowed are ${tooLarge - 1}, in 10000 parts`,
    })
    t.equal(server.uploads.count, 1)
  },
)

t.test('on the command line', async (t) => {
  const script = fileURLToPath(new URL('../../examples/upload-to-s3.js', import.meta.url))
  const cwd = t.testdir({ 'a.qcow2': bytes })
  const reached = new Gate()
  let isWaiting = false
  const refusesPart = (): boolean | Promise<boolean> => {
    reached.open()
    return isWaiting && new Gate<boolean>().opened
  }
  const { server } = await startServer(t, { refusesPart })
  const env = {
    AWS_ENDPOINT_URL: server.endpoint,
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'somebody',
    AWS_SECRET_ACCESS_KEY: 'a secret that opens nothing',
    // The client says on Node 20 that it will want a later one.
    NODE_NO_WARNINGS: '1',
  }
  const run = (...words: string[]): ReturnType<typeof start> =>
    start(process.execPath, [script, ...words], { cwd, env })
  const { code, stdout, stderr } = await run('a.qcow2', BUCKET, KEY).ended
  t.strictSame({ code, stdout: stdout.toString(), stderr }, { code: 0, stdout: '', stderr: '' })
  t.ok(guest.equals(server.object.bytes))

  const wrong = await run('a.qcow2', BUCKET).ended
  t.equal(wrong.code, 1)
  t.match(wrong.stderr, /^upload-to-s3: usage: .*\n$/)

  isWaiting = true
  const before = server.uploads.partBytes.length
  const { child, ended } = run('a.qcow2', BUCKET, KEY)
  await until(() => server.uploads.partBytes.length > before)
  child.kill('SIGTERM')
  const interrupted = await ended
  t.equal(interrupted.code, 1)
  t.equal(interrupted.stderr, 'upload-to-s3: interrupted by SIGTERM\n')
  t.strictSame({ open: server.uploads.openCount, aborted: server.uploads.abortCount }, { open: 0, aborted: 1 })
})
