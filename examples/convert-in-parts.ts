/**
 * Converts one image in N processes into one file: node dist/examples/convert-in-parts.js IMAGE OUTPUT N
 *
 * IMAGE is a path, or an address that begins with http: or https:. Each process converts a slice of the disk and writes it at its
 * place. Which slice, the variable JOB_COMPLETION_INDEX says, as Kubernetes sets it in the pods of an Indexed Job: with it this script
 * is one part, without it, it starts all N here (docs/parts.md). Invariant: the slices tile the disk; where all parts are started
 * here, the output is complete or gone.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:fs'
import { open, rm, stat, type FileHandle } from 'node:fs/promises'
import { constants as system } from 'node:os'
import { createReadStream, Qcow2Image } from 'qcow2'

// A compressed cluster is decoded whole: one that lies on both sides of a boundary is decoded twice, once for each part. This is
// a multiple of every size of clusters, those of backing files too, and keeps two machines from writing to one page of a file.
const ALIGNMENT_BYTES = 64 * 2 ** 20
const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const

/** What all parts have in common. */
interface Task {
  readonly image: string | URL
  readonly output: string
  /** How many parts there are. */
  readonly count: number
}

/** The guest bytes of a part, half-open; none if there are more parts than clusters. */
function sliceOf(index: number, count: number, disk: Qcow2Image): { readonly start: number; readonly end: number } {
  const isSmall = disk.virtualSize < count * ALIGNMENT_BYTES
  const unitBytes = isSmall ? disk.clusterSize : ALIGNMENT_BYTES
  const units = Math.ceil(disk.virtualSize / unitBytes)
  const boundary = (n: number): number => Math.min(disk.virtualSize, Math.floor((units * n) / count) * unitBytes)
  return { start: boundary(index), end: boundary(index + 1) }
}

/** Writes one slice to its place in the output, which is made if it is not there. Zeros stay holes. */
async function convertPart({ image, output, count }: Task, index: number): Promise<void> {
  await using disk = await Qcow2Image.open(image)
  // Not emptied: it has what other parts have written, or this one, if it is started again.
  await using file = await open(output, constants.O_RDWR | constants.O_CREAT)
  await prepare(file, { image, output }, disk.virtualSize)
  const { start, end } = sliceOf(index, count, disk)
  if (start === end) {
    return
  }
  for await (const chunk of createReadStream(disk, { start, end: end - 1, objectMode: true })) {
    if (chunk.kind === 'data') {
      await writeAt(file, chunk.bytes, chunk.guestOffset)
      chunk.release()
    }
  }
}

/** Gives a new file its length; one that cannot be what other parts have begun stays as it is. */
async function prepare(file: FileHandle, { image, output }: Omit<Task, 'count'>, length: number): Promise<void> {
  const found = await file.stat()
  const read = typeof image === 'string' ? await stat(image) : undefined
  if (found.dev === read?.dev && found.ino === read.ino) {
    throw new Error(`${output} is the image`)
  }
  if (found.size === 0) {
    await file.truncate(length)
  } else if (found.size !== length) {
    throw new Error(`${output}: found a file of ${found.size} bytes, allowed is a new one, or one of ${length} bytes`)
  }
}

async function createNew(output: string): Promise<FileHandle> {
  try {
    return await open(output, 'wx')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') {
      throw new Error(`${output} exists: remove it, or name another output`, { cause: error })
    }
    throw error
  }
}

/** Writes all of the bytes; the system may take fewer at a time. */
async function writeAt(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done)
    done += bytesWritten
  }
}

/** Ends this process once the one that started it is gone, as nobody waits for the output then. */
function endWithParent(): void {
  const end = (): void => process.exit(1)
  process.on('disconnect', end)
  process.channel?.unref()
  // It may be gone already; but in a pod there has never been a channel to it.
  if (process.send !== undefined && !process.connected) {
    end()
  }
}

/** Runs all parts at once, each in a process of its own; resolves to the exit code. */
async function convertAll({ image, output, count }: Task): Promise<number> {
  const children: ChildProcess[] = []
  let code = 0
  const endAll = (reason: number): void => {
    code = Math.max(code, reason)
    for (const child of children) {
      child.kill()
    }
  }
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      endAll(128 + system.signals[signal])
    })
  }
  // What is wrong with the image is said once, before there is an output.
  await (await Qcow2Image.open(image)).close()
  // Never another file's name: its bytes would show through the holes.
  await (await createNew(output)).close()
  const runPart = async (index: number): Promise<void> => {
    if (code !== 0) {
      return
    }
    try {
      const env = { ...process.env, JOB_COMPLETION_INDEX: String(index) }
      const child = fork(process.argv[1]!, process.argv.slice(2), { env })
      children.push(child)
      const [status] = (await once(child, 'exit')) as [number | null]
      if (status !== 0) {
        endAll(1)
      }
    } catch (error) {
      // It could not be started.
      complain(error)
      endAll(1)
    }
  }
  await Promise.all(Array.from({ length: count }, (_, index) => runPart(index)))
  if (code !== 0) {
    await rm(output)
  }
  return code
}

/** Does what the words and the environment ask for; resolves to the exit code. */
async function main([image, output, parts = '']: readonly string[], part: string | undefined): Promise<number> {
  const count = Number(parts)
  if (image === undefined || output === undefined || !Number.isInteger(count) || count < 1) {
    throw new Error('usage: node dist/examples/convert-in-parts.js IMAGE OUTPUT N')
  }
  const task = { image: /^https?:/i.test(image) ? new URL(image) : image, output, count }
  if (part === undefined) {
    return convertAll(task)
  }
  if (!/^\d+$/.test(part) || Number(part) >= count) {
    throw new Error(`JOB_COMPLETION_INDEX: found ${JSON.stringify(part)}, allowed are 0 to ${count - 1}`)
  }
  endWithParent()
  await convertPart(task, Number(part))
  return 0
}

function complain(error: unknown, part?: string): void {
  const where = part === undefined ? '' : `part ${part}: `
  process.stderr.write(`convert-in-parts: ${where}${error instanceof Error ? error.message : String(error)}\n`)
}

const { JOB_COMPLETION_INDEX: part } = process.env
try {
  process.exitCode = await main(process.argv.slice(2), part)
} catch (error) {
  complain(error, part)
  process.exitCode = 1
}
