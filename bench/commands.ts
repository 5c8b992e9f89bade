/**
 * The processes that are compared: the package's own command and programs, and their rivals.
 *
 * Invariant: each reads the whole disk, and where two are compared both do the same work with it.
 */
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from './measure.js'
import { encryptedSource } from '../test/fixtures/qemu-source.js'
import { call, hasTool, say } from './tools.js'

const PROGRAMS = import.meta.dirname
const CLI = join(PROGRAMS, '../command/qcow2-to-raw.js')

/** The package's command, into a file. */
export function ours(image: string, output: string, node = process.execPath): Command {
  return { words: [node, CLI, image, output], output }
}

/** The package's command, through a pipe. */
export function oursToPipe(image: string): Command {
  return { words: intoCat([process.execPath, CLI, image]) }
}

/** The package's command with whatever words, and standard input from a file if one is named. */
export function convertWith(words: readonly string[], output?: string, input?: string): Command {
  const command = [process.execPath, CLI, ...words]
  const fed = input === undefined ? command : ['bash', '-c', 'cat "$0" | "$@"', input, ...command]
  return { words: fed, ...(output === undefined ? {} : { output }) }
}

/** The library's `convert` of a Blob, or of a source of one's own, with a digest, and verified. */
export function convertInput(kind: 'blob' | 'source', image: string, output: string): Command {
  return { words: [process.execPath, join(PROGRAMS, 'inputs.js'), kind, image, output], output }
}

/** What users run today, in its fastest mode. */
export function qemuImg(image: string, output: string): Command {
  return { words: ['qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', '-W', image, output], output }
}

/** Both again, for an encrypted image. */
export function oursUnlocking(image: string, secret: string, output: string): Command {
  return { words: [process.execPath, CLI, '--passphrase-file', secret, image, output], output }
}

export function qemuImgUnlocking(image: string, secret: string, output: string): Command {
  const { flags, name } = encryptedSource(image, secret)
  return { words: ['qemu-img', 'convert', ...flags, '-O', 'raw', '-W', name, output], output }
}

/** The same, reading everything and writing nothing: no file is long enough for every disk. */
export function qemuImgToNothing(image: string, diskBytes: number): Command {
  const nothing = ['--target-is-zero', '--target-image-opts', `driver=null-co,size=${diskBytes}`]
  return { words: ['qemu-img', 'convert', '-n', '-W', '-f', 'qcow2', image, ...nothing] }
}

/** Serves the disk on a Unix socket that both ends inherit, and copies it from there into a pipe. */
export function nbdcopy(image: string): Command {
  return { words: intoCat(['nbdcopy', '--', '[', 'qemu-nbd', '--read-only', '--format=qcow2', image, ']', '-']) }
}

/** `for await` over the library's stream, of Buffers or (cheaper where there is nothing) of chunks as in object mode. */
export function forAwait(kind: 'buffers' | 'chunks', image: string): Command {
  return { words: [process.execPath, join(PROGRAMS, 'stream.js'), kind, image] }
}

/** `image.read` over the allocated parts of the disk. */
export function reads(kind: 'sequential' | 'random', image: string, count: number): Command {
  return { words: [process.execPath, join(PROGRAMS, 'reads.js'), kind, image, String(count)] }
}

/** Node alone. */
export const NOTHING: Command = { words: [process.execPath, '-e', '0'] }

function intoCat(words: readonly string[]): string[] {
  return ['bash', '-o', 'pipefail', '-c', '"$@" | cat >/dev/null', 'bash', ...words]
}

/** Node 24, from npm if this is an older one; or why there is none. */
export function findNode24(folder: string): { node: string } | { reason: string } {
  if (Number(process.versions.node.split('.')[0]) >= 24) {
    return { node: process.execPath }
  }
  const name = `node-${process.platform}-${process.arch}`
  const home = join(folder, 'node-24')
  const node = join(home, 'node_modules', name, 'bin', 'node')
  if (!existsSync(node)) {
    if (!hasTool('npm')) {
      return { reason: 'npm, which installs Node 24, is not found' }
    }
    say(`installing ${name}@24`)
    mkdirSync(home, { recursive: true })
    const quietly = ['--no-save', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
    try {
      call('npm', ['install', '--prefix', home, ...quietly, `${name}@24`], home)
    } catch (error) {
      return { reason: `Node 24 cannot be installed: ${(error as Error).message}` }
    }
  }
  return { node }
}
