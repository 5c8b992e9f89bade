/**
 * `qcow2-info --json` and `--map --json`, against `qemu-img info` and `qemu-img map`.
 */
import { execFile } from 'node:child_process'
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { createEncrypted } from '../fixtures/encrypted-images.js'
import { oracleTest, qemuImg, qemuIo } from '../fixtures/qemu.js'
import { runCommand } from '../fixtures/run-command.js'

type Json = Record<string, unknown>

/** What our command prints in a folder, as a value. */
async function ours(cwd: string, ...words: string[]): Promise<unknown> {
  const { code, stdout, stderr } = await runCommand(['--json', ...words], { cwd, command: 'qcow2-info' })
  if (code !== 0) throw new Error(`exit code ${code}: ${stderr}`)
  return JSON.parse(stdout.toString()) as unknown
}

/** Our object without what qemu-img does not print; nothing of it may be among what qemu-img prints. */
function withoutOurOwn(info: unknown): Json {
  const { warnings, 'unknown-features': unknown, ...rest } = info as Json
  if (info !== null && (info as Json)['format'] === 'qcow2') t.ok(Array.isArray(warnings) && Array.isArray(unknown))
  return rest
}

/** Asserts that both tell the same of an image. */
async function infoAgrees(t: Test, folder: string, name: string): Promise<void> {
  const expected = JSON.parse(await qemuImg(folder, 'info', '--output=json', name)) as Json
  t.strictSame(withoutOurOwn(await ours(folder, name)), expected, 'info')
}

/** A row without what qemu-img 7.2 does not print. */
const comparable = (row: Json): Json =>
  Object.fromEntries(Object.entries(row).filter(([name]) => name !== 'compressed'))

/** Asserts that both print the same rows; `compressed` is a name that qemu-img 7.2 does not have. */
async function mapAgrees(t: Test, folder: string, name: string): Promise<number> {
  const expected = JSON.parse(await qemuImg(folder, 'map', '--output=json', name)) as Json[]
  const rows = (await ours(folder, '--map', '--references', 'same-directory', name)) as Json[]
  t.strictSame(rows.map(comparable), expected.map(comparable), 'map')
  return rows.length
}

const SETTINGS = [
  'compat=0.10',
  'cluster_size=512,refcount_bits=1',
  'cluster_size=2M,refcount_bits=64',
  'lazy_refcounts=on',
  'compression_type=zstd',
  'extended_l2=on',
  'preallocation=metadata',
  'extended_l2=on,preallocation=metadata',
  'preallocation=falloc',
  'preallocation=full',
]

oracleTest('info and map of images of all kinds', async (t) => {
  const folder = t.testdir()
  for (const settings of SETTINGS) {
    await t.test(settings, async (t) => {
      await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', settings, 'a.qcow2', '12M')
      const commands = ['write 1M 192k', 'write -z 4M 300k', 'write 8M 4k', 'discard 1M 64k']
      await qemuIo(folder, 'a.qcow2', commands)
      // A cluster for which room is kept already is not compressed.
      if (!settings.includes('preallocation')) await qemuIo(folder, 'a.qcow2', ['write -c 6M 2M'], ['write -z 6M 64k'])
      await infoAgrees(t, folder, 'a.qcow2')
      t.ok((await mapAgrees(t, folder, 'a.qcow2')) > 3)
    })
  }
})

oracleTest('info of snapshots and bitmaps', async (t) => {
  const folder = t.testdir()
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
  for (const name of ['first', 'second "quoted"', 'ümläut']) {
    await qemuImg(folder, 'snapshot', '-q', '-c', name, 'a.qcow2')
    await qemuImg(folder, 'bitmap', '--add', '-g', '65536', '--disable', 'a.qcow2', `off ${name}`)
    await qemuImg(folder, 'bitmap', '--add', '-g', '512', 'a.qcow2', `on ${name}`)
  }
  await infoAgrees(t, folder, 'a.qcow2')
})

oracleTest('info of a bitmap that was not saved', async (t) => {
  const folder = t.testdir()
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
  await qemuImg(folder, 'bitmap', '--add', 'a.qcow2', 'b')
  // Whoever has the image open for writing says so in the bitmap; a process that is killed leaves that behind.
  await promisify(execFile)('bash', ['-c', 'qemu-io -f qcow2 -c "write 0 4k" -c "abort" a.qcow2; true'], {
    cwd: folder,
  })
  const info = (await ours(folder, 'a.qcow2')) as { 'format-specific': { data: { bitmaps: Json[] } } }
  t.strictSame(info['format-specific'].data.bitmaps, [{ name: 'b', granularity: 65536, flags: ['in-use', 'auto'] }])
  await infoAgrees(t, folder, 'a.qcow2')
})

oracleTest('info of encrypted images', async (t) => {
  const folder = t.testdir()
  const kinds = [
    'encrypt.format=aes',
    'encrypt.format=luks,encrypt.iter-time=10',
    'encrypt.format=luks,encrypt.iter-time=10,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256',
    'encrypt.format=luks,encrypt.iter-time=10,encrypt.cipher-mode=ecb,encrypt.hash-alg=sha1',
  ]
  for (const kind of kinds) {
    await t.test(kind, async (t) => {
      await createEncrypted(folder, 'a.qcow2', { settings: kind, size: 2 ** 20, secret: 'letmein' })
      await infoAgrees(t, folder, 'a.qcow2')
    })
  }
})

oracleTest('the map of an encrypted image, for which we need no passphrase', async (t) => {
  const folder = t.testdir()
  const settings = 'encrypt.format=luks,encrypt.iter-time=10'
  await createEncrypted(folder, 'a.qcow2', { settings, size: 4 * 2 ** 20, secret: 'letmein' })
  const secret = ['--object', 'secret,id=s,file=secret']
  const source = 'driver=qcow2,file.filename=a.qcow2,encrypt.key-secret=s'
  await promisify(execFile)('qemu-io', [...secret, '--image-opts', '-c', 'write 1M 128k', source], { cwd: folder })
  const expected = JSON.parse(
    await qemuImg(folder, 'map', ...secret, '--image-opts', '--output=json', source),
  ) as Json[]
  const rows = (await ours(folder, '--map', 'a.qcow2')) as Json[]
  t.strictSame(rows.map(comparable), expected)
})

oracleTest('info and map of a data file', async (t) => {
  for (const isRaw of ['on', 'off']) {
    const folder = t.testdir({ [isRaw]: {} })
    const options = `data_file=a.data,data_file_raw=${isRaw}`
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', options, 'a.qcow2', '12M')
    await qemuIo(folder, 'a.qcow2', ['write 1M 192k', 'write -z 4M 300k', 'discard 1M 64k'])
    await infoAgrees(t, folder, 'a.qcow2')
    await mapAgrees(t, folder, 'a.qcow2')
  }
})

oracleTest('info and map of a chain, with ends in all places', async (t) => {
  const folder = t.testdir({ sub: {} })
  writeFileSync(join(folder, 'sub/base.raw'), Buffer.alloc(65536, 1))
  truncateSync(join(folder, 'sub/base.raw'), 4 * 2 ** 20 + 512)
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'sub/base.raw', 'middle.qcow2', '6M')
  await qemuIo(folder, 'middle.qcow2', ['write 2M 64k', 'write -z 3M 64k'])
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'middle.qcow2', 'short.qcow2', '5M')
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'short.qcow2', 'top.qcow2', '12M')
  await qemuIo(folder, 'top.qcow2', ['write 2560k 64k', 'write 11M 64k'])
  await mapAgrees(t, folder, 'top.qcow2')
  await infoAgrees(t, folder, 'top.qcow2')
  const words = ['info', '--backing-chain', '--output=json']
  for (const [cwd, name] of [
    [folder, 'top.qcow2'],
    [folder, './top.qcow2'],
    [join(folder, 'sub'), '../top.qcow2'],
    [folder, join(folder, 'top.qcow2')],
  ] as const) {
    const expected = JSON.parse(await qemuImg(cwd, ...words, name)) as Json[]
    t.strictSame(((await ours(cwd, '--backing-chain', name)) as Json[]).map(withoutOurOwn), expected, name)
  }
})

oracleTest('info and map of an image that is marked corrupt or dirty', async (t) => {
  const folder = t.testdir()
  await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', 'lazy_refcounts=on', 'a.qcow2', '4M')
  await promisify(execFile)('bash', ['-c', 'qemu-io -f qcow2 -c "write 0 4k" -c "abort" a.qcow2; true'], {
    cwd: folder,
  })
  await infoAgrees(t, folder, 'a.qcow2')
  const info = (await ours(folder, 'a.qcow2')) as Json
  t.equal(info['dirty-flag'], true)
  t.match(info['warnings'], [{ code: 'WARN_QCOW2_DIRTY' }])
})
