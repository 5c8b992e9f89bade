/**
 * A cache bounded by bytes whose entries are loaded once, however many ask at the same time.
 *
 * Knows nothing of what it keeps. Invariant: a load that fails is not kept, and the next one asks again.
 */
import { LRUCache } from 'lru-cache'

/** Keeps what was used last, up to `maxBytes` in all (a single larger value is passed on, not kept). */
export class LoadingCache<V extends { readonly byteLength: number }> {
  readonly #kept: LRUCache<string, V>
  readonly #loading = new Map<string, Promise<V>>()

  constructor(maxBytes: number) {
    this.#kept = new LRUCache<string, V>({ maxSize: maxBytes, sizeCalculation: (value) => value.byteLength })
  }

  /** The value if it is here, without waiting. */
  peek(key: string): V | undefined {
    return this.#kept.get(key)
  }

  /** The value, loaded if need be. */
  load(key: string, read: () => Promise<V>): Promise<V> {
    const under = this.#loading.get(key)
    if (under !== undefined) {
      return under
    }
    const loading = this.#loadAndKeep(key, read).finally(() => this.#loading.delete(key))
    this.#loading.set(key, loading)
    return loading
  }

  async #loadAndKeep(key: string, read: () => Promise<V>): Promise<V> {
    const value = await read()
    this.#kept.set(key, value)
    return value
  }
}
