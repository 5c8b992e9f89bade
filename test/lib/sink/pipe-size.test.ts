// Larger pipes: how much they hold afterwards, and that nothing happens to what is no pipe.
import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import t from 'tap'
import { openSequential } from '../../../lib/sink/sequential-output.js'
import { enlargePipe } from '../../../lib/sink/pipe-size.js'

function whyNot(): string | false {
  if (process.platform !== 'linux') return 'only Linux lets a pipe be enlarged'
  try {
    createRequire(import.meta.url).resolve('koffi')
    return false
  } catch {
    return 'koffi, an optional dependency, is not installed'
  }
}

/** Bytes that fit into a pipe before anybody reads. */
function capacityOf(fd: number): number {
  const bytes = Buffer.alloc(4096)
  for (let total = 0; ; total += bytes.length) {
    try {
      writeSync(fd, bytes)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return total
      throw error
    }
  }
}

t.test('makes a pipe hold a mebibyte', { skip: whyNot() }, async (t) => {
  const path = join(t.testdir(), 'fifo')
  execFileSync('mkfifo', [path])
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  t.teardown(() => {
    closeSync(fd)
  })
  await enlargePipe(fd)
  t.equal(capacityOf(fd), 2 ** 20)
})

t.test('is asked for when much is to be written, and only then', { skip: whyNot() }, async (t) => {
  for (const [length, isLarge] of [
    [64 * 2 ** 20 - 1, false],
    [64 * 2 ** 20, true],
  ] as const) {
    const path = join(t.testdir(), 'fifo')
    execFileSync('mkfifo', [path])
    const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
    const output = await openSequential(path, length)
    t.equal(capacityOf(fd) === 2 ** 20, isLarge, `${length} bytes`)
    await output.close()
    closeSync(fd)
  }
})

t.test('does nothing to what is no pipe', async (t) => {
  const path = join(t.testdir({ file: 'content' }), 'file')
  const fd = openSync(path, 'r')
  await t.resolves(enlargePipe(fd))
  closeSync(fd)
  await t.resolves(enlargePipe(fd))
})
