/** A Blob or File, as browsers' APIs and `fs.openAsBlob` make them, as a source. */
import type { Qcow2Source } from './source.js'

/** What is read of a `Blob` or `File`: Node's types of these and the browser's, which differ elsewhere, both have it. */
export interface Qcow2Blob {
  /** Bytes. */
  readonly size: number
  /** The part from `start` on and before `end`. */
  slice(start: number, end: number): Qcow2BlobPart
}

/** A part of a {@link Qcow2Blob}. */
export interface Qcow2BlobPart {
  /** Its bytes. */
  arrayBuffer(): Promise<ArrayBuffer>
}

export class BlobSource implements Qcow2Source {
  readonly size: number

  constructor(private readonly blob: Qcow2Blob) {
    this.size = blob.size
  }

  async read(target: Uint8Array, offset: number): Promise<number> {
    const bytes = new Uint8Array(await this.blob.slice(offset, offset + target.length).arrayBuffer())
    target.set(bytes)
    return bytes.length
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
