/**
 * Outputs that are files: nothing is replaced unasked, nothing is half done, zeros take no room.
 */
import {
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { buildImage } from '../fixtures/image-builder.js'
import { pattern } from '../fixtures/patterns.js'
import { ONE_LINE, runCommand } from '../fixtures/run-command.js'

const MIB = 2 ** 20

// 20,000 bytes of data in 4 MiB, in four places; the rest is unallocated, zero clusters, and zeros in data.
const scattered = Buffer.alloc(65536)
for (const offset of [0, 20480, 61440]) scattered.set(pattern(offset, 4096), offset)
const built = buildImage({
  virtualSize: 4 * MIB + 100,
  clusters: [
    [1, { kind: 'data', bytes: scattered }],
    [2, { kind: 'zero', preallocated: true }],
    [3, { kind: 'data', bytes: Buffer.alloc(65536) }],
    [4, { kind: 'compressed', bytes: Buffer.alloc(65536) }],
    [63, { kind: 'data', bytes: pattern(5, 4096) }],
  ],
})

/** A folder with the image. */
const folderOf = (t: Test): string => t.testdir({ 'a.qcow2': built.bytes })

t.test('writes the disk, leaves holes for zeros, and no other file', async (t) => {
  const cwd = folderOf(t)
  const { code, stdout, stderr } = await runCommand(['a.qcow2', 'out.img'], { cwd })
  t.equal(stderr, '')
  t.equal(code, 0)
  t.equal(stdout.length, 0)
  t.ok(readFileSync(join(cwd, 'out.img')).equals(built.guest))
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'out.img'])
  t.ok(statSync(join(cwd, 'out.img')).blocks * 512 <= 4 * 4096, 'four blocks of 4 KiB')
})

t.test('--sparse is the default, --no-sparse writes every byte', async (t) => {
  const cwd = folderOf(t)
  for (const [words, least, most] of [
    [['--sparse'], 1, 4 * 4096],
    [['--no-sparse'], 4 * MIB, 5 * MIB],
    [['--no-sparse', '--sparse'], 1, 4 * 4096],
  ] as const) {
    const { code, stderr } = await runCommand([...words, '-f', 'a.qcow2', 'out.img'], { cwd })
    t.equal(stderr, '')
    t.equal(code, 0)
    t.ok(readFileSync(join(cwd, 'out.img')).equals(built.guest))
    const allocated = statSync(join(cwd, 'out.img')).blocks * 512
    t.ok(allocated >= least && allocated <= most, `${words.join(' ')}: ${allocated} bytes`)
  }
})

t.test('refuses an existing file, whatever it is called, and leaves it alone', async (t) => {
  const cwd = folderOf(t)
  writeFileSync(join(cwd, 'old.img'), 'old')
  symlinkSync('old.img', join(cwd, 'link.img'))
  for (const name of ['old.img', 'link.img']) {
    const { code, stderr } = await runCommand(['a.qcow2', name], { cwd })
    t.equal(code, 2)
    t.match(stderr, ONE_LINE)
    t.match(stderr, /exists.*force/)
    t.equal(readFileSync(join(cwd, name), 'utf8'), 'old')
  }
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'link.img', 'old.img'])
})

for (const word of ['-f', '--force', '-fq']) {
  t.test(`${word} replaces an existing file and keeps its permissions`, async (t) => {
    const cwd = folderOf(t)
    const path = join(cwd, 'old.img')
    writeFileSync(path, Buffer.alloc(5 * MIB, 1))
    chmodSync(path, 0o604)
    linkSync(path, join(cwd, 'second name'))
    const { code, stderr } = await runCommand([word, 'a.qcow2', 'old.img'], { cwd })
    t.equal(stderr, '')
    t.equal(code, 0)
    t.ok(readFileSync(path).equals(built.guest))
    t.equal(statSync(path).mode & 0o7777, 0o604)
    t.ok(readFileSync(join(cwd, 'second name')).equals(Buffer.alloc(5 * MIB, 1)), 'it is another file now')
  })
}

t.test('--force keeps a file whose replacement fails', async (t) => {
  const damaged = buildImage({
    clusterBits: 9,
    clusters: [
      [0, { kind: 'data', bytes: pattern(1, 512) }],
      [1, { kind: 'raw-entry', entry: 0x1234n }],
    ],
  })
  const cwd = t.testdir({ 'a.qcow2': damaged.bytes, 'old.img': 'old' })
  const { code, stderr } = await runCommand(['--force', 'a.qcow2', 'old.img'], { cwd })
  t.equal(code, 3)
  t.match(stderr, ONE_LINE)
  t.equal(readFileSync(join(cwd, 'old.img'), 'utf8'), 'old')
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'old.img'])
})

t.test('--force follows a link to the file that it stands for', async (t) => {
  const cwd = folderOf(t)
  mkdirSync(join(cwd, 'elsewhere'))
  writeFileSync(join(cwd, 'elsewhere', 'old.img'), 'old')
  symlinkSync('elsewhere/old.img', join(cwd, 'link.img'))
  const { code, stderr } = await runCommand(['--force', 'a.qcow2', 'link.img'], { cwd })
  t.equal(stderr, '')
  t.equal(code, 0)
  t.equal(readlinkSync(join(cwd, 'link.img')), 'elsewhere/old.img')
  t.ok(lstatSync(join(cwd, 'elsewhere', 'old.img')).isFile())
  t.ok(readFileSync(join(cwd, 'elsewhere', 'old.img')).equals(built.guest))
})

t.test('refuses a link that leads nowhere', async (t) => {
  const cwd = folderOf(t)
  symlinkSync('nowhere/\u001b[31mout.img', join(cwd, 'link.img'))
  for (const words of [[], ['--force']]) {
    const { code, stderr } = await runCommand([...words, 'a.qcow2', 'link.img'], { cwd })
    t.equal(code, 2)
    t.match(stderr, ONE_LINE)
    t.match(stderr, /link.*u001b\[31mout\.img/)
  }
})

t.test('never writes over what it reads, under whatever name', async (t) => {
  const data = pattern(7, 512)
  const overlay = buildImage({ clusterBits: 9, backingFile: { name: 'base.qcow2', format: 'qcow2' } })
  const base = buildImage({ clusterBits: 9, dataFile: { name: 'base.data' }, clusters: [[0, { kind: 'zero' }]] })
  const cwd = t.testdir({ 'a.qcow2': overlay.bytes, 'base.qcow2': base.bytes, 'base.data': data })
  for (const name of ['a.qcow2', 'base.qcow2', 'base.data']) {
    linkSync(join(cwd, name), join(cwd, `hard ${name}`))
    symlinkSync(name, join(cwd, `soft ${name}`))
    for (const output of [name, `./${name}`, `hard ${name}`, `soft ${name}`]) {
      const { code, stderr } = await runCommand(['--force', 'a.qcow2', output], { cwd })
      t.equal(code, 2)
      t.match(stderr, ONE_LINE)
      t.match(stderr, /read from/)
    }
  }
  t.ok(readFileSync(join(cwd, 'a.qcow2')).equals(overlay.bytes))
  t.ok(readFileSync(join(cwd, 'base.qcow2')).equals(base.bytes))
  t.ok(readFileSync(join(cwd, 'base.data')).equals(data))
})

t.test('--fsync gives the same file', async (t) => {
  const cwd = folderOf(t)
  const { code, stderr } = await runCommand(['--fsync', 'a.qcow2', 'out.img'], { cwd })
  t.equal(stderr, '')
  t.equal(code, 0)
  t.ok(readFileSync(join(cwd, 'out.img')).equals(built.guest))
  t.same(readdirSync(cwd).sort(), ['a.qcow2', 'out.img'])
})

t.test('takes names as they are', async (t) => {
  const names = [
    'with space',
    '7',
    'ünï–写真',
    'new\nline',
    '\u001b[31mred',
    '1e3',
    '007',
    'true',
    'a:b',
    '*',
    '"q" $HOME',
  ]
  for (const name of names) {
    await t.test(JSON.stringify(name), async (t) => {
      const cwd = t.testdir({ [name]: built.bytes })
      const { code, stderr } = await runCommand([name, `${name}.img`], { cwd })
      t.equal(stderr, '')
      t.equal(code, 0)
      t.ok(readFileSync(join(cwd, `${name}.img`)).equals(built.guest))
      const again = await runCommand([name, `${name}.img`], { cwd })
      t.equal(again.code, 2)
      t.match(again.stderr, ONE_LINE)
    })
  }
})

t.test('takes names that begin with a dash after --', async (t) => {
  for (const [input, output] of [
    ['-a.qcow2', '-out.img'],
    ['--help', '--force'],
    ['--', '---'],
    ['-1', '-2'],
  ] as const) {
    await t.test(`${input} ${output}`, async (t) => {
      const cwd = t.testdir({ [input]: built.bytes })
      const { code, stdout, stderr } = await runCommand(['--', input, output], { cwd })
      t.equal(stderr, '')
      t.equal(code, 0)
      t.equal(stdout.length, 0)
      t.ok(readFileSync(join(cwd, output)).equals(built.guest))
    })
  }
  const cwd = t.testdir({ 'a.qcow2': built.bytes })
  const mixed = await runCommand(['a.qcow2', '--quiet', '--', '-out.img'], { cwd })
  t.equal(mixed.code, 0)
  t.ok(readFileSync(join(cwd, '-out.img')).equals(built.guest))
})
