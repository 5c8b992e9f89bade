/**
 * Frees memory that has been used without waiting for the garbage collector.
 *
 * What a cipher returns is new memory each time, and the collector lets dozens of megabytes of it pile up in every thread. Memory
 * that is posted to a closed port goes at once: it is transferred, and nobody receives it. (Node 20 has no
 * `ArrayBuffer.prototype.transfer`, which would say the same in one word.)
 */

// A message costs about as much as decrypting some kilobytes.
const MESSAGE_BYTES = 2 ** 20

export class SpentMemory {
  readonly #port = closedPort()
  #buffers: ArrayBuffer[] = []
  #bytes = 0

  /** Takes bytes that have memory of their own and that nobody needs any more. */
  add({ buffer }: Uint8Array): void {
    this.#buffers.push(buffer as ArrayBuffer)
    this.#bytes += buffer.byteLength
    if (this.#bytes >= MESSAGE_BYTES) {
      this.#port.postMessage(undefined, this.#buffers)
      this.#buffers = []
      this.#bytes = 0
    }
  }

  /** Overwrites what has not been freed yet. */
  wipe(): void {
    for (const buffer of this.#buffers) {
      new Uint8Array(buffer).fill(0)
    }
  }
}

function closedPort(): InstanceType<typeof MessageChannel>['port1'] {
  const { port1 } = new MessageChannel()
  port1.close()
  return port1
}
