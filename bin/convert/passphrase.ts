/**
 * Where the command gets passphrases from: files, a file descriptor, or whoever sits at the terminal.
 *
 * Invariant: a passphrase is asked for only if a layer needs one; it is never shown, and in no message. It is never on the command
 * line either, where everybody on the machine can see it.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { quoteText, type Qcow2EncryptedLayer } from '../../lib/index.js'
import { Interrupted } from '../exit-code.js'
import { CommandLineError } from '../command-line.js'

/** What the command line says about passphrases. */
export interface PassphraseOptions {
  /** Names of files: the first one has the passphrase of the first encrypted layer, and so on; the last one that of all others. */
  readonly files: readonly string[]
  readonly fd: number | undefined
  /** Whether who sits at a terminal is asked. Default: true. */
  readonly mayAsk?: boolean
}

const MOST_BYTES = 65536
const NEWLINE = 0x0a
const RETURN = 0x0d

/**
 * Answers for the encrypted layers of a chain, in their order; undefined if there is nobody to ask.
 *
 * @param signal Ends the asking, with its reason.
 * @param unguarded Runs what may keep the process waiting, deaf to everything, and lets signals end the process meanwhile.
 */
export function passphrases(
  { files, fd, mayAsk = true }: PassphraseOptions,
  signal: AbortSignal,
  unguarded: <T>(read: () => T) => T,
): (layer: Qcow2EncryptedLayer) => Uint8Array | undefined | Promise<string> {
  let asked = 0
  let fromFd: Uint8Array | undefined
  return (layer) => {
    if (fd !== undefined && !(fd === 0 && process.stdin.isTTY)) {
      fromFd ??= unguarded(() => withoutNewline(`--passphrase-fd ${fd}`, (bytes) => readGiven(fd, bytes)))
      return fromFd
    }
    const path = files[Math.min(asked++, files.length - 1)]
    if (path !== undefined) {
      return unguarded(() =>
        withoutNewline(`--passphrase-file ${quoteText(path, 300)}`, (bytes) => readFile(path, bytes)),
      )
    }
    return mayAsk && process.stdin.isTTY && process.stderr.isTTY ? ask(layer, signal) : undefined
  }
}

/** All that can be read, but for one newline at the end, which editors and `echo` leave there. */
function withoutNewline(what: string, read: (bytes: Uint8Array) => number): Uint8Array {
  const bytes = new Uint8Array(MOST_BYTES + 1)
  let length: number
  try {
    length = read(bytes)
  } catch (error) {
    throw new Error(`${what}: cannot be read: ${(error as NodeJS.ErrnoException).code}`, { cause: error })
  }
  if (length > MOST_BYTES) {
    throw new CommandLineError(`${what}: found more than ${MOST_BYTES} bytes, allowed is a passphrase`)
  }
  if (bytes[length - 1] === NEWLINE) {
    length -= bytes[length - 2] === RETURN ? 2 : 1
  }
  return bytes.subarray(0, length)
}

function readFile(path: string, bytes: Uint8Array): number {
  const fd = openSync(path, 'r')
  try {
    return readAll(fd, bytes)
  } finally {
    closeSync(fd)
  }
}

/** Of a wrong number that is one of Node's own nothing is read, and it stays open. */
function readGiven(fd: number, bytes: Uint8Array): number {
  const stats = fstatSync(fd)
  if (!stats.isFile() && !stats.isFIFO() && !stats.isSocket() && !stats.isCharacterDevice()) {
    throw Object.assign(new Error('no file, pipe, socket or terminal'), { code: 'EINVAL' })
  }
  return readAll(fd, bytes)
}

/** Reads until the end, or until there is no more room. */
function readAll(fd: number, bytes: Uint8Array): number {
  let length = 0
  for (let count = -1; count !== 0 && length < bytes.length; length += count) {
    count = readSync(fd, bytes, length, bytes.length - length, null)
  }
  return length
}

/** Asks on the terminal, and shows nothing of the answer. */
async function ask({ file, encryption }: Qcow2EncryptedLayer, signal: AbortSignal): Promise<string> {
  signal.throwIfAborted()
  const nowhere = new Writable({
    write(_chunk, _encoding, callback) {
      callback()
    },
  })
  const lines = createInterface({ input: process.stdin, output: nowhere, terminal: true, historySize: 0 })
  const prompt = (): void => {
    process.stderr.write(`Passphrase of ${quoteText(file, 300)} (${encryption.toUpperCase()}): `)
    lines.resume()
  }
  // By now the terminal shows nothing of what is typed, or somebody quick would be seen.
  prompt()
  // Stopped with Ctrl-Z, and back again.
  lines.on('SIGCONT', prompt)
  let abort: (() => void) | undefined
  try {
    return await new Promise((resolve, reject) => {
      abort = () => {
        reject(signal.reason as Error)
      }
      signal.addEventListener('abort', abort)
      lines.once('line', resolve)
      lines.once('SIGINT', () => {
        reject(new Interrupted('SIGINT'))
      })
      lines.once('close', () => {
        reject(new CommandLineError('no passphrase was entered'))
      })
    })
  } finally {
    signal.removeEventListener('abort', abort!)
    lines.close()
    process.stderr.write('\n')
  }
}
