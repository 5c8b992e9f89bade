/**
 * A program to be measured: `convert` in the library from what only a program can hand in, with a digest, and verified.
 *
 * Usage: node inputs.js blob|source IMAGE OUTPUT.
 */
import { openAsBlob } from 'node:fs'
import { open } from 'node:fs/promises'
import { convert, type Qcow2Source } from '../lib/index.js'

const [kind, image, output] = process.argv.slice(2)

/** A source of one's own. */
async function openSource(path: string): Promise<Qcow2Source> {
  const handle = await open(path)
  return {
    size: (await handle.stat()).size,
    read: async (target, offset) => (await handle.read(target, 0, target.length, offset)).bytesRead,
    close: () => handle.close(),
  }
}

const input = kind === 'blob' ? await openAsBlob(image!) : await openSource(image!)
await convert(input, output!, { force: true, digest: 'sha256', verify: true })
