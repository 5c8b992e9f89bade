/**
 * Opening that fails half way: whichever open, look or read it is, the error is one of ours and nothing stays open.
 */
import { writeFileSync } from 'node:fs'
import promises, { type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Qcow2Error, Qcow2Image, type Qcow2OpenOptions } from '../../../lib/index.js'
import { rejection } from '../../fixtures/expect-error.js'
import { buildImage } from '../../fixtures/image-builder.js'
import { cannotCount, openDescriptors } from '../../fixtures/open-descriptors.js'
import { opened, readBytes } from '../../fixtures/opened-image.js'
import { patchPromises, systemError } from '../../fixtures/patched-fs.js'
import { pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'

const CLUSTER = 4096
const GUEST = pattern(1, 3 * CLUSTER)

/** An image over an image with a data file over a raw disk, with a snapshot table; formats partly unrecorded. */
const prepare = (t: Test): { folder: string; top: string } => {
  const folder = t.testdir()
  const cluster = (index: number): [number, { kind: 'data'; bytes: Uint8Array }] => [
    index,
    { kind: 'data', bytes: GUEST.subarray(index * CLUSTER, (index + 1) * CLUSTER) },
  ]
  const middle = buildImage({
    clusterBits: 12,
    virtualSize: GUEST.length,
    dataFile: { name: 'data' },
    backingFile: { name: 'raw' },
    clusters: [cluster(1)],
  })
  const top = buildImage({
    clusterBits: 12,
    virtualSize: GUEST.length,
    backingFile: { name: 'middle' },
    clusters: [cluster(0)],
    snapshots: [{}],
  })
  for (const [name, bytes] of Object.entries({
    top: top.bytes,
    middle: middle.bytes,
    data: middle.dataFile,
    raw: GUEST,
  })) {
    writeFileSync(join(folder, name), bytes)
  }
  return { folder, top: join(folder, 'top') }
}

type Call = `${'open' | 'realpath' | 'stat'}()` | `handle.${'read' | 'stat' | 'close'}()`

/** Counts calls of the file system, and lets one of them fail. */
class Faults {
  readonly counts = new Map<Call, number>()
  #failing: readonly [call: Call, n: number] | undefined

  constructor(t: Test) {
    const { open, realpath, stat } = promises
    patchPromises(t, {
      open: async (...parameters: Parameters<typeof open>) => {
        this.#count('open()')
        return this.#watched(await open(...parameters))
      },
      realpath: (path: string) => this.#guarded('realpath()', () => realpath(path)),
      stat: (path: string) => this.#guarded('stat()', () => stat(path, { bigint: true })),
    })
  }

  /** From now on counts anew; the n-th call of that kind fails. */
  fail(...failing: readonly [call: Call, n: number] | []): void {
    this.counts.clear()
    this.#failing = failing.length === 0 ? undefined : failing
  }

  #count(call: Call): void {
    const n = (this.counts.get(call) ?? 0) + 1
    this.counts.set(call, n)
    if (this.#failing?.[0] === call && this.#failing[1] === n) throw systemError('EIO')
  }

  async #guarded<T>(call: Call, run: () => Promise<T>): Promise<T> {
    this.#count(call)
    return run()
  }

  #watched(handle: FileHandle): FileHandle {
    const { read, stat, close } = handle
    return Object.assign(handle, {
      read: (...parameters: Parameters<typeof read>) =>
        this.#guarded('handle.read()', () => read.apply(handle, parameters)),
      stat: () => this.#guarded('handle.stat()', () => stat.call(handle, { bigint: true })),
      close: async () => {
        await close.call(handle)
        this.#count('handle.close()')
      },
    })
  }
}

t.test('whichever call of the file system fails, everything is closed', { skip: cannotCount }, async (t) => {
  const { folder, top } = prepare(t)
  const faults = new Faults(t)
  for (const options of [{}, { references: 'any' }, { snapshot: '1' }] satisfies Qcow2OpenOptions[]) {
    faults.fail()
    const image = await Qcow2Image.open(top, options)
    t.ok((await readBytes(image)).equals(GUEST))
    const opening = new Map(faults.counts)
    await image.close()
    t.strictSame(openDescriptors(folder), [])
    t.match(opening.get('open()'), 4)

    for (const [call, count] of opening) {
      for (let n = 1; n <= count; n++) {
        faults.fail(call, n)
        let failed: Qcow2Image | undefined
        const error = await rejection(
          t,
          (async () => {
            failed = await Qcow2Image.open(top, options)
            await readBytes(failed)
          })(),
        )
        await failed?.close()
        t.ok(error instanceof Qcow2Error, `${call} ${n}: one of our errors`, { found: error })
        t.match((error as Error).cause, { code: 'EIO' }, 'with the cause')
        t.strictSame(openDescriptors(folder), [], 'nothing is open')
      }
    }
  }
})

t.test('a failing close does not hide why opening failed, nor leave others open', { skip: cannotCount }, async (t) => {
  const { folder, top } = prepare(t)
  const faults = new Faults(t)
  writeFileSync(join(folder, 'raw'), 'KDMV')
  for (let n = 1; n <= 4; n++) {
    faults.fail('handle.close()', n)
    await t.rejects(Qcow2Image.open(top), { code: 'ERR_QCOW2_UNSUPPORTED_BACKING_FORMAT' })
    t.equal(faults.counts.get('handle.close()'), 4, 'each is closed')
    t.strictSame(openDescriptors(folder), [])
  }
  writeFileSync(join(folder, 'raw'), GUEST)
  for (let n = 1; n <= 4; n++) {
    const image = await Qcow2Image.open(top)
    faults.fail('handle.close()', n)
    await t.rejects(image.close(), { code: 'ERR_QCOW2_READ_FAILED', cause: { code: 'EIO' } })
    t.strictSame(openDescriptors(folder), [])
  }
})

t.test('sources of the caller are closed once, whichever read fails', async (t) => {
  const { folder } = prepare(t)
  const [top, middle] = await Promise.all(['top', 'middle'].map((name) => promises.readFile(join(folder, name))))
  for (let n = 1; n < 100; n++) {
    let count = 0
    const beforeRead = (): void => {
      count += 1
      if (count === n) throw new Error('EIO')
    }
    const sources = [top!, middle!].map((bytes) => new RecordingSource(bytes, { beforeRead }))
    const options: Qcow2OpenOptions = { backingFile: sources[1]!, references: 'none' }
    const outcome = await Qcow2Image.open(sources[0]!, options).catch((error: unknown) => error)
    if (outcome instanceof Qcow2Image) {
      t.ok(n > 3, `opening takes ${n - 1} reads`)
      await outcome.close()
      t.strictSame(
        sources.map(({ closeCount }) => closeCount),
        [1, 1],
      )
      return
    }
    t.match(outcome, { code: 'ERR_QCOW2_READ_FAILED' })
    t.strictSame(
      sources.map(({ closeCount, reads }) => (reads.length > 0 || closeCount > 0 ? closeCount : 'not opened')),
      sources.map(({ reads }) => (reads.length > 0 ? 1 : 'not opened')),
      `read ${n} fails`,
    )
  }
  t.fail('opening never succeeded')
})

t.test('the next open works as if nothing had been', async (t) => {
  const { top } = prepare(t)
  const faults = new Faults(t)
  faults.fail('handle.read()', 2)
  await t.rejects(Qcow2Image.open(top), { code: 'ERR_QCOW2_READ_FAILED' })
  faults.fail()
  t.ok((await readBytes(await opened(t, top))).equals(GUEST))
})
