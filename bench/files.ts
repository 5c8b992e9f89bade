/**
 * A file system with real files in it: what the benchmark's images hold.
 *
 * Invariant: takes the same files in the same order whenever /usr is the same, a fair mixture of whatever is there.
 */
import { createHash } from 'node:crypto'
import { copyFileSync, lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { BenchError, call } from './tools.js'

const SOURCE = '/usr'
const EXCLUDED = '/usr/local/'
// One giant must not decide how well an image compresses.
const MAX_FILE_BYTES = 64 * 2 ** 20
const FILES_PER_FOLDER = 256

interface Found {
  readonly path: string
  readonly size: number
}

let found: readonly Found[] | undefined

/** The files of /usr, shuffled by a hash of their names. */
function findFiles(): readonly Found[] {
  const paths = readdirSync(SOURCE, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !path.startsWith(EXCLUDED))
  const keyed = paths.map((path) => ({ path, key: createHash('sha1').update(path).digest('hex') }))
  keyed.sort((a, b) => (a.key < b.key ? -1 : 1))
  return keyed
    .map(({ path }) => ({ path, size: lstatSync(path).size }))
    .filter(({ size }) => size > 0 && size <= MAX_FILE_BYTES)
}

/**
 * Makes a raw disk with an ext4 file system, in a sparse file.
 *
 * @param raw The file to make.
 * @param diskBytes Length of the disk.
 * @param dataBytes Bytes of files in it; a small /usr is copied in several times.
 */
export function makeFileSystem(raw: string, diskBytes: number, dataBytes: number): void {
  const folder = `${raw}.files`
  rmSync(folder, { recursive: true, force: true })
  rmSync(raw, { force: true })
  try {
    copyFiles(folder, dataBytes)
    call('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', folder, raw, `${Math.floor(diskBytes / 1024)}k`])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function copyFiles(folder: string, dataBytes: number): void {
  found ??= findFiles()
  let copiedBytes = 0
  let copiedCount = 0
  while (copiedBytes < dataBytes) {
    const before = copiedBytes
    for (const { path, size } of found) {
      if (copiedBytes >= dataBytes) {
        break
      }
      const target = join(folder, String(Math.floor(copiedCount / FILES_PER_FOLDER)))
      if (copiedCount % FILES_PER_FOLDER === 0) {
        mkdirSync(target, { recursive: true })
      }
      if (isCopied(path, join(target, String(copiedCount)))) {
        copiedBytes += size
        copiedCount++
      }
    }
    if (copiedBytes === before) {
      throw new BenchError(`no file of ${SOURCE} can be read`)
    }
  }
}

/** Copies a file, unless it is gone by now or not ours to read. */
function isCopied(path: string, target: string): boolean {
  try {
    copyFileSync(path, target)
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EACCES' || code === 'EPERM' || code === 'ENOENT') {
      return false
    }
    throw error
  }
}
