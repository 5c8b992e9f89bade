/**
 * Standard output, for texts.
 *
 * Invariant: whoever reads slowly is waited for, so that a text can be longer than memory is large.
 */

// Node tells of a failure twice: the event comes after the answer to the write.
const ignore = (): void => undefined

/** Prints a text, and waits until it has been taken. @throws {Error} as the write fails, `EPIPE` for example */
export function print(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.off('error', ignore).on('error', ignore)
    process.stdout.write(text, (error) => {
      if (error) {
        reject(error)
      } else {
        resolve()
      }
    })
  })
}

/** Whether whoever reads standard output has had enough: that is their affair and needs no words. */
export const isBrokenPipe = (error: unknown): boolean =>
  [error, (error as Error).cause].some((one) => (one as NodeJS.ErrnoException | undefined)?.code === 'EPIPE')
