// The line for a digest, as GNU coreutils have it, and what standard output is.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { fstatSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { checksumLine, isStandardOutput } from '../../../bin/convert/checksum.js'
import { missingPrograms } from '../../fixtures/run-command.js'

// The last one: older coreutils leave a carriage return as it is.
const NAMES = ['disk.img', ' two  words ', 'back\\slash', 'new\nline', '\\', 'a\\nb', 'ä€', "quote's", 'both\\\n']

t.test('is what sha256sum prints, and takes', { skip: missingPrograms('sha256sum') }, async (t) => {
  const cwd = t.testdir()
  for (const name of NAMES) {
    writeFileSync(join(cwd, name), name)
    const digest = createHash('sha256').update(name).digest('hex')
    const line = checksumLine(digest, name)
    t.equal(line, spawnSync('sha256sum', ['--', name], { cwd }).stdout.toString(), JSON.stringify(name))
    t.equal(spawnSync('sha256sum', ['--check', '--quiet'], { cwd, input: line }).status, 0)
  }
  const line = checksumLine('abc', 'a\rb')
  t.equal(line, '\\abc  a\\rb\n')
  const { status, stdout } = spawnSync('sha256sum', ['--', 'a\rb'], { cwd: t.testdir({ 'a\rb': '' }) })
  t.equal(status, 0)
  if (stdout.includes('\\r')) t.ok(stdout.toString().endsWith('  a\\rb\n'))
})

t.test('knows standard output by all of its names, and nothing else', async (t) => {
  t.equal(isStandardOutput(undefined), true)
  t.equal(isStandardOutput('/no/such/folder/file'), false)
  t.equal(isStandardOutput(import.meta.filename), false)
  if (process.platform === 'linux') {
    for (const name of ['/dev/stdout', '/dev/fd/1', '/proc/self/fd/1', `/proc/${process.pid}/fd/1`]) {
      t.equal(isStandardOutput(name), true, `${name}: ${readlinkSync('/proc/self/fd/1')}, ${fstatSync(1).mode}`)
    }
  }
})
