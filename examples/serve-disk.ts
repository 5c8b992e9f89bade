/**
 * Serves the disk inside an image over HTTP, or any part of it: node dist/examples/serve-disk.js IMAGE [PORT [HOST]]
 *
 *     curl --range 0-511 http://127.0.0.1:8080/disk.img | xxd
 *
 * Every path is the disk. Whoever can connect can read it; by default that is this machine. Nobody may write to the image meanwhile:
 * that is seen when the next answer begins, not in the middle of one. Invariant: what has been opened is closed at the end.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, realpathSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { createReadStream, Qcow2Image, quoteText } from 'qcow2'

// Each download reads some 4 MiB ahead. One that takes nothing for so long is over, and makes room for another.
const MAX_CONNECTIONS = 64
const IDLE_MILLISECONDS = 120_000

/** An image that is being served. */
export interface Disk {
  readonly image: Qcow2Image
  /** A strong one, in quotes. */
  readonly etag: string
  /** Whether the image is what it was when it was opened. */
  isUnchanged(): Promise<boolean>
}

/**
 * Opens an image for all requests. Its ETag is made of what identifies the files that it consists of, backing files included: which
 * they are, how long they are, when they were changed.
 *
 * @throws The errors of `Qcow2Image.open`; an `Error` if the image changes meanwhile
 */
export async function openDisk(path: string): Promise<Disk> {
  // Only who has opened it knows all of its files.
  const seen = await Qcow2Image.open(path)
  await seen.close()
  const files = seen.backingChain.flatMap(({ file, dataFile }) => (dataFile === undefined ? [file] : [file, dataFile]))
  const etagNow = async (): Promise<string> => {
    const found = await Promise.all(files.map((file) => stat(file, { bigint: true })))
    // The time of the last change of any kind too, as the other one can be set.
    const facts = found.map(({ dev, ino, size, mtimeNs, ctimeNs }) => [dev, ino, size, mtimeNs, ctimeNs].join())
    return `"${createHash('sha256').update(facts.join(';')).digest('base64url')}"`
  }
  const etag = await etagNow()
  const image = await Qcow2Image.open(path)
  const isUnchanged = async (): Promise<boolean> => (await etagNow().catch(() => undefined)) === etag
  if (!(await isUnchanged())) {
    await image.close()
    throw new Error(`${quoteText(path, 300)}: was changed while it was opened`)
  }
  return { image, etag, isUnchanged }
}

/** A server for an open image, which stays the caller's; it does not listen yet. */
export function createDiskServer(disk: Disk): Server {
  const server = createServer((request, response) => {
    answer(disk, request, response).catch((error: unknown) => {
      // The answer breaks off: nobody can take it for a whole one.
      response.destroy()
      if ((error as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE') {
        complain(error)
      }
    })
  })
  server.maxConnections = MAX_CONNECTIONS
  server.timeout = IDLE_MILLISECONDS
  return server
}

async function answer(disk: Disk, { method, headers }: IncomingMessage, response: ServerResponse): Promise<void> {
  const { image, etag } = disk
  const size = image.virtualSize
  if (method !== 'GET' && method !== 'HEAD') {
    response.writeHead(405, { allow: 'GET, HEAD' }).end()
    return
  }
  const isUnchanged = await disk.isUnchanged()
  if (response.destroyed) {
    return
  }
  if (!isUnchanged) {
    response.writeHead(503, { 'content-type': 'text/plain' }).end('the image has changed since it was opened\n')
    return
  }
  response.setHeader('etag', etag)
  response.setHeader('accept-ranges', 'bytes')
  if (headers['if-match'] !== undefined && !lists(headers['if-match'], etag)) {
    response.writeHead(412).end()
    return
  }
  if (lists(headers['if-none-match']?.replaceAll('W/', ''), etag)) {
    response.writeHead(304).end()
    return
  }
  const range = method === 'GET' ? rangeOf(headers, etag, size) : undefined
  if (range === 'none of the disk') {
    response.writeHead(416, { 'content-range': `bytes */${size}` }).end()
    return
  }
  const [start, end] = range ?? [0, size - 1]
  response.writeHead(range === undefined ? 200 : 206, {
    'content-type': 'application/octet-stream',
    'content-length': end + 1 - start,
    ...(range !== undefined && { 'content-range': `bytes ${start}-${end}/${size}` }),
  })
  if (method === 'HEAD' || size === 0) {
    response.end()
    return
  }
  // Reads no faster than the client does, and no more once it has gone.
  await pipeline(createReadStream(image, { start, end }), response)
}

/** Whether a list of ETags has this one. */
const lists = (list: string | undefined, etag: string): boolean =>
  list?.split(',').some((item) => ['*', etag].includes(item.trim())) === true

/** What is asked for; undefined is the whole, also for several ranges and for what is none. RFC 9110: "Range Requests". */
function rangeOf(
  headers: IncomingHttpHeaders,
  etag: string,
  size: number,
): readonly [first: number, last: number] | 'none of the disk' | undefined {
  const [, from, to, last] = /^bytes=(?:(\d+)-(\d*)|-(\d+))$/i.exec(headers.range ?? '') ?? []
  // What is no strong ETag, a date for example, is never this one.
  const isStale = headers['if-range'] !== undefined && headers['if-range'] !== etag
  // An empty disk has no first byte to name.
  if (isStale || size === 0 || (from === undefined && last === undefined)) {
    return undefined
  }
  const start = from === undefined ? Math.max(0, size - Number(last)) : Number(from)
  const end = to === undefined || to === '' ? Infinity : Number(to)
  if (end < start) {
    return undefined
  }
  return start >= size ? 'none of the disk' : [start, Math.min(end, size - 1)]
}

const complain = (error: unknown): void =>
  void process.stderr.write(`serve-disk: ${error instanceof Error ? error.message : String(error)}\n`)

/** Serves until a signal ends it. */
async function main([path, port = '8080', host = '127.0.0.1']: readonly string[]): Promise<void> {
  if (path === undefined || !/^\d+$/.test(port)) {
    throw new Error('usage: node dist/examples/serve-disk.js IMAGE [PORT [HOST]]')
  }
  const disk = await openDisk(path)
  await using image = disk.image
  const server = createDiskServer(disk).listen(Number(port), host)
  await once(server, 'listening')
  // Port 0 lets the system choose.
  const { port: chosen } = server.address() as AddressInfo
  process.stdout.write(`${image.virtualSize} bytes at http://${host}:${chosen}/\n`)
  await Promise.race(['SIGINT', 'SIGTERM'].map((signal) => once(process, signal)))
  server.close()
  server.closeAllConnections()
  await once(server, 'close')
}

const [, script = '', ...words] = process.argv
if (existsSync(script) && realpathSync(script) === import.meta.filename) {
  await main(words).catch((error: unknown) => {
    complain(error)
    process.exitCode = 1
  })
}
