/** How many threads decode if nobody says. */
import { availableParallelism } from 'node:os'

// More of them decode faster than one thread writes what they have decoded, and each takes memory.
const MOST_THREADS = 4
// As fast as most networks; and where reading takes memory as well, less of it is left for them.
const MOST_FRUGAL_THREADS = 2

/** One for each processor, within reason; what the files of the chain say of themselves counts. */
export function defaultThreads(
  files: readonly { readonly leavesMemory: boolean }[],
  processors = availableParallelism(),
): number {
  return Math.min(processors, files.some(({ leavesMemory }) => leavesMemory) ? MOST_FRUGAL_THREADS : MOST_THREADS)
}
