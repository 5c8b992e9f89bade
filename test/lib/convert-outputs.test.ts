// Where a conversion may write: not over what exists unasked, never over what it reads from, in order where it must.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  createReadStream,
  existsSync,
  fstatSync,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import t, { type Test } from 'tap'
import { convert, Qcow2SinkError, Qcow2UsageError, type Qcow2Output } from '../../lib/index.js'
import { bytesOf } from '../fixtures/consume.js'
import { causeCode, expectError, rejection } from '../fixtures/expect-error.js'
import { buildImage } from '../fixtures/image-builder.js'
import { mixedDisk } from '../fixtures/mixed-disk.js'
import { pattern, text } from '../fixtures/patterns.js'
import { RecordingSource } from '../fixtures/recording-source.js'

const disk = mixedDisk()
const { guest } = disk
const library = new URL('../../lib/index.js', import.meta.url).href
const noTerminal = existsSync('/dev/ptmx') ? false : 'there is no /dev/ptmx'
const noFifo = process.platform === 'win32' ? 'Windows has no FIFOs' : false

t.test('refuses an output that exists before it reads anything, and leaves it as it is', async (t) => {
  const path = join(t.testdir({ out: 'old' }), 'out')
  const source = new RecordingSource(disk.bytes)
  for (const options of [{}, { force: false }, { force: undefined }]) {
    const error = await rejection(t, convert(source, path, options))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_EXISTS', { layer: path, field: 'force' })
  }
  t.equal(source.reads.length, 0)
  t.equal(readFileSync(path, 'utf8'), 'old')
})

t.test('replaces an output with force, once the new one is complete', async (t) => {
  const folder = t.testdir({ out: 'old' })
  const path = join(folder, 'out')
  let before = ''
  await convert(disk.bytes, path, { force: true, onProgress: () => (before = readFileSync(path, 'utf8')) })
  t.equal(before, 'old', 'it was there until the end')
  t.ok(readFileSync(path).equals(guest))
  t.same(readdirSync(folder), ['out'])
})

t.test('keeps the permissions of the file that it replaces', async (t) => {
  const path = join(t.testdir({ out: 'old' }), 'out')
  for (const mode of [0o600, 0o640]) {
    chmodSync(path, mode)
    await convert(disk.bytes, path, { force: true })
    t.equal(statSync(path).mode & 0o777, mode)
  }
})

t.test('writes through a symbolic link, which stays one', async (t) => {
  const folder = t.testdir({ real: { out: 'old' } })
  symlinkSync('real/out', join(folder, 'link'))
  await convert(disk.bytes, join(folder, 'link'), { force: true })
  t.equal(readlinkSync(join(folder, 'link')), 'real/out')
  t.ok(readFileSync(join(folder, 'real', 'out')).equals(guest))
  t.same(readdirSync(join(folder, 'real')), ['out'])
})

t.test('does not replace what comes into being while it works', async (t) => {
  const folder = t.testdir()
  const path = join(folder, 'out')
  const error = await rejection(t, convert(disk.bytes, path, { onProgress: () => writeFileSync(path, 'theirs') }))
  expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_EXISTS', { layer: path })
  t.equal(readFileSync(path, 'utf8'), 'theirs')
  t.same(readdirSync(folder), ['out'])
})

t.test('never takes a file that it reads from as output, under whatever name', async (t) => {
  const folder = t.testdir({ sub: {} })
  const base = buildImage({ clusterBits: 12, clusters: [[0, { kind: 'data', bytes: pattern(1, 4096) }]] })
  const middle = buildImage({
    clusterBits: 12,
    virtualSize: 4096,
    dataFile: { name: 'middle.data' },
    clusters: [[1, { kind: 'zero' }]],
  })
  const image = buildImage({
    clusterBits: 12,
    virtualSize: 8192,
    backingFile: { name: 'base.qcow2', format: 'qcow2' },
  })
  const files = { 'base.qcow2': base.bytes, 'middle.qcow2': middle.bytes, 'middle.data': middle.dataFile }
  for (const [name, bytes] of Object.entries({ ...files, 'in.qcow2': image.bytes })) {
    writeFileSync(join(folder, name), bytes)
    linkSync(join(folder, name), join(folder, 'sub', `hard ${name}`))
    symlinkSync(`../${name}`, join(folder, 'sub', `soft ${name}`))
  }
  symlinkSync('in.qcow2', join(folder, 'link'))
  const input = join(folder, 'in.qcow2')
  const cases: [name: string, input: string, layer: string, output: Qcow2Output][] = [
    ['itself', input, 'in.qcow2', input],
    ['a detour', input, 'in.qcow2', `${folder}/sub/.././in.qcow2`],
    ['its URL', input, 'in.qcow2', pathToFileURL(input)],
    ['a hard link', input, 'in.qcow2', join(folder, 'sub', 'hard in.qcow2')],
    ['a symbolic link', input, 'in.qcow2', join(folder, 'sub', 'soft in.qcow2')],
    ['the input by its link', join(folder, 'link'), 'link', input],
    ['the backing file', input, 'base.qcow2', join(folder, 'base.qcow2')],
    ['a link to the backing file', input, 'base.qcow2', join(folder, 'sub', 'hard base.qcow2')],
    ['the data file', join(folder, 'middle.qcow2'), 'middle.data', join(folder, 'middle.data')],
    ['a link to the data file', join(folder, 'middle.qcow2'), 'middle.data', join(folder, 'sub', 'soft middle.data')],
  ]
  for (const [name, from, layer, output] of cases) {
    const error = await rejection(t, convert(from, output, { force: true, references: 'any' }))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_IS_INPUT', { field: 'output', layer: join(folder, layer) })
    t.ok(error instanceof Error, name)
  }
  const alone = join(folder, 'base.qcow2')
  const handle = await open(alone, 'r+')
  t.teardown(() => handle.close())
  for (const [from, to] of [
    [handle, alone],
    [alone, handle.fd],
    [handle, handle.fd],
    [input, handle.fd],
  ] as const) {
    const error = await rejection(t, convert(from, to, { force: true }))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_IS_INPUT', { field: 'output' })
  }
  t.ok(readFileSync(input).equals(image.bytes))
  for (const [name, bytes] of Object.entries(files)) t.ok(readFileSync(join(folder, name)).equals(bytes), name)
  t.same(readdirSync(folder).sort(), [...Object.keys(files), 'in.qcow2', 'link', 'sub'].sort())
})

t.test('writes to a FIFO in order, holes as zeros', { skip: noFifo }, async (t) => {
  const fifo = join(t.testdir(), 'fifo')
  execFileSync('mkfifo', [fifo])
  const read = bytesOf(createReadStream(fifo))
  const result = await convert(disk.bytes, fifo, { start: 1000 })
  t.ok((await read).equals(guest.subarray(1000)))
  t.same(result, { length: guest.length - 1000, bytesWritten: guest.length - 1000, warnings: [] })
  t.ok(statSync(fifo).isFIFO())
})

t.test('writes to a descriptor from where it stands, and leaves it open', async (t) => {
  const path = join(t.testdir(), 'out')
  const fd = openSync(path, 'wx')
  t.teardown(() => closeSync(fd))
  writeSync(fd, 'head')
  await convert(disk.bytes, fd)
  await convert(disk.bytes, fd, { start: 10, end: 19 })
  t.ok(fstatSync(fd).isFile())
  t.ok(readFileSync(path).equals(Buffer.concat([Buffer.from('head'), guest, guest.subarray(10, 20)])))
})

t.test('writes to /dev/null and fails on /dev/full', { skip: noFifo }, async (t) => {
  const { length, bytesWritten } = await convert(disk.bytes, '/dev/null')
  t.same([length, bytesWritten], [guest.length, guest.length])
  const error = await rejection(t, convert(disk.bytes, '/dev/full'))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_WRITE_FAILED', { layer: '/dev/full' })
  t.equal(causeCode(error), 'ENOSPC')
})

/** A process of its own that converts `path` to `output` and writes what its failure was to the other of 1 and 2. */
function child(t: Test, path: string, output: 1 | 2, times = 1): ChildProcess {
  const code = `import { writeSync } from 'node:fs'; import { convert } from '${library}'
    const report = (error) => writeSync(${3 - output}, error.code + ' ' + error.cause.code)
    for (let i = 0; i < ${times}; i++) await convert('${path}', ${output}).catch(report)`
  const started = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => started.kill())
  return started
}

t.test('writes to the standard streams', { skip: noFifo }, async (t) => {
  const path = join(t.testdir(), 'disk.qcow2')
  writeFileSync(path, disk.bytes)
  for (const output of [1, 2] as const) {
    const { stdout, stderr } = child(t, path, output)
    if (stdout === null || stderr === null) throw new Error('no pipes')
    const [ours, other] = await Promise.all([
      bytesOf(output === 1 ? stdout : stderr),
      bytesOf(output === 1 ? stderr : stdout),
    ])
    t.ok(ours.equals(guest), `to ${output}`)
    t.equal(other.toString(), '')
  }
})

t.test('comes behind what was written to the standard output before', { skip: noFifo }, async (t) => {
  const path = join(t.testdir(), 'disk.qcow2')
  // So large that zeros are moved, where they can be.
  const zeros = buildImage({ clusterBits: 16, clusters: [], virtualSize: 64 * 2 ** 20 })
  writeFileSync(path, zeros.bytes)
  const program = `import { convert } from ${JSON.stringify(library)}
    process.stdout.write('A'.repeat(2 ** 21))
    await convert(${JSON.stringify(path)}, 1, { onProgress: () => process.stdout.write('B') })`
  // Pipes of the shell, as those that Node makes are sockets; nothing is taken from them at first.
  const pipeline = spawn('sh', ['-c', '"$0" --input-type=module -e "$1" | cat', process.execPath, program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await setTimeout(500)
  const bytes = await bytesOf(pipeline.stdout)
  const expected = Buffer.concat([Buffer.alloc(2 ** 21, 'A'), Buffer.from('B'), Buffer.alloc(64 * 2 ** 20)])
  t.ok(bytes.equals(expected), `${bytes.length} bytes`)
})

t.test('writes to the standard output again and again, without a warning', { skip: noFifo }, async (t) => {
  const path = join(t.testdir(), 'disk.qcow2')
  const small = buildImage({ clusterBits: 9, clusters: [[0, { kind: 'data', bytes: pattern(1, 512) }]] })
  writeFileSync(path, small.bytes)
  const { stdout, stderr } = child(t, path, 1, 20)
  if (stdout === null || stderr === null) throw new Error('no pipes')
  const [bytes, warnings] = await Promise.all([bytesOf(stdout), bytesOf(stderr)])
  t.ok(bytes.equals(Buffer.concat(Array.from({ length: 20 }, () => small.guest))))
  t.equal(warnings.toString(), '')
})

t.test('writes to a standard output that is a terminal', { skip: noTerminal }, async (t) => {
  const path = join(t.testdir(), 'disk.qcow2')
  writeFileSync(path, buildImage({ clusterBits: 9, clusters: [[0, { kind: 'data', bytes: text(1, 512) }]] }).bytes)
  const terminal = openSync('/dev/ptmx', 'r+')
  t.teardown(() => closeSync(terminal))
  const code = `import { isatty } from 'node:tty'; import { convert } from '${library}'
    const result = await convert('${path}', 1)
    process.stderr.write(JSON.stringify([isatty(1), result.bytesWritten]))`
  const started = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', terminal, 'pipe'],
  })
  t.teardown(() => started.kill())
  if (started.stderr === null) throw new Error('no pipe')
  t.same(JSON.parse((await bytesOf(started.stderr)).toString()), [true, 512])
})

t.test('fails with EPIPE when nobody reads the standard output', { skip: noFifo }, async (t) => {
  const path = join(t.testdir(), 'disk.qcow2')
  writeFileSync(path, disk.bytes)
  const { stdout, stderr } = child(t, path, 1)
  if (stdout === null || stderr === null) throw new Error('no pipes')
  stdout.destroy()
  await once(stdout, 'close')
  t.equal((await bytesOf(stderr)).toString(), 'ERR_QCOW2_WRITE_FAILED EPIPE')
})
