/** A Blob or File, as browsers' APIs and `fs.openAsBlob` make them, as a source. */
import type { Blob } from 'node:buffer'
import type { Qcow2Source } from './source.js'

export class BlobSource implements Qcow2Source {
  readonly size: number

  constructor(private readonly blob: Blob) {
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
