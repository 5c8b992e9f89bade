/**
 * An image in S3, or in a store that speaks its protocol, of which only what is read is fetched: a source of one's own.
 *
 *     import { S3Client } from '@aws-sdk/client-s3'
 *     import { convert } from 'qcow2'
 *     import { openS3 } from './s3-source.js'
 *
 *     const client = new S3Client({ region: 'eu-central-1' })
 *     await convert(await openS3(client, 'images', 'disk.qcow2'), 'disk.img')
 *
 * Knows requests, nothing of images. Invariant: all bytes are those of the version that was opened, at the offset that was asked for.
 */
import type { Readable } from 'node:stream'
import { GetObjectCommand, HeadObjectCommand, type S3Client } from '@aws-sdk/client-s3'
import type { Qcow2Source } from 'qcow2'

/**
 * A source for `createReadStream`, `Qcow2Image.open` or `convert`, which close it. The client stays the caller's, to configure
 * (retries, time limits) and to destroy.
 *
 * @throws Whatever the client throws; an `Error` if the store does not tell size and ETag
 */
export async function openS3(client: S3Client, bucket: string, key: string): Promise<Qcow2Source> {
  const { ContentLength: size, ETag: etag } = await client.send(new HeadObjectCommand({ Bucket: bucket, Key: key }))
  if (size === undefined || etag === undefined) {
    throw new Error(`s3://${bucket}/${key}: the store tells no ${size === undefined ? 'size' : 'ETag'}`)
  }
  return new S3Source(client, { Bucket: bucket, Key: key, IfMatch: etag }, size)
}

class S3Source implements Qcow2Source {
  constructor(
    private readonly client: S3Client,
    /** With the ETag that it had: of an object that was replaced since, the store sends an error. */
    private readonly object: { readonly Bucket: string; readonly Key: string; readonly IfMatch: string },
    readonly size: number,
  ) {}

  async read(target: Uint8Array, offset: number, signal: AbortSignal): Promise<number> {
    const end = Math.min(offset + target.length, this.size)
    if (offset >= end) {
      return 0
    }
    const { Body, ContentRange } = await this.client.send(
      new GetObjectCommand({ ...this.object, Range: `bytes=${offset}-${end - 1}` }),
      { abortSignal: signal },
    )
    const body = Body as Readable
    // A store that does not know ranges sends the object from its beginning.
    if (ContentRange !== `bytes ${offset}-${end - 1}/${this.size}`) {
      body.destroy()
      throw new Error(`asked for bytes ${offset}-${end - 1}, the store sends ${ContentRange ?? 'the whole object'}`)
    }
    let done = 0
    try {
      for await (const chunk of body as AsyncIterable<Uint8Array>) {
        target.set(chunk, done)
        done += chunk.length
      }
    } catch (error) {
      // The client repeats requests, but not a body that breaks off: what has come counts, and the library asks for the rest.
      // Of all other errors, that the bytes are not those of their checksum is one.
      if (done === 0 || (error as NodeJS.ErrnoException).code !== 'ECONNRESET') {
        throw error
      }
    }
    return done
  }

  async close(): Promise<void> {
    // Nothing is held: each request has ended with its read.
  }
}
