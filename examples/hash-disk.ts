/**
 * The SHA-256 of the disks inside images, none of which is written anywhere: node dist/examples/hash-disk.js IMAGE...
 *
 * Prints what sha256sum prints for raw disks, but with the images' names; ends with 1 if one of them cannot be read.
 * (A conversion that is to tell the digest of its output takes the option `digest` of `convert`.)
 * Invariant: a run of zeros takes time, but no memory.
 */
import { createHash } from 'node:crypto'
import { existsSync, realpathSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { createReadStream, type Qcow2Input } from 'qcow2'

const ZEROS = Buffer.alloc(2 ** 20)
const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r' }

/**
 * The digest of a disk in lower-case hex.
 *
 * @throws The errors of `Qcow2Image.open` and `Qcow2Image.read`
 */
export async function hashDisk(input: Qcow2Input): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(input, { objectMode: true })) {
    if (chunk.kind === 'data') {
      hash.update(chunk.bytes)
      chunk.release()
      continue
    }
    for (let left = chunk.length; left > 0; left -= ZEROS.length) {
      hash.update(ZEROS.subarray(0, Math.min(left, ZEROS.length)))
      // A terabyte of them must not keep the event loop from everything else.
      await turn()
    }
  }
  return hash.digest('hex')
}

/** A line of sha256sum, without its end: a backslash at its beginning says that the name has some in it. */
export function checksumLine(digest: string, name: string): string {
  const escaped = name.replace(/[\\\n\r]/g, (found) => ESCAPES[found]!)
  return `${escaped === name ? '' : '\\'}${digest}  ${escaped}`
}

/** Prints a line for each image, or the error on standard error; resolves to the exit code. */
async function main(images: readonly string[]): Promise<number> {
  let code = 0
  for (const image of images) {
    try {
      process.stdout.write(`${checksumLine(await hashDisk(image), image)}\n`)
    } catch (error) {
      process.stderr.write(`hash-disk: ${error instanceof Error ? error.message : String(error)}\n`)
      code = 1
    }
  }
  if (images.length === 0) {
    process.stderr.write('hash-disk: usage: node dist/examples/hash-disk.js IMAGE...\n')
    code = 1
  }
  return code
}

const [, script = '', ...words] = process.argv
if (existsSync(script) && realpathSync(script) === import.meta.filename) {
  process.exitCode = await main(words)
}
