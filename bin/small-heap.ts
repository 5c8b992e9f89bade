/** How the heap of a command's own process grows; not for the library, whose process is somebody else's. */
import { setFlagsFromString } from 'node:v8'

const FLAG = '--semi-space-growth-factor=1'
// It is V8's own affair what its flags do: here it was measured, and the tests run with it.
const NEWEST_NODE = 26

/**
 * Keeps the young generation of the heap, in all threads, at about the size that it begins with; unless the user has a wish for it.
 *
 * V8 would let it grow to tens of MiB before it looks for garbage, and with it what that garbage holds on to outside of the heap, such
 * as each piece of a server's answer: 60 to 80 MiB more at the peak (Node 24), for a quarter more time, as caches are missed.
 */
export function keepHeapSmall(node = process.versions.node): void {
  const wishes = `${process.execArgv.join(' ')} ${process.env['NODE_OPTIONS'] ?? ''}`
  if (parseInt(node, 10) > NEWEST_NODE || /semi[-_]space/.test(wishes)) {
    return
  }
  const keepSmall = (): void => {
    setFlagsFromString(FLAG)
  }
  keepSmall()
  // V8 takes it back when it makes a heap for another thread, some time before that is online.
  process.on('worker', (worker) => {
    const timer = setInterval(keepSmall, 1).unref()
    const stop = (): void => {
      clearInterval(timer)
      keepSmall()
    }
    worker.once('online', stop).once('exit', stop)
  })
}
