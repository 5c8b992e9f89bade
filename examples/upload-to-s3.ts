/**
 * Uploads the disk inside an image to S3, as it is read: node dist/examples/upload-to-s3.js IMAGE BUCKET KEY
 *
 * Region, credentials and another store's address come from where the client looks for them: AWS_REGION, AWS_PROFILE,
 * AWS_ENDPOINT_URL, ... It needs `@aws-sdk/client-s3`. Invariant: the object is the whole disk, or there is none and no part is left
 * behind; what it holds in memory is bounded.
 */
import { existsSync, realpathSync } from 'node:fs'
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  S3Client,
  UploadPartCommand,
  type CompletedPart,
} from '@aws-sdk/client-s3'
import { Qcow2Image, type Qcow2Input } from 'qcow2'

const MIB = 2 ** 20
// S3's own limit: a larger disk needs larger parts.
const MAX_PARTS = 10_000
// A multiple of every size of clusters: none has to be decoded for two parts.
const LEAST_PART_BYTES = 16 * MIB
// Of all parts under way together, and so the largest part: enough for a disk of 4.8 TiB.
const MEMORY_BYTES = 512 * MIB
const MAX_UNDER_WAY = 4

export interface UploadOptions {
  /** Bytes of a part but the last one, of which S3 wants at least 5 MiB. Default: 16 MiB, or more if there would be over 10 000. */
  readonly partBytes?: number
  /** Ends the upload. */
  readonly signal?: AbortSignal | undefined
}

/**
 * Uploads a disk; S3 knows no holes, so that its zeros are sent. The client stays the caller's.
 *
 * @throws The errors of `Qcow2Image.open` and `Qcow2Image.read`, whatever the client throws, and the reason of the signal
 */
export async function uploadDisk(
  client: S3Client,
  input: Qcow2Input,
  { bucket, key }: { readonly bucket: string; readonly key: string },
  { partBytes, signal }: UploadOptions = {},
): Promise<void> {
  await using image = await Qcow2Image.open(input, { signal })
  const bytesOfPart = partBytes ?? partBytesFor(image.virtualSize)
  const target = { Bucket: bucket, Key: key }
  // Neither this nor what completes the upload is interrupted: nobody could tell then whether it has been done.
  const { UploadId } = await client.send(
    new CreateMultipartUploadCommand({ ...target, ContentType: 'application/octet-stream' }),
  )
  const upload = { ...target, UploadId }
  try {
    const Parts = await uploadParts(client, image, upload, bytesOfPart, signal)
    await client.send(new CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts } }))
  } catch (error) {
    await abort(client, upload, error)
    throw error
  }
}

/** Bytes of a part, for a disk of this size. @throws an `Error` if the disk is too large for parts that fit in memory */
function partBytesFor(virtualSize: number): number {
  const count = Math.ceil(virtualSize / MAX_PARTS / LEAST_PART_BYTES)
  if (count * LEAST_PART_BYTES > MEMORY_BYTES) {
    throw new Error(`a disk of ${virtualSize} bytes: allowed are ${MAX_PARTS * MEMORY_BYTES}, in ${MAX_PARTS} parts`)
  }
  return Math.max(1, count) * LEAST_PART_BYTES
}

interface Upload {
  readonly Bucket: string
  readonly Key: string
  readonly UploadId: string | undefined
}

/** Sends all parts, a few at once; when one fails, the others end before this rejects. */
async function uploadParts(
  client: S3Client,
  image: Qcow2Image,
  upload: Upload,
  partBytes: number,
  signal: AbortSignal | undefined,
): Promise<CompletedPart[]> {
  // An empty disk is one part without bytes, as there must be one.
  const parts = new Array<CompletedPart>(Math.max(1, Math.ceil(image.virtualSize / partBytes)))
  const failure = new AbortController()
  const abortSignal = AbortSignal.any(signal === undefined ? [failure.signal] : [failure.signal, signal])
  let next = 0
  // Each has one part under way at a time, and memory for that.
  const sendParts = async (): Promise<void> => {
    const memory = new Uint8Array(Math.min(partBytes, image.virtualSize))
    for (let index = next++; index < parts.length; index = next++) {
      abortSignal.throwIfAborted()
      const length = await image.read(memory, index * partBytes)
      const part = { ...upload, PartNumber: index + 1, Body: memory.subarray(0, length) }
      const { ETag, ChecksumCRC32 } = await client.send(new UploadPartCommand(part), { abortSignal })
      parts[index] = { PartNumber: index + 1, ETag, ChecksumCRC32 }
    }
  }
  const count = Math.min(parts.length, MAX_UNDER_WAY, Math.max(1, Math.floor(MEMORY_BYTES / partBytes)))
  const senders = Array.from({ length: count }, () =>
    sendParts().catch((error: unknown) => {
      // The first reason is the one that counts: the other senders fail because of it.
      failure.abort(error)
    }),
  )
  await Promise.all(senders)
  abortSignal.throwIfAborted()
  return parts
}

/** Has the store forget what it has got: it costs money until then. */
async function abort(client: S3Client, upload: Upload, reason: unknown): Promise<void> {
  try {
    await client.send(new AbortMultipartUploadCommand(upload))
  } catch (error) {
    const message = `${messageOf(reason)}; and upload ${upload.UploadId} could not be aborted: ${messageOf(error)}`
    throw new AggregateError([reason], message, { cause: error })
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Uploads what the words say; SIGINT and SIGTERM end that. */
async function main([image, bucket, key]: readonly string[]): Promise<void> {
  if (image === undefined || bucket === undefined || key === undefined) {
    throw new Error('usage: node dist/examples/upload-to-s3.js IMAGE BUCKET KEY')
  }
  const interruption = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => {
      interruption.abort(new Error(`interrupted by ${signal}`))
    })
  }
  await uploadDisk(new S3Client(), image, { bucket, key }, { signal: interruption.signal })
}

const [, script = '', ...words] = process.argv
if (existsSync(script) && realpathSync(script) === import.meta.filename) {
  await main(words).catch((error: unknown) => {
    process.stderr.write(`upload-to-s3: ${messageOf(error)}\n`)
    process.exitCode = 1
  })
}
