/**
 * The images that are measured: what they are called, and how Debian's tools make them.
 *
 * Invariant: an image that exists is complete; it is made under another name and renamed. Made once, kept for later runs.
 */
import { existsSync, mkdirSync, renameSync, rmSync, statfsSync, copyFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { makeFileSystem } from './files.js'
import { makeChain, TOP } from './layers.js'
import { BenchError, call, say } from './tools.js'

const KiB = 1024
const MiB = 2 ** 20
const GiB = 2 ** 30
const TiB = 2 ** 40

/** How much there is in the images. */
export interface Scale {
  readonly name: 'full' | 'quick'
  /** The disk with files that most cases convert. */
  readonly diskBytes: number
  readonly dataBytes: number
  /** Bytes of files in the disks that show growth with data. */
  readonly growthDataBytes: readonly number[]
  /** The disk that becomes larger and larger with the same data. */
  readonly smallDiskBytes: number
  readonly smallDataBytes: number
  readonly growthDiskBytes: readonly number[]
  /** What the folder holds at most, with one run's outputs. */
  readonly spaceBytes: number
}

const GROWTH_DISKS = [GiB, 16 * GiB, 256 * GiB, 4 * TiB, 64 * TiB]

/** What the published figures are measured with. */
export const FULL: Scale = {
  name: 'full',
  diskBytes: 10 * GiB,
  dataBytes: 2.2 * GiB,
  growthDataBytes: [GiB, 2 * GiB, 4 * GiB],
  smallDiskBytes: GiB,
  smallDataBytes: GiB / 2,
  growthDiskBytes: GROWTH_DISKS,
  spaceBytes: 25 * GiB,
}

/** A tenth of the data: shows that the benchmark works, and nothing else. */
export const QUICK: Scale = {
  name: 'quick',
  diskBytes: GiB,
  dataBytes: 220 * MiB,
  growthDataBytes: [100 * MiB, 200 * MiB, 400 * MiB],
  smallDiskBytes: GiB,
  smallDataBytes: 50 * MiB,
  growthDiskBytes: GROWTH_DISKS,
  spaceBytes: 3 * GiB,
}

/** An image's name: those of the cases, `data-BYTES` and `disk-BYTES` for growth. */
export type ImageName =
  | 'plain'
  | 'zlib'
  | 'zlib-4k'
  | 'zlib-2m'
  | 'zstd'
  | 'luks'
  | 'chain'
  | 'preallocated'
  | 'empty'
  | 'one-cluster'
  | `data-${number}`
  | `disk-${number}`

/** The images of one scale, in a folder of their own. */
export class Images {
  readonly #folder: string
  readonly #scale: Scale

  /** @param folder Where the images of all scales are; made if it does not exist. */
  constructor(folder: string, scale: Scale) {
    this.#folder = join(folder, scale.name)
    this.#scale = scale
    mkdirSync(this.#folder, { recursive: true })
  }

  /** Path of the image, whether it exists or not. */
  pathOf(name: ImageName): string {
    return name === 'chain' ? join(this.#folder, name, TOP) : join(this.#folder, `${name}.qcow2`)
  }

  /** Path of the file with the passphrase of the encrypted image. */
  get secretPath(): string {
    return join(this.#folder, 'luks.secret')
  }

  /** Makes what is missing. @throws {BenchError} if there is no room, or a tool fails. */
  make(names: readonly ImageName[]): void {
    const missing = [...new Set(names)].filter((name) => !existsSync(this.pathOf(name)))
    if (missing.length === 0) {
      return
    }
    this.#checkSpace()
    for (const name of missing) {
      this.#makeOne(name)
    }
    // What is still to be written to the disk would be written during the first runs.
    call('sync', [])
  }

  #makeOne(name: ImageName): void {
    const path = this.pathOf(name)
    if (existsSync(path)) {
      return
    }
    const whole = name === 'chain' ? dirname(path) : path
    const part = `${whole}.part`
    rmSync(part, { recursive: true, force: true })
    if (['zstd', 'luks', 'chain'].includes(name) || name.startsWith('zlib')) {
      this.#makeOne('plain')
    }
    say(`making the image ${name}`)
    this.#recipe(name, part)
    renameSync(part, whole)
  }

  #recipe(name: ImageName, target: string): void {
    const plain = this.pathOf('plain')
    switch (name) {
      case 'plain':
        this.#fromFiles(this.#scale.diskBytes, this.#scale.dataBytes, target, [])
        return
      case 'zlib':
        convert('qcow2', plain, target, ['-c'])
        return
      case 'zlib-4k':
        convert('qcow2', plain, target, ['-c', '-o', 'cluster_size=4k'])
        return
      case 'zlib-2m':
        convert('qcow2', plain, target, ['-c', '-o', 'cluster_size=2M'])
        return
      case 'zstd':
        convert('qcow2', plain, target, ['-c', '-o', 'compression_type=zstd'])
        return
      case 'luks':
        // As little work for the passphrase as QEMU can measure: what counts here are the sectors.
        writeFileSync(this.secretPath, 'benchmark')
        convert('qcow2', plain, target, [
          ...['--object', `secret,id=s,file=${this.secretPath}`],
          ...['-o', 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=100'],
        ])
        return
      case 'chain':
        this.#chain(plain, target)
        return
      case 'preallocated':
        call('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', target, String(256 * GiB)])
        return
      case 'empty':
        call('qemu-img', ['create', '-q', '-f', 'qcow2', target, String(TiB)])
        return
      case 'one-cluster':
        call('qemu-img', ['create', '-q', '-f', 'qcow2', target, String(64 * KiB)])
        call('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x5a 0 64k', target])
        return
      default:
        this.#growing(name, Number(name.slice(5)), target)
    }
  }

  #growing(name: `data-${number}` | `disk-${number}`, bytes: number, target: string): void {
    const { diskBytes, smallDiskBytes, smallDataBytes } = this.#scale
    if (name.startsWith('data-')) {
      this.#fromFiles(diskBytes, bytes, target, ['-c'])
      return
    }
    const smallest = `disk-${smallDiskBytes}` as const
    if (name === smallest) {
      this.#fromFiles(smallDiskBytes, smallDataBytes, target, [])
      return
    }
    this.#makeOne(smallest)
    copyFileSync(this.pathOf(smallest), target)
    call('qemu-img', ['resize', '-q', '-f', 'qcow2', target, String(bytes)])
  }

  #fromFiles(diskBytes: number, dataBytes: number, target: string, options: readonly string[]): void {
    const raw = join(this.#folder, 'disk.raw')
    try {
      makeFileSystem(raw, diskBytes, dataBytes)
      convert('raw', raw, target, options)
    } finally {
      rmSync(raw, { force: true })
    }
  }

  #chain(plain: string, target: string): void {
    const raw = join(this.#folder, 'disk.raw')
    mkdirSync(target)
    try {
      call('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', plain, raw])
      makeChain(raw, target)
    } finally {
      rmSync(raw, { force: true })
    }
  }

  #checkSpace(): void {
    const used = Number(call('du', ['-s', '--block-size=1', this.#folder]).split('\t')[0])
    const { bavail, bsize } = statfsSync(this.#folder)
    const wanted = this.#scale.spaceBytes
    if (used + bavail * bsize < wanted) {
      const [free, needed] = [bavail * bsize, wanted - used].map((bytes) => (bytes / GiB).toFixed(1))
      throw new BenchError(
        `${this.#folder} has ${free!} GiB of free space, ${needed!} GiB are needed: name another with --images`,
      )
    }
  }
}

/** Without -W: clusters lie in the order of the disk, as qemu-img writes them unless told otherwise. */
function convert(format: 'raw' | 'qcow2', from: string, to: string, options: readonly string[]): void {
  for (let triesLeft = 20; ; triesLeft--) {
    try {
      call('qemu-img', ['convert', '-f', format, '-O', 'qcow2', ...options, from, to])
      return
    } catch (error) {
      // It times a quick derivation before it encrypts, and gives up where the kernel counted no millisecond of it.
      if (triesLeft === 0 || !String(error).includes('Unable to get accurate CPU usage')) {
        throw error
      }
    }
  }
}
