/**
 * One image converted in several processes into one file: the bytes of one conversion, or nothing.
 */
import { once } from 'node:events'
import { closeSync, existsSync, fstatSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { endlessImage } from '../fixtures/endless-image.js'
import { startServer } from '../fixtures/http-server.js'
import { buildImage } from '../fixtures/image-builder.js'
import { dataDisk, mixedDisk } from '../fixtures/mixed-disk.js'
import { readDisk } from '../fixtures/opened-image.js'
import { pattern } from '../fixtures/patterns.js'
import { firstDifference, oracleTest, qemuImg } from '../fixtures/qemu.js'
import { start, type Ended } from '../fixtures/run-command.js'
import { unpackSamples } from '../fixtures/sample-images.js'
import { settling, until } from '../fixtures/turns.js'

const MIB = 2 ** 20
const script = fileURLToPath(new URL('../../examples/convert-in-parts.js', import.meta.url))

/** Starts the script in a folder; as one part, if it is to be that. */
function startParts(cwd: string, words: readonly string[], part?: string): ReturnType<typeof start> {
  return start(process.execPath, [script, ...words], { cwd, env: { JOB_COMPLETION_INDEX: part } })
}

/** All parts, to their end: the bytes of the output. */
async function convertedInParts(t: Test, cwd: string, image: string, count: number): Promise<Buffer> {
  const output = `${image}.${count}.raw`
  const { code, stdout, stderr } = await startParts(cwd, [image, output, String(count)]).ended
  t.strictSame({ code, stdout: stdout.toString(), stderr }, { code: 0, stdout: '', stderr: '' })
  return readFileSync(join(cwd, output))
}

/** One part alone. */
async function convertPart(t: Test, cwd: string, words: readonly string[], part: number): Promise<void> {
  const { code, stderr } = await startParts(cwd, words, String(part)).ended
  t.strictSame({ code, stderr }, { code: 0, stderr: '' }, `part ${part}`)
}

t.test('a disk of everything, in any number of parts', async (t) => {
  const { bytes, guest } = mixedDisk()
  const cwd = t.testdir({ 'a.qcow2': bytes })
  for (const count of [1, 2, 3, 7]) {
    t.equal(firstDifference(await convertedInParts(t, cwd, 'a.qcow2', count), guest), undefined, `${count} parts`)
  }
})

t.test('more parts than clusters', async (t) => {
  const { bytes, guest } = dataDisk(2)
  const cwd = t.testdir({ 'a.qcow2': bytes, 'empty.qcow2': buildImage({ virtualSize: 0 }).bytes })
  t.equal(firstDifference(await convertedInParts(t, cwd, 'a.qcow2', 5), guest), undefined)
  t.equal((await convertedInParts(t, cwd, 'empty.qcow2', 2)).length, 0)
})

oracleTest('samples, as qemu-img converts them', async (t) => {
  const folder = t.testdir()
  unpackSamples(folder)
  for (const [name, count] of [
    ['sample.qcow2', 7],
    ['default-clusters.qcow2', 3],
    ['zstd.qcow2', 2],
    ['large-clusters.qcow2', 3],
    ['extended-l2.qcow2', 3],
    ['small-clusters.qcow2', 2],
    ['chain/overlay.qcow2', 2],
    ['external/non-raw.qcow2', 2],
  ] as const) {
    const [, within = '.', image] = /^(?:(.*)\/)?(.*)$/.exec(name)!
    const cwd = join(folder, within)
    await qemuImg(cwd, 'convert', '-f', 'qcow2', '-O', 'raw', image!, 'qemu.raw')
    const expected = readFileSync(join(cwd, 'qemu.raw'))
    t.equal(firstDifference(await readDisk(join(cwd, image!)), expected), undefined, `${name}, by one process`)
    t.equal(firstDifference(await convertedInParts(t, cwd, image!, count), expected), undefined, `${name}, by ${count}`)
  }
})

t.test('zeros stay holes', async (t) => {
  const cluster = { kind: 'data', bytes: pattern(1, 65536) } as const
  const { bytes } = buildImage({ virtualSize: 2 ** 30, clusters: [0, 8191, 16383].map((index) => [index, cluster]) })
  const cwd = t.testdir({ 'a.qcow2': bytes })
  const { code } = await startParts(cwd, ['a.qcow2', 'a.raw', '2']).ended
  t.equal(code, 0)
  t.equal(statSync(join(cwd, 'a.raw')).size, 2 ** 30)
  const allocated = statSync(join(cwd, 'a.raw')).blocks * 512
  t.ok(allocated >= 3 * 65536 && allocated < MIB, `${allocated} bytes allocated`)
})

t.test('parts begin at multiples of 64 MiB, or of the clusters of a small disk', async (t) => {
  const CLUSTER = 65536
  for (const { virtualSize, places } of [
    // The first and the last cluster of each part.
    {
      virtualSize: 200 * MIB,
      places: [
        [0, 64 * MIB - CLUSTER],
        [64 * MIB, 128 * MIB - CLUSTER],
        [128 * MIB, 200 * MIB - CLUSTER],
      ],
    },
    {
      virtualSize: 10 * CLUSTER,
      places: [
        [0, 2 * CLUSTER],
        [3 * CLUSTER, 5 * CLUSTER],
        [6 * CLUSTER, 9 * CLUSTER],
      ],
    },
  ]) {
    const clusters = places
      .flat()
      .map((offset) => [offset / CLUSTER, { kind: 'data', bytes: pattern(1, CLUSTER) }] as const)
    const cwd = t.testdir({ 'a.qcow2': buildImage({ virtualSize, clusters }).bytes })
    for (const [part, own] of places.entries()) {
      await convertPart(t, cwd, ['a.qcow2', `${part}.raw`, '3'], part)
      const written = readFileSync(join(cwd, `${part}.raw`))
      t.equal(written.length, virtualSize)
      const found = places.flat().filter((offset) => written[offset] !== 0 || written[offset + CLUSTER - 1] !== 0)
      t.strictSame(found, own)
    }
  }
})

t.test('as pods do it: each part alone, in any order, and again', async (t) => {
  const { bytes, guest } = mixedDisk()
  const cwd = t.testdir({ 'a.qcow2': bytes })
  for (const part of [2, 0, 1, 0]) {
    await convertPart(t, cwd, ['a.qcow2', 'a.raw', '3'], part)
  }
  t.equal(firstDifference(readFileSync(join(cwd, 'a.raw')), guest), undefined)
})

/** Asserts one line on standard error and the exit code 1. */
function failed(t: Test, { code, stderr }: Ended, message: RegExp): void {
  t.equal(code, 1)
  t.match(stderr, /^convert-in-parts: .+\n$/)
  t.match(stderr, message)
}

const LONG_BYTES = 8 * 1024 * MIB

/** An image of which every cluster is decoded and written, which takes some ten seconds: what goes wrong must not fill the disk. */
function longImage(): Buffer {
  const bytes = endlessImage()
  // The size, in the header.
  bytes.writeBigUInt64BE(BigInt(LONG_BYTES), 24)
  return bytes
}

/** Converts such an image, by the name of a.qcow2, in three parts; resolves once something has been written, or all is over. */
async function startLong(
  t: Test,
  cwd: string,
): Promise<ReturnType<typeof start> & { readonly hasPartDone: () => boolean }> {
  const running = startParts(cwd, ['a.qcow2', 'a.raw', '3'])
  const hasEnded = settling(running.ended)
  const path = join(cwd, 'a.raw')
  await until(() => hasEnded() || existsSync(path))
  // It may lose its name.
  const fd = openSync(path, 'r')
  t.teardown(() => closeSync(fd))
  await until(() => hasEnded() || fstatSync(fd).blocks * 512 > MIB)
  const hasPartDone = (): boolean =>
    [1, 2, 3].some((n) => {
      const end = Math.floor((LONG_BYTES / (64 * MIB) / 3) * n) * 64 * MIB
      const lastCluster = Buffer.alloc(65536)
      readSync(fd, lastCluster, 0, lastCluster.length, end - lastCluster.length)
      return lastCluster.some((byte) => byte !== 0)
    })
  return { ...running, hasPartDone }
}

t.test('a part that fails ends the others, and the output goes', async (t) => {
  const bytes = longImage()
  // The first L1 entry, that of the first half GiB.
  const l1TableOffset = Number(bytes.readBigUInt64BE(40))
  bytes.writeBigUInt64BE(bytes.readBigUInt64BE(l1TableOffset) | 1n, l1TableOffset)
  const cwd = t.testdir({ 'a.qcow2': bytes })
  const { ended, hasPartDone } = await startLong(t, cwd)
  failed(t, await ended, /: part 0: .*L1 entry 0 /)
  t.strictSame(readdirSync(cwd), ['a.qcow2'])
  t.notOk(hasPartDone(), 'the others did not get to their ends')
})

/** Numbers of the processes that a process has started. */
const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)

const noChildren = process.platform !== 'linux' && 'needs /proc to see the processes of the parts'

t.test('a part that is killed ends the others, and the output goes', { skip: noChildren }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': longImage() })
  const { child, ended, hasPartDone } = await startLong(t, cwd)
  const parts = childrenOf(child.pid!)
  t.equal(parts.length, 3)
  process.kill(parts[1]!, 'SIGKILL')
  t.equal((await ended).code, 1)
  t.strictSame(readdirSync(cwd), ['a.qcow2'])
  t.strictSame(
    parts.filter((pid) => existsSync(`/proc/${pid}`)),
    [],
    'no process is left',
  )
  t.notOk(hasPartDone(), 'the others did not get to their ends')
})

for (const [signal, exitCode] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const) {
  t.test(`${signal} ends all parts, and the output goes`, async (t) => {
    const cwd = t.testdir({ 'a.qcow2': longImage() })
    const { child, ended, hasPartDone } = await startLong(t, cwd)
    child.kill(signal)
    // This is over only when no process is left that could write to standard error.
    const { code, stderr } = await ended
    t.strictSame({ code, stderr }, { code: exitCode, stderr: '' })
    t.strictSame(readdirSync(cwd), ['a.qcow2'])
    t.notOk(hasPartDone(), 'they did not get to their ends')
  })
}

t.test('no part goes on when the process that started it is killed', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': longImage() })
  const { child, ended, hasPartDone } = await startLong(t, cwd)
  child.kill('SIGKILL')
  // As above.
  t.equal((await ended).signal, 'SIGKILL')
  t.notOk(hasPartDone(), 'they did not get to their ends')
})

t.test('a part does not begin if the process that started it is gone already', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': longImage() })
  const words = [script, 'a.qcow2', 'a.raw', '3']
  const { child } = start(process.execPath, words, {
    cwd,
    env: { JOB_COMPLETION_INDEX: '0' },
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  })
  child.disconnect()
  t.strictSame(await once(child, 'exit'), [1, null])
  t.strictSame(readdirSync(cwd), ['a.qcow2'])
})

t.test('an image that cannot be opened is an error before there is an output', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': 'something else' })
  failed(t, await startParts(cwd, ['a.qcow2', 'a.raw', '3']).ended, /^convert-in-parts: (?!part)/)
  failed(t, await startParts(cwd, ['missing.qcow2', 'a.raw', '3']).ended, /missing\.qcow2/)
  t.strictSame(readdirSync(cwd), ['a.qcow2'])
})

t.test('a file that exists is neither written to nor removed', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': mixedDisk().bytes, 'a.raw': 'old' })
  failed(
    t,
    await startParts(cwd, ['a.qcow2', 'a.raw', '2']).ended,
    /: a\.raw exists: remove it, or name another output$/m,
  )
  t.equal(readFileSync(join(cwd, 'a.raw'), 'utf8'), 'old')
  failed(t, await startParts(cwd, ['a.qcow2', 'missing/a.raw', '2']).ended, /: ENOENT/)
})

t.test('an image on a web server', async (t) => {
  const { bytes, guest } = mixedDisk()
  const server = await startServer(t, bytes)
  const cwd = t.testdir()
  const { code, stderr } = await startParts(cwd, [server.url().href, 'a.raw', '2']).ended
  t.strictSame({ code, stderr }, { code: 0, stderr: '' })
  t.equal(firstDifference(readFileSync(join(cwd, 'a.raw')), guest), undefined)
  failed(t, await startParts(cwd, ['http://[', 'b.raw', '2']).ended, /Invalid URL/)
})

t.test('a part writes neither over the image nor over what no part has begun', async (t) => {
  const { bytes, guest } = mixedDisk()
  const cwd = t.testdir({ 'a.qcow2': bytes, 'a.raw': 'old', link: t.fixture('symlink', 'a.qcow2') })
  failed(t, await startParts(cwd, ['a.qcow2', 'a.raw', '2'], '0').ended, /a\.raw: found a file of 3 bytes/)
  t.equal(readFileSync(join(cwd, 'a.raw'), 'utf8'), 'old')
  failed(t, await startParts(cwd, ['a.qcow2', 'link', '2'], '1').ended, /link is the image/)
  t.ok(readFileSync(join(cwd, 'a.qcow2')).equals(bytes))
  for (const part of ['1', '0', '1']) {
    t.equal((await startParts(cwd, ['a.qcow2', 'b.raw', '2'], part).ended).code, 0)
  }
  t.ok(readFileSync(join(cwd, 'b.raw')).equals(guest), 'a part may be run again')
})

t.test('what cannot be meant is refused', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': mixedDisk().bytes })
  for (const words of [
    [],
    ['a.qcow2', 'a.raw'],
    ...['0', '-1', '1.5', 'x'].map((count) => ['a.qcow2', 'a.raw', count]),
  ]) {
    failed(t, await startParts(cwd, words).ended, /: usage: /)
  }
  for (const part of ['3', '-1', '', 'x']) {
    failed(t, await startParts(cwd, ['a.qcow2', 'a.raw', '3'], part).ended, /JOB_COMPLETION_INDEX.* 0 to 2$/m)
  }
  t.strictSame(readdirSync(cwd), ['a.qcow2'])
})
