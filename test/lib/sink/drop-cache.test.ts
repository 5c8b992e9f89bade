// Whether the system has forgotten a file: fincore of util-linux tells how much of one is in memory.
import { spawnSync } from 'node:child_process'
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { dropCache } from '../../../lib/sink/drop-cache.js'
import { noKoffi } from '../../fixtures/koffi.js'
import { missingPrograms } from '../../fixtures/run-command.js'
import { pattern } from '../../fixtures/patterns.js'

const LENGTH = 2 ** 20

/** Bytes of the file that are in memory. */
function cachedBytes(path: string): number {
  const { stdout } = spawnSync('fincore', ['--bytes', '--noheadings', '--output', 'RES', path])
  return Number(stdout.toString())
}

function cannotDrop(folder: string): string | false {
  if (noKoffi !== false) return noKoffi
  // What such a file system keeps, it keeps nowhere else.
  const { stdout } = spawnSync('stat', ['--file-system', '--format=%T', folder])
  return stdout.toString().trim() === 'tmpfs' && 'this file system is nothing but memory'
}

t.test('drops what is on the disk already', { skip: missingPrograms('fincore', 'stat') }, async (t) => {
  const folder = t.testdir()
  const skip = cannotDrop(folder)
  await t.test('of an open file', { skip }, async (t) => {
    const path = join(folder, 'file')
    const fd = openSync(path, 'wx+')
    t.teardown(() => {
      closeSync(fd)
    })
    writeSync(fd, pattern(1, LENGTH))
    fsyncSync(fd)
    t.equal(cachedBytes(path), LENGTH)
    await dropCache(fd)
    t.ok(cachedBytes(path) < LENGTH, `${cachedBytes(path)} bytes are left`)
  })
})

t.test('does nothing to what has no cache', async (t) => {
  await t.resolves(dropCache(-1))
})
