/**
 * Picks the source for what a caller hands in.
 *
 * Knows the kinds of input, not what is in them. Invariant: what is opened here is closed by closing the host file,
 * and what the caller opened stays open, except a source of the caller's own, whose `close` is called.
 */
import type { FileHandle } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { Qcow2UsageError, quoteText } from '../errors.js'
import { CallerSource } from './caller-source.js'
import { fromFileHandle, openFile } from './file.js'
import { MemorySource } from './memory.js'
import { HostFile, type Qcow2Source } from './source.js'

/**
 * What an image can be read from: a path, a `file:` URL, the image's bytes, an open `FileHandle` (it stays open) or a
 * source of the caller's own (its `close` is called when the image is closed).
 */
export type Qcow2Input = string | URL | Uint8Array | FileHandle | Qcow2Source

/**
 * An open host file for an input.
 *
 * @throws {Qcow2SourceError} `ERR_QCOW2_OPEN_FAILED`, `ERR_QCOW2_NOT_A_FILE`
 * @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT`
 */
export async function openSource(input: Qcow2Input): Promise<HostFile> {
  if (typeof input === 'string' || input instanceof URL) {
    const path = typeof input === 'string' ? input : pathOfUrl(input)
    if (path === '' || path.includes('\0')) {
      throw badInput(`the path ${quoteText(path)}`)
    }
    return openFile(path)
  }
  if (input instanceof Uint8Array) {
    return new HostFile(new MemorySource(input), { label: 'image in memory' })
  }
  if (isFileHandle(input)) {
    return fromFileHandle(input)
  }
  if (isSource(input)) {
    return wrapSource(input)
  }
  throw badInput(typeof input)
}

async function wrapSource(source: Qcow2Source): Promise<HostFile> {
  try {
    return new HostFile(new CallerSource(source), { label: 'image from a source' })
  } catch (error) {
    await source.close()
    throw error
  }
}

function pathOfUrl(url: URL): string {
  if (url.protocol !== 'file:') {
    throw badInput(`a URL with the protocol ${quoteText(url.protocol)}`)
  }
  try {
    return fileURLToPath(url)
  } catch {
    throw badInput(`the URL ${quoteText(url.href)}`)
  }
}

const isFileHandle = (input: unknown): input is FileHandle =>
  typeof input === 'object' &&
  input !== null &&
  'fd' in input &&
  typeof input.fd === 'number' &&
  'stat' in input &&
  typeof input.stat === 'function'

const isSource = (input: unknown): input is Qcow2Source =>
  typeof input === 'object' &&
  input !== null &&
  'size' in input &&
  'read' in input &&
  typeof input.read === 'function' &&
  'close' in input &&
  typeof input.close === 'function'

function badInput(found: string): Qcow2UsageError {
  return new Qcow2UsageError(
    'ERR_QCOW2_BAD_ARGUMENT',
    `input: found ${found}, allowed are a path, a file: URL, a Uint8Array, a FileHandle and a source (size, read, close)`,
    { field: 'input' },
  )
}
