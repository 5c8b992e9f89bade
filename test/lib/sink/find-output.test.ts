// What an output is: every kind of target is recognised or refused before anything is created.
import { execFileSync } from 'node:child_process'
import { closeSync, linkSync, lstatSync, openSync, readdirSync, statSync, symlinkSync } from 'node:fs'
import promises from 'node:fs/promises'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { Qcow2SinkError, Qcow2UsageError, type Qcow2Output } from '../../../lib/index.js'
import { findOutput, identityOfPath } from '../../../lib/sink/find-output.js'
import { causeCode, expectError, rejection } from '../../fixtures/expect-error.js'
import { patchFs, patchPromises } from '../../fixtures/patched-fs.js'
import { posingDevice } from '../../fixtures/posing-device.js'

const isWindows = process.platform === 'win32'
const noDevices = isWindows ? 'Windows has no /dev' : false
const noProc = process.platform === 'linux' ? false : '/proc exists on Linux only'
const device = isWindows ? '' : findBlockDevice()

function findBlockDevice(): string {
  const paths = readdirSync('/dev').map((name) => join('/dev', name))
  return paths.find((path) => lstatSync(path, { throwIfNoEntry: false })?.isBlockDevice()) ?? ''
}

const no = (): boolean => false

const identity = (path: string): string => {
  const { dev, ino } = statSync(path, { bigint: true })
  return `${dev}:${ino}`
}

t.test('finds that a missing file can be made, by path and by URL, with and without force', async (t) => {
  const path = join(t.testdir(), 'new file')
  for (const output of [path, pathToFileURL(path)]) {
    for (const force of [false, true]) {
      t.same(await findOutput(output, force), { kind: 'file', path, identity: undefined, mode: undefined })
    }
  }
  t.same(readdirSync(t.testdirName), [], 'nothing was created')
  const near = relative(process.cwd(), path)
  t.same(await findOutput(near, false), { kind: 'file', path: near, identity: undefined, mode: undefined })
})

t.test('sees that a folder is missing, before anything is read', async (t) => {
  const path = join(t.testdir(), 'missing', 'new file')
  const error = await rejection(t, findOutput(path, false))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: path })
  t.equal(causeCode(error), 'ENOENT')
})

t.test('finds an existing file with its identity and permissions, if it may be replaced', async (t) => {
  const folder = t.testdir({ out: 'old', folder: {} })
  const path = join(folder, 'out')
  linkSync(path, join(folder, 'hard'))
  symlinkSync('out', join(folder, 'soft'))
  symlinkSync('../soft', join(folder, 'folder', 'far'))
  const { mode } = statSync(path)
  for (const name of ['out', 'soft', 'folder/far', 'folder/../out']) {
    const place = `${folder}/${name}`
    t.same(await findOutput(place, true), { kind: 'file', path, identity: identity(path), mode }, name)
    const error = await rejection(t, findOutput(place, false))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_EXISTS', { layer: place, field: 'force' })
    t.match((error as Error).message, /force/, 'the message names the option')
  }
  t.match(await findOutput(join(folder, 'hard'), true), { path: join(folder, 'hard'), identity: identity(path) })
})

t.test('refuses links that lead nowhere', async (t) => {
  const folder = t.testdir()
  symlinkSync('missing\u001b[31m', join(folder, 'dangling'))
  symlinkSync('dangling', join(folder, 'twice'))
  for (const name of ['dangling', 'twice']) {
    const error = await rejection(t, findOutput(join(folder, name), true))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_UNSUPPORTED_OUTPUT', { layer: join(folder, name) })
  }
  symlinkSync('circle', join(folder, 'circle'))
  const error = await rejection(t, findOutput(join(folder, 'circle'), true))
  expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: join(folder, 'circle') })
  t.equal(causeCode(error), 'ELOOP')
})

t.test('refuses folders, and names that only a folder could have', async (t) => {
  const folder = t.testdir({ file: '' })
  for (const output of [folder, `${folder}/`, pathToFileURL(folder)]) {
    const error = await rejection(t, findOutput(output, true))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_UNSUPPORTED_OUTPUT', { field: 'output' })
    t.match((error as Error).message, /folder/)
  }
  for (const path of [`${folder}/missing/`, `${folder}/file/`, `${folder}/file/below`]) {
    const error = await rejection(t, findOutput(path, false))
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: path })
  }
})

t.test('refuses sockets', { skip: isWindows && 'Windows has no sockets in folders' }, async (t) => {
  const path = join(t.testdir(), 's')
  const server = createServer()
  // The path of a socket is short; this one may be too long from here.
  const cwd = process.cwd()
  process.chdir(t.testdirName)
  t.teardown(() => process.chdir(cwd))
  server.listen('s')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const error = await rejection(t, findOutput(path, true))
  expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_UNSUPPORTED_OUTPUT', { layer: path, field: 'output' })
})

t.test('writes to FIFOs and character devices in order', { skip: noDevices }, async (t) => {
  const fifo = join(t.testdir(), 'fifo')
  execFileSync('mkfifo', [fifo])
  symlinkSync(fifo, `${fifo}-link`)
  for (const place of [fifo, `${fifo}-link`, '/dev/null', '/dev/zero']) {
    t.same(await findOutput(place, false), { kind: 'sequential', place, identity: identity(place) }, place)
  }
})

t.test(
  'leaves the disks without a buffer alone that macOS shows, and names the others',
  { skip: noDevices },
  async (t) => {
    const { stat } = promises
    patchPromises(t, {
      stat: (path: string, options: { bigint: true }) =>
        stat(path.startsWith('/dev/rdisk') ? '/dev/null' : path, options),
    })
    t.match(await findOutput('/dev/rdisk4s1', true), { kind: 'sequential' }, 'elsewhere it is any device')
    const platform = Object.getOwnPropertyDescriptor(process, 'platform')!
    Object.defineProperty(process, 'platform', { ...platform, value: 'darwin' })
    t.teardown(() => Object.defineProperty(process, 'platform', platform))
    const error = await rejection(t, findOutput('/dev/rdisk4s1', true))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_UNSUPPORTED_OUTPUT', { layer: '/dev/rdisk4s1', field: 'output' })
    t.match((error as Error).message, /write to \/dev\/disk4s1$/)
    t.match(await findOutput('/dev/null', false), { kind: 'sequential' })
  },
)

const noDevice = device === '' && 'this machine shows no block device in /dev'

t.test('finds a block device, if it may be overwritten, and takes its number for its identity', async (t) => {
  const folder = t.testdir({ device: 'old' })
  const posing = join(folder, 'device')
  posingDevice(t, posing, { number: 0x123n })
  t.same(await findOutput(posing, true), { kind: 'device', path: posing, identity: 'block device 291' })
  t.equal(await identityOfPath(posing), 'block device 291')
  t.equal(await identityOfPath(join(folder, 'missing')), undefined)
  const error = await rejection(t, findOutput(posing, false))
  expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_EXISTS', { layer: posing, field: 'force' })
  t.match((error as Error).message, /block device.*force/, 'the message says what it is, and names the option')
})

t.test('finds a real block device, through a link as well', { skip: noDevice }, async (t) => {
  const link = join(t.testdir(), 'link')
  symlinkSync(device, link)
  const { rdev } = statSync(device, { bigint: true })
  for (const path of [device, link]) {
    t.same(await findOutput(path, true), { kind: 'device', path, identity: `block device ${rdev}` })
    const error = await rejection(t, findOutput(path, false))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_OUTPUT_EXISTS', { layer: path, field: 'force' })
  }
})

t.test('refuses a block device that somebody else has opened', async (t) => {
  const stats = {
    isFile: no,
    isSocket: no,
    isFIFO: no,
    isCharacterDevice: no,
    isDirectory: no,
    isBlockDevice: () => true,
  }
  patchFs(t, {
    fstat: (_fd: number, _options: object, callback: (error: null, found: object) => void) => callback(null, stats),
  })
  for (const output of [9, ...(noProc === false ? ['/dev/fd/9'] : [])]) {
    const error = await rejection(t, findOutput(output, true))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_UNSUPPORTED_OUTPUT', {
      layer: 'file descriptor 9',
      field: 'output',
    })
    t.match((error as Error).message, /is a block device; .*by its path/)
  }
})

t.test('takes descriptors, by number and by the paths that mean them', { skip: noProc }, async (t) => {
  const path = join(t.testdir({ out: 'old' }), 'out')
  const fd = openSync(path, 'r+')
  t.teardown(() => closeSync(fd))
  const found = { kind: 'sequential', place: fd, identity: identity(path) } as const
  const outputs: Qcow2Output[] = [fd, `/dev/fd/${fd}`, `/proc/self/fd/${fd}`, new URL(`file:///dev/fd/${fd}`)]
  for (const output of outputs) {
    for (const force of [false, true]) t.same(await findOutput(output, force), found, String(output))
  }
  t.match(await findOutput('/dev/stdout', false), { kind: 'sequential', place: 1 })
  t.match(await findOutput('/dev/stderr', false), { kind: 'sequential', place: 2 })
  t.match(await findOutput('/dev/fd/1', true), { kind: 'sequential', place: 1 })
  t.match(await findOutput(new URL('file:///dev/stdout'), true), { kind: 'sequential', place: 1 })
})

t.test('refuses descriptors that are not open, or of folders', async (t) => {
  const fd = openSync(t.testdir(), 'r')
  const folder = await rejection(t, findOutput(fd, true))
  expectError(t, folder, Qcow2UsageError, 'ERR_QCOW2_UNSUPPORTED_OUTPUT', { layer: `file descriptor ${fd}` })
  closeSync(fd)
  for (const output of [100_000, 2 ** 31]) {
    const error = await rejection(t, findOutput(output, false))
    expectError(t, error, Qcow2SinkError, 'ERR_QCOW2_CREATE_FAILED', { layer: `file descriptor ${output}` })
  }
})

t.test('refuses what is no output at all', async (t) => {
  const wrong: unknown[] = [
    '',
    'a\0b',
    -1,
    1.5,
    NaN,
    Infinity,
    null,
    undefined,
    {},
    [],
    Buffer.from('out'),
    new URL('http://localhost/out'),
    new URL('file://elsewhere/out'),
    new URL('file:///a%2Fb'),
    new URL('file:///a%00b'),
  ]
  for (const output of wrong) {
    const error = await rejection(t, findOutput(output as string, true))
    expectError(t, error, Qcow2UsageError, 'ERR_QCOW2_BAD_ARGUMENT', { field: 'output', actual: output })
  }
})
