/**
 * A stream of the caller's own, chunk by chunk: Node's, the web's, or whatever else can be iterated.
 *
 * Knows kinds of streams, not what comes out of them. Invariant: `return` lets go of the stream at once, also while a chunk is
 * waited for, which may never come.
 */
import { Qcow2Error, Qcow2SourceError, reasonOf } from '../errors.js'

interface NodeStream {
  on(event: 'error', listener: () => void): unknown
  destroy(): unknown
}

const isNodeStream = (input: unknown): input is NodeStream =>
  typeof input === 'object' &&
  input !== null &&
  'on' in input &&
  typeof input.on === 'function' &&
  'destroy' in input &&
  typeof input.destroy === 'function'

/**
 * Keeps the errors of streams that are to be read later; a stream keeps its error, too, for whoever reads it then. As an event
 * that nobody listens to, it would end the process.
 *
 * @param inputs What is no stream is left alone.
 */
export function holdErrors(...inputs: readonly unknown[]): void {
  for (const input of inputs.filter(isNodeStream)) {
    input.on('error', () => undefined)
  }
}

/** Reads a stream once. */
export class CallerStream implements AsyncIterable<unknown>, AsyncIterator<unknown> {
  readonly label: string
  #opened: Pick<AsyncIterator<unknown>, 'next' | 'return'> | undefined

  constructor(private readonly stream: AsyncIterable<unknown>) {
    this.label = 'fd' in stream && stream.fd === 0 ? 'standard input' : 'image from a stream'
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  /**
   * The next chunk.
   *
   * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
   * @throws Errors of this package, where it makes the stream
   */
  async next(): Promise<IteratorResult<unknown>> {
    try {
      return await this.#iterator.next()
    } catch (cause) {
      throw cause instanceof Qcow2Error
        ? cause
        : new Qcow2SourceError(
            'ERR_QCOW2_READ_FAILED',
            `reading the stream: ${reasonOf(cause)}`,
            { layer: this.label },
            cause,
          )
    }
  }

  async return(): Promise<IteratorResult<unknown>> {
    if (isNodeStream(this.stream)) {
      this.stream.destroy()
    }
    await this.#iterator.return?.()
    return { done: true, value: undefined }
  }

  get #iterator(): Pick<AsyncIterator<unknown>, 'next' | 'return'> {
    this.#opened ??= this.stream instanceof ReadableStream ? readerOf(this.stream) : this.stream[Symbol.asyncIterator]()
    return this.#opened
  }
}

/** The iterator of such a stream would cancel it only after the chunk that is waited for. */
function readerOf(stream: ReadableStream): Pick<AsyncIterator<unknown>, 'next' | 'return'> {
  const reader = stream.getReader()
  return {
    next: () => reader.read() as Promise<IteratorResult<unknown>>,
    return: async () => {
      await reader.cancel()
      return { done: true, value: undefined }
    },
  }
}
