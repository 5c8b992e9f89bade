// Reads that fail: for every one of them the stream ends with that error, after chunks that are right, and closes.
import { join } from 'node:path'
import t from 'tap'
import {
  createReadStream,
  Qcow2AccessError,
  Qcow2FormatError,
  Qcow2SourceError,
  type Qcow2Input,
  type Qcow2ReadStreamOptions,
} from '../../../lib/index.js'
import { bytesOf, closing } from '../../fixtures/consume.js'
import { expectError } from '../../fixtures/expect-error.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { dataDisk, mixedDisk } from '../../fixtures/mixed-disk.js'
import { systemError } from '../../fixtures/patched-fs.js'
import { text } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { Gate, turns, until } from '../../fixtures/turns.js'

const disk = mixedDisk()
const { guest } = disk

/** Everything that came before the end, and the errors. */
async function outcome(
  input: Qcow2Input,
  options: Qcow2ReadStreamOptions = {},
): Promise<{ bytes: Buffer; errors: unknown[]; hasEnded: boolean }> {
  const chunks: Buffer[] = []
  let hasEnded = false
  const stream = createReadStream(input, options)
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  stream.on('end', () => (hasEnded = true))
  const errors = await closing(stream)
  return { bytes: Buffer.concat(chunks), errors, hasEnded }
}

t.test('fails with the error of the n-th read, for every n', async (t) => {
  const whole = new RecordingSource(disk.bytes)
  t.ok((await bytesOf(createReadStream(whole))).equals(guest))
  for (let n = 1; n <= whole.reads.length; n++) {
    const cause = systemError('EIO')
    const source = new RecordingSource(disk.bytes, {
      beforeRead: (index) => {
        if (index === n) throw cause
      },
    })
    const { bytes, errors, hasEnded } = await outcome(source)
    t.equal(errors.length, 1, `read ${n} of ${whole.reads.length}: one error`)
    expectError(t, errors[0], Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', {
      layer: 'image from a source',
      hostOffset: source.reads[n - 1]?.offset,
      cause,
    })
    t.equal(hasEnded, false)
    t.ok(guest.subarray(0, bytes.length).equals(bytes), 'what was emitted before is right')
    t.same({ closed: source.closeCount, late: source.readsAfterClose }, { closed: 1, late: 0 })
  }
})

t.test('emits all that lies before the read that failed', async (t) => {
  const large = dataDisk(64)
  const bad = large.layout.clusterOffsets.get(40)
  const source = new RecordingSource(large.bytes, {
    beforeRead: (_n, offset, length) => {
      if (bad !== undefined && offset <= bad && bad < offset + length) throw systemError('EIO')
    },
  })
  const { bytes, errors } = await outcome(source)
  t.equal(errors.length, 1)
  t.ok(bytes.length >= 2 * 2 ** 20 && bytes.length <= 40 * 65_536, `${bytes.length} bytes came`)
  t.ok(large.guest.subarray(0, bytes.length).equals(bytes))
})

t.test('waits for the reads that go on beside the one that failed', async (t) => {
  const large = dataDisk(256)
  const source: RecordingSource = new RecordingSource(large.bytes, {
    beforeRead: async (n) => {
      if (n === 4) throw systemError('EIO')
      await turns(20)
    },
  })
  const { errors } = await outcome(source)
  t.equal(errors.length, 1)
  t.same({ underWay: source.underWay, late: source.readsAfterClose }, { underWay: 0, late: 0 })
})

t.test('reads on where a source gives less than was asked for', async (t) => {
  for (const mostBytes of [1000, 65_536]) {
    t.ok((await bytesOf(createReadStream(new RecordingSource(disk.bytes, { mostBytes })))).equals(guest))
  }
})

t.test('fails when closing its source fails, but not before all was emitted', async (t) => {
  const cause = systemError('EIO')
  const source = new RecordingSource(disk.bytes, {
    beforeClose: () => {
      throw cause
    },
  })
  const { bytes, errors } = await outcome(source)
  t.ok(bytes.equals(guest))
  t.equal(errors.length, 1)
  expectError(t, errors[0], Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { layer: 'image from a source', cause })
})

t.test('says nothing of a read that fails after it was destroyed', async (t) => {
  const whole = new RecordingSource(disk.bytes)
  await bytesOf(createReadStream(whole))
  for (let n = 1; n <= whole.reads.length; n++) {
    const gate = new Gate()
    const source = new RecordingSource(disk.bytes, { beforeRead: (index) => (index === n ? gate.opened : undefined) })
    const stream = createReadStream(source).resume()
    await until(() => source.reads.length >= n)
    stream.destroy()
    await turns(5)
    gate.fail(systemError('EIO'))
    t.same(await closing(stream), [], `read ${n}`)
    t.equal(source.closeCount, 1)
  }
})

t.test('prefers the error that it was destroyed with to that of closing', async (t) => {
  const source = new RecordingSource(disk.bytes, {
    beforeClose: () => {
      throw systemError('EIO')
    },
  })
  const stream = createReadStream(source)
  const reason = new Error('mine')
  stream.on('open', () => stream.destroy(reason))
  const errors = await closing(stream)
  t.equal(errors.length, 1)
  t.equal(errors[0], reason)
})

t.test('emits the error of opening, and neither open nor ready', async (t) => {
  const images: [string, Qcow2Input, Qcow2ReadStreamOptions, Parameters<typeof expectError>[2], string][] = [
    ['nothing there', join(t.testdir(), 'missing'), {}, Qcow2SourceError, 'ERR_QCOW2_OPEN_FAILED'],
    ['no image', Buffer.alloc(1000, 1), {}, Qcow2FormatError, 'ERR_QCOW2_BAD_MAGIC'],
    [
      'a backing file that may not be opened',
      buildImage({ backingFile: { name: '/etc/hostname', format: 'raw' } }).bytes,
      { references: 'none' },
      Qcow2AccessError,
      'ERR_QCOW2_REFERENCE_REFUSED',
    ],
  ]
  for (const [name, input, options, errorClass, code] of images) {
    const stream = createReadStream(input, options)
    stream.on('open', () => t.fail('no open'))
    stream.on('ready', () => t.fail('no ready'))
    const errors = await closing(stream.resume())
    t.equal(errors.length, 1, name)
    expectError(t, errors[0], errorClass, code as 'ERR_QCOW2_BAD_MAGIC')
    t.equal(stream.virtualSize, undefined)
  }
})

t.test('closes the source of an image that cannot be read', async (t) => {
  const image = buildImage({ backingFile: { name: 'base', format: 'raw' } })
  const source = new RecordingSource(image.bytes)
  const { errors } = await outcome(source, { references: 'none' })
  t.equal(errors.length, 1)
  t.equal(source.closeCount, 1)
})

t.test('says which cluster is damaged, after all that lies before it', async (t) => {
  const damaged = buildImage({
    clusterBits: 16,
    clusters: [
      [0, { kind: 'data', bytes: text(0, 65_536) }],
      [40, { kind: 'compressed-raw', payload: Buffer.from([0xff, 0xff, 0xff, 0xff]) }],
    ],
  })
  const { bytes, errors, hasEnded } = await outcome(damaged.bytes)
  t.equal(errors.length, 1)
  expectError(t, errors[0], Qcow2FormatError, 'ERR_QCOW2_BAD_COMPRESSED_CLUSTER', {
    layer: 'image in memory',
    guestOffset: 40 * 65_536,
    hostOffset: damaged.layout.clusterOffsets.get(40),
  })
  t.equal(hasEnded, false)
  t.ok(bytes.equals(damaged.guest.subarray(0, 40 * 65_536)))
})
