/**
 * Outputs that are block devices: never overwritten unasked or while in use, and written where they stand.
 */
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { endlessImage, ENDLESS_BYTES } from '../fixtures/endless-image.js'
import { buildImage } from '../fixtures/image-builder.js'
import { loopDevice, loopDeviceTest, type LoopDevice } from '../fixtures/loop-device.js'
import { filled, pattern, text } from '../fixtures/patterns.js'
import {
  commandPath,
  missingPrograms,
  ONE_LINE,
  runBash,
  runCommand,
  start,
  startCommand,
} from '../fixtures/run-command.js'

const MIB = 2 ** 20

const { bytes: image, guest } = buildImage({
  virtualSize: 3 * MIB + 100,
  clusters: [
    [1, { kind: 'data', bytes: Buffer.concat([pattern(1, 4096), Buffer.alloc(57344), pattern(2, 4096)]) }],
    [2, { kind: 'zero', preallocated: true }],
    [5, { kind: 'compressed', bytes: text(3, 65536) }],
    [48, { kind: 'data', bytes: pattern(4, 100) }],
  ],
})

/** A folder with the image, and a device of `length` bytes that are all `byte`. */
function setUp(t: Test, byte: number, length = 4 * MIB): { cwd: string; device: LoopDevice; old: Buffer } {
  const old = filled(byte, length)
  const cwd = t.testdir({ 'a.qcow2': image, device: old })
  return { cwd, device: loopDevice(t, join(cwd, 'device')), old }
}

/** Asserts that the device is one still, that nobody has claimed it, and that no file was made. */
function expectNode(t: Test, { path }: LoopDevice, cwd: string): void {
  t.ok(statSync(path).isBlockDevice())
  closeSync(openSync(path, constants.O_RDONLY | constants.O_EXCL))
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'device'])
}

loopDeviceTest('--force overwrites a device, zeros included, and leaves what lies behind the disk', async (t) => {
  for (const [words, isCovered] of [
    [['--force'], true],
    [['-f', '--no-sparse', '--threads', '0'], false],
    [['-f', '--fsync', '--quiet'], false],
  ] as const) {
    const { cwd, device, old } = setUp(t, 0xff)
    const { code, stdout, stderr } = await runCommand([...words, 'a.qcow2', device.path], { cwd, isCovered })
    t.equal(stderr, '')
    t.equal(code, 0)
    t.equal(stdout.length, 0)
    t.ok(device.contents().equals(Buffer.concat([guest, old.subarray(guest.length)])), words.join(' '))
    t.ok(readFileSync(join(cwd, 'device')).equals(device.contents()), 'and it is flushed')
    expectNode(t, device, cwd)
  }
})

loopDeviceTest('--target-is-zero passes over zeros, but for --no-sparse', async (t) => {
  const { cwd, device } = setUp(t, 0)
  const onZeros = await runCommand(['--force', '--target-is-zero', 'a.qcow2', device.path], { cwd })
  t.same([onZeros.code, onZeros.stderr], [0, ''])
  t.ok(device.contents().equals(Buffer.concat([guest, Buffer.alloc(4 * MIB - guest.length)])))

  const full = setUp(t, 0xff)
  const words = ['--force', '--target-is-zero', 'a.qcow2', full.device.path]
  t.same((await runCommand(words, { cwd: full.cwd })).code, 0)
  const shown = full.device.contents()
  t.ok(shown.subarray(0, 65536).equals(filled(0xff, 65536)), 'it was no lie of ours')
  t.ok(shown.subarray(65536, 65536 + 4096).equals(pattern(1, 4096)))
  t.same((await runCommand(['--no-sparse', ...words], { cwd: full.cwd })).code, 0)
  t.ok(full.device.contents().equals(Buffer.concat([guest, full.old.subarray(guest.length)])))
})

t.test('--target-is-zero is refused where the output is no device', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': image, 'old.img': 'old' })
  for (const words of [['new.img'], ['--force', 'old.img'], ['-'], []]) {
    const { code, stdout, stderr } = await runCommand(['--target-is-zero', 'a.qcow2', ...words], { cwd })
    t.equal(code, 2)
    t.equal(stdout.length, 0)
    t.match(stderr, ONE_LINE)
    t.match(stderr, /--target-is-zero.*no block device/)
  }
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'old.img'])
  t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
})

loopDeviceTest('refuses a device without --force, and leaves it alone', async (t) => {
  const { cwd, device, old } = setUp(t, 0xff)
  const { code, stderr } = await runCommand(['a.qcow2', device.path], { cwd })
  t.equal(code, 2)
  t.match(stderr, ONE_LINE)
  t.match(stderr, /is a block device; the option --force overwrites it/)
  t.ok(device.contents().equals(old))
})

loopDeviceTest(
  'refuses a device that is too small before it writes, and takes one for a part of the disk',
  async (t) => {
    const { cwd, device, old } = setUp(t, 0xff, 3 * MIB)
    for (const words of [[], ['--target-is-zero']]) {
      const { code, stderr } = await runCommand(['--force', ...words, 'a.qcow2', device.path], { cwd })
      t.equal(code, 2)
      t.match(stderr, ONE_LINE)
      t.match(stderr, /the device has 3145728 bytes, and 3145828 would be written/)
      t.ok(device.contents().equals(old))
    }
    const part = await runCommand(['--force', '--start', '64K', '--end', '3M', 'a.qcow2', device.path], { cwd })
    t.same([part.code, part.stderr], [0, ''])
    const bytes = guest.subarray(65536, 3 * MIB + 1)
    t.ok(device.contents().equals(Buffer.concat([bytes, old.subarray(bytes.length)])))
  },
)

loopDeviceTest('refuses a device that it reads from, whichever node names it', async (t) => {
  const cwd = t.testdir({ device: Buffer.concat([image, Buffer.alloc(512)]), nodes: {} })
  const device = loopDevice(t, join(cwd, 'device'))
  device.makeNode(join(cwd, 'nodes', 'node'))
  const before = device.contents()
  for (const name of [device.path, 'nodes/node']) {
    const { code, stderr } = await runCommand(['--force', device.path, name], { cwd })
    t.equal(code, 2)
    t.match(stderr, ONE_LINE)
    t.match(stderr, /read from/)
  }
  t.ok(device.contents().equals(before))
  const away = await runCommand([device.path, 'out.img'], { cwd })
  t.same([away.code, away.stderr], [0, ''])
  t.ok(readFileSync(join(cwd, 'out.img')).equals(guest), 'while it can be read from')
})

loopDeviceTest('refuses a device that was opened by the shell', async (t) => {
  const { cwd, device, old } = setUp(t, 0xff)
  const { code, stderr } = await runBash(`"$RUN" "$COMMAND" --force a.qcow2 1<> ${device.path}`, { cwd })
  t.equal(code, 2)
  t.match(stderr, ONE_LINE)
  t.match(stderr, /is a block device;.*by its path/)
  t.ok(device.contents().equals(old))
})

const noMounts = missingPrograms('unshare', 'mkfs.ext4', 'bash')

loopDeviceTest('refuses a device that is mounted, and one that cannot be written to', async (t) => {
  const { cwd, device } = setUp(t, 0, 8 * MIB)
  mkdirSync(join(cwd, 'mounted'))
  if (noMounts === false) {
    const script =
      `mkfs.ext4 -q ${device.path} && mount ${device.path} mounted && echo kept > mounted/file && ` +
      `{ "$RUN" "$COMMAND" --force a.qcow2 ${device.path}; echo "exit code $?"; cat mounted/file; }`
    // Nobody else sees the mount, which is gone when the program is.
    const { stdout, stderr } = await start('unshare', ['--mount', 'bash', '-c', script], {
      cwd,
      env: { RUN: process.execPath, COMMAND: commandPath },
    }).ended
    t.equal(stdout.toString(), 'exit code 1\nkept\n')
    t.match(stderr, ONE_LINE)
    t.match(stderr, /is in use: mounted, or part of something that is/)
  } else {
    t.comment(noMounts)
  }
  writeFileSync(join(cwd, 'fixed'), filled(0xff, 4 * MIB))
  const fixed = loopDevice(t, join(cwd, 'fixed'), ['--read-only'])
  const { code, stderr } = await runCommand(['--force', 'a.qcow2', fixed.path], { cwd })
  t.equal(code, 1)
  t.match(stderr, ONE_LINE)
  t.match(stderr, /: E(PERM|ACCES|ROFS): /)
  t.ok(fixed.contents().equals(filled(0xff, 4 * MIB)))
})

loopDeviceTest('leaves a device partly written, and free, when the image is damaged', async (t) => {
  const { cwd, device, old } = setUp(t, 0xff)
  const damaged = buildImage({
    clusters: [
      [0, { kind: 'data', bytes: pattern(1, 65536) }],
      [40, { kind: 'raw-entry', entry: 0x1234n }],
    ],
  })
  writeFileSync(join(cwd, 'a.qcow2'), damaged.bytes)
  const { code, stderr } = await runCommand(['--force', 'a.qcow2', device.path], { cwd })
  t.equal(code, 3)
  t.match(stderr, ONE_LINE)
  t.ok(
    device
      .contents()
      .subarray(41 * 65536)
      .equals(old.subarray(41 * 65536)),
  )
  expectNode(t, device, cwd)
})

for (const [signal, exitCode] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const) {
  for (const words of [[], ['--target-is-zero', '--threads', '0']]) {
    const title = `${signal} in the middle of writing ${words.join(' ')}`.trim()
    loopDeviceTest(`${title} leaves a device that is free again, and no file`, async (t) => {
      const cwd = t.testdir({ 'a.qcow2': endlessImage(), device: '' })
      // A hole, of which hardly anything will be filled.
      truncateSync(join(cwd, 'device'), ENDLESS_BYTES)
      const device = loopDevice(t, join(cwd, 'device'))
      const { child, ended } = startCommand(['--force', ...words, 'a.qcow2', device.path], { cwd })
      const first = Buffer.alloc(16)
      while (child.exitCode === null && !first.equals(pattern(1, 16))) {
        readSync(device.fd, first, 0, 16, 0)
        await setImmediate()
      }
      child.kill(signal)
      const how = await ended
      t.equal(how.code, exitCode)
      t.equal(how.stderr, `qcow2-to-raw: interrupted by ${signal}\n`)
      expectNode(t, device, cwd)
    })
  }
}
