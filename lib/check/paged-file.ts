/**
 * Small reads of a file by way of pages, of which some are kept.
 *
 * Blocks of 512 bytes lie side by side, and on a server each read is a request; a hostile table names one block a million times.
 * Invariant: at most {@link MAX_PAGES} pages are kept.
 */
import { LRUCache } from 'lru-cache'
import type { HostFile } from '../source/source.js'
import { readView } from './host-reader.js'

const PAGE_BYTES = 65536
const MAX_PAGES = 256

export class PagedFile {
  readonly #pages = new LRUCache<number, DataView>({ max: MAX_PAGES })

  constructor(private readonly file: HostFile) {}

  /** Bytes of the file, zeros past its end; not to be changed, as others may see them. */
  async view(offset: number, length: number): Promise<DataView> {
    const page = Math.floor(offset / PAGE_BYTES)
    const at = offset - page * PAGE_BYTES
    if (at + length > PAGE_BYTES) {
      return readView(this.file, offset, length)
    }
    let kept = this.#pages.get(page)
    if (kept === undefined) {
      kept = await readView(this.file, page * PAGE_BYTES, PAGE_BYTES)
      this.#pages.set(page, kept)
    }
    return new DataView(kept.buffer, kept.byteOffset + at, length)
  }
}
