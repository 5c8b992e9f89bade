/**
 * --salvage: what cannot be read becomes zeros and is listed, the exit code tells, and the rest is as qemu-img salvages it.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { buildImage } from '../fixtures/image-builder.js'
import { pattern, text } from '../fixtures/patterns.js'
import { oracleTest, qemuImg } from '../fixtures/qemu.js'
import { ONE_LINE, runBash, runCommand } from '../fixtures/run-command.js'

const SIZE = 65536

const damaged = buildImage({
  clusters: [
    [0, { kind: 'data', bytes: pattern(0, SIZE) }],
    [1, { kind: 'compressed-raw', payload: pattern(1, 3000) }],
    [2, { kind: 'compressed', bytes: text(2, SIZE) }],
    [3, { kind: 'raw-entry', entry: 0x1fen }],
    [4, { kind: 'data', bytes: pattern(4, SIZE) }],
  ],
})

t.test('lists what became zeros, and keeps the output', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': damaged.bytes })
  for (const words of [['--salvage'], ['--salvage', '--quiet', '--force']]) {
    const { code, stderr } = await runCommand([...words, 'a.qcow2', 'out.img'], { cwd, isCovered: true })
    t.equal(code, 6)
    const lines = stderr.split('\n').slice(0, -1).sort()
    t.equal(lines.length, 3)
    t.ok(lines.every((line) => ONE_LINE.test(`${line}\n`)))
    t.match(lines[0], /salvaged: 131072 of 327680 bytes are zeros, ranges: 2;/)
    t.match(
      lines[1],
      /zeros instead of guest bytes 196608 to 262143: "a\.qcow2": L2 entry 3 .*reserved bits 0x1fe are set/,
    )
    t.match(lines[2], /zeros instead of guest bytes 65536 to 131071: "a\.qcow2": the compressed cluster/)
    t.same(readdirSync(cwd), ['a.qcow2', 'out.img'])
    t.ok(readFileSync(join(cwd, 'out.img')).equals(damaged.guest))
  }
})

t.test('tells once what is wrong with a table, however long it is', async (t) => {
  // 16 GiB in 32 tables, none of which can be found.
  const { bytes } = buildImage({ virtualSize: 2 ** 34, header: { l1TableOffset: 0x7000_0000 } })
  const cwd = t.testdir({ 'a.qcow2': bytes })
  const { code, stderr } = await runCommand(['--salvage', 'a.qcow2', 'out.img'], { cwd, isCovered: true })
  t.equal(code, 6)
  t.match(
    stderr,
    /^qcow2-to-raw: zeros instead of guest bytes 0 to 17179869183: "a\.qcow2": the L1 table .*\nqcow2-to-raw: salvaged: [^\n]+\n$/,
  )
})

t.test('does the same on standard output', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': damaged.bytes })
  const { code, stdout } = await runBash('"$RUN" "$COMMAND" --salvage a.qcow2 2>/dev/null', { cwd })
  t.equal(code, 6)
  t.ok(stdout.equals(damaged.guest))
})

t.test('changes nothing where nothing is damaged, nor where nothing can be read at all', async (t) => {
  const good = buildImage({ clusters: [[0, { kind: 'data', bytes: pattern(0, SIZE) }]] })
  const cwd = t.testdir({ 'a.qcow2': good.bytes, 'b.qcow2': good.bytes.subarray(0, 100) })
  const { code, stderr } = await runCommand(['--salvage', 'a.qcow2', 'out.img'], { cwd })
  t.equal(code, 0)
  t.equal(stderr, '')
  t.ok(readFileSync(join(cwd, 'out.img')).equals(good.guest))
  const other = await runCommand(['--salvage', 'b.qcow2', 'b.img'], { cwd })
  t.equal(other.code, 3)
  t.match(other.stderr, ONE_LINE)
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'b.qcow2', 'out.img'])
})

oracleTest('reads around damage as qemu-img --salvage does', async (t) => {
  const { bytes, guest } = buildImage({
    clusters: [
      [0, { kind: 'compressed', bytes: text(0, SIZE) }],
      [1, { kind: 'compressed-raw', payload: pattern(1, 3000) }],
      [2, { kind: 'data', bytes: pattern(2, SIZE) }],
      // No multiple of the cluster size.
      [3, { kind: 'raw-entry', entry: 0x8000_0000_0001_0200n }],
      [4, { kind: 'data', bytes: pattern(4, SIZE) }],
    ],
  })
  const cwd = t.testdir({ 'a.qcow2': bytes, 'b.qcow2': bytes })
  // It marks the image corrupt as it meets the entry, hence a copy.
  await qemuImg(cwd, 'convert', '--salvage', '-f', 'qcow2', '-O', 'raw', 'b.qcow2', 'qemu.img')
  const { code } = await runCommand(['--salvage', 'a.qcow2', 'out.img'], { cwd })
  t.equal(code, 6)
  t.ok(readFileSync(join(cwd, 'out.img')).equals(readFileSync(join(cwd, 'qemu.img'))))
  t.ok(readFileSync(join(cwd, 'out.img')).equals(guest))
})
