/**
 * No room: exit code 1, one line that says where writing stopped and why, nothing half done, and the old target kept.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { buildImage } from '../fixtures/image-builder.js'
import { pattern } from '../fixtures/patterns.js'
import { noMounts, unshare } from '../fixtures/private-mounts.js'
import { commandPath, missingPrograms, ONE_LINE, runBash, start } from '../fixtures/run-command.js'

// 2 MiB of data, and a hole of 2 GiB behind it.
const { bytes: image } = buildImage({
  virtualSize: 2 ** 31,
  clusters: Array.from({ length: 32 }, (_, i) => [i, { kind: 'data', bytes: pattern(i, 65536) }] as const),
})

t.test('on a full file system', { skip: noMounts || missingPrograms('bash') }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': image, small: {} })
  const script =
    'mount -t tmpfs -o size=1m tmpfs small && printf old > small/old.img && ' +
    '{ "$RUN" "$COMMAND" "$@"; echo "exit code $?"; ls -A small; cat small/old.img; }'
  for (const words of [[], ['--no-sparse'], ['--threads', '0', '--fsync']]) {
    for (const name of ['new.img', 'old.img']) {
      const [program, ...first] = [...unshare, 'bash', '-c', script, 'bash', ...words]
      const { stdout, stderr } = await start(program!, [...first, '--force', 'a.qcow2', `small/${name}`], {
        cwd,
        env: { RUN: process.execPath, COMMAND: commandPath },
      }).ended
      t.match(stderr, ONE_LINE)
      t.match(stderr, /img": writing \d+ bytes at offset 0x[0-9a-f]+: ENOSPC/)
      t.equal(stdout.toString(), 'exit code 1\nold.img\nold', 'the old file is there as it was, and nothing else')
    }
  }
})

t.test('beyond the size that a file may have', { skip: missingPrograms('bash') }, async (t) => {
  const cwd = t.testdir({ 'a.qcow2': image, 'old.img': 'old' })
  // In units of 1024 bytes. The first stops the data, the second the length that is set at the end.
  for (const [limit, says] of [
    [1024, /setting the length to \d+ bytes: EFBIG/],
    [1024 * 1024, /length to 2147483648 bytes: EFBIG/],
  ] as const) {
    for (const name of ['new.img', 'old.img']) {
      const line = `ulimit -f ${limit} && exec "$RUN" "$COMMAND" --force a.qcow2 ${name}`
      const { code, stderr } = await runBash(line, { cwd })
      t.equal(code, 1)
      t.match(stderr, ONE_LINE)
      t.match(stderr, says)
      t.same(readdirSync(cwd).sort(), ['a.qcow2', 'old.img'])
      t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
    }
  }
})
