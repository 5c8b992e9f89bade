/**
 * Encrypted images, whatever way clusters are stored in, with snapshots, in chains, and with key slots of all kinds.
 */
import { copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Qcow2Image, type Qcow2EncryptedLayer } from '../../lib/index.js'
import { agreeOnEncrypted, amend, createEncrypted, encryptedIo, LUKS, SECRET } from '../fixtures/encrypted-images.js'
import { encryptedSource, type QemuSource } from '../fixtures/qemu-source.js'
import { agreesWithQemu, oracleTest, qemuImg } from '../fixtures/qemu.js'
import { randomWrites } from '../fixtures/random-writes.js'
import { rejection } from '../fixtures/expect-error.js'

const KIB = 1024

const STORED: readonly [settings: string, clusterBytes: number][] = [
  ['cluster_size=512', 512],
  ['cluster_size=4096', 4096],
  ['cluster_size=2M', 2 ** 21],
  ['compat=0.10', 65536],
  ['extended_l2=on,cluster_size=16384', 16384],
  ['extended_l2=on,compression_type=zstd', 65536],
  ['preallocation=metadata', 65536],
  ['preallocation=full,cluster_size=4096', 4096],
  ['data_file=a.data', 65536],
]

for (const format of [LUKS, 'encrypt.format=aes']) {
  oracleTest(`clusters stored in every way: ${format.replace(/,.*/, '')}`, async (t) => {
    await Promise.all(
      STORED.map(([settings, clusterBytes], index) =>
        t.test(settings, { buffered: true }, (t) =>
          agreeOnEncrypted(t, `${format},${settings}`, 100 + index, clusterBytes),
        ),
      ),
    )
  })

  oracleTest(`snapshots: ${format.replace(/,.*/, '')}`, async (t) => {
    const folder = t.testdir()
    const disk = { clusterBytes: 4096, diskBytes: 300 * KIB, count: 8 }
    await createEncrypted(folder, 'a.qcow2', {
      settings: `${format},cluster_size=4096`,
      size: disk.diskBytes,
      secret: SECRET,
    })
    const source = encryptedSource('a.qcow2', 'secret')
    for (const [seed, name] of ['first', 'second'].entries()) {
      await encryptedIo(folder, source, ...randomWrites(seed, disk))
      await qemuImg(folder, 'snapshot', '-q', ...source.flags, '-c', name, source.name)
    }
    await encryptedIo(folder, source, ['write -P 9 1000 9000'])
    const disks = [await agreesWithQemu(t, folder, 'a.qcow2', { options: { passphrase: SECRET }, qemuSource: source })]
    for (const snapshot of ['first', 'second']) {
      copyFileSync(join(folder, 'a.qcow2'), join(folder, 'copy.qcow2'))
      const copy = encryptedSource('copy.qcow2', 'secret')
      await qemuImg(folder, 'snapshot', '-q', ...copy.flags, '-a', snapshot, copy.name)
      const options = { passphrase: SECRET, snapshot }
      disks.push(await agreesWithQemu(t, folder, 'a.qcow2', { options, qemuSource: copy }))
    }
    t.equal(new Set(disks.map((bytes) => bytes.toString('latin1'))).size, 3)
  })
}

oracleTest('a chain in which each layer has a secret of its own, or none', async (t) => {
  const folder = t.testdir()
  const disk = { clusterBytes: 65536, diskBytes: 600 * KIB, count: 5 }
  const layers = [
    { name: 'top', settings: LUKS },
    { name: 'legacy', settings: 'encrypt.format=aes' },
    { name: 'plain', settings: undefined },
    { name: 'bottom', settings: `${LUKS},cluster_size=4096` },
  ]
  /** The layer at a depth, and all below it. */
  const source = (depth: number): QemuSource => {
    const below = layers.slice(depth)
    const options = below.flatMap(({ name, settings }, i) => {
      const at = 'backing.'.repeat(i)
      const key = settings === undefined ? [] : [`${at}encrypt.key-secret=${name}`]
      return [`${at}driver=qcow2`, `${at}file.filename=${name}.qcow2`, ...key]
    })
    const encrypted = below.filter(({ settings }) => settings !== undefined)
    const secrets = encrypted.flatMap(({ name }) => ['--object', `secret,id=${name},file=${name}.secret`])
    return { flags: [...secrets, '--image-opts'], name: options.join() }
  }
  for (const [depth, { name, settings }] of [...layers.entries()].reverse()) {
    const backing = depth === 3 ? undefined : `${layers[depth + 1]!.name}.qcow2`
    if (settings === undefined) {
      await qemuImg(folder, 'create', '-q', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b', backing!, `${name}.qcow2`, '600k')
    } else {
      const spec = { settings, size: disk.diskBytes, secret: `secret of ${name}`, secretFile: `${name}.secret` }
      await createEncrypted(folder, `${name}.qcow2`, { ...spec, ...(backing && { backing }) })
    }
    await encryptedIo(folder, source(depth), ...randomWrites(depth, disk))
  }
  const asked: Qcow2EncryptedLayer[] = []
  const passphrase = (layer: Qcow2EncryptedLayer): string => {
    asked.push(layer)
    return `secret of ${layers[layer.depth]!.name}`
  }
  await agreesWithQemu(t, folder, 'top.qcow2', { options: { passphrase }, qemuSource: source(0), comparesMaps: false })
  t.same(asked, [
    { file: join(folder, 'top.qcow2'), depth: 0, encryption: 'luks' },
    { file: join(folder, 'legacy.qcow2'), depth: 1, encryption: 'aes' },
    { file: join(folder, 'bottom.qcow2'), depth: 3, encryption: 'luks' },
  ])
  for (const depth of [0, 3]) {
    const wrong = (layer: Qcow2EncryptedLayer): string => (layer.depth === depth ? 'no' : passphrase(layer))
    const error = await rejection(t, Qcow2Image.open(join(folder, 'top.qcow2'), { passphrase: wrong }))
    t.match(error, { code: 'ERR_QCOW2_WRONG_PASSPHRASE', layer: join(folder, `${layers[depth]!.name}.qcow2`) })
  }
})

oracleTest('key slots: added, erased, and of any passphrase', async (t) => {
  const folder = t.testdir()
  await createEncrypted(folder, 'a.qcow2', { settings: LUKS, size: 2 ** 20, secret: 'first' })
  const source = encryptedSource('a.qcow2', 'secret')
  await encryptedIo(folder, source, ['write -P 7 1000 200k'])
  const passphrases = ['', 'pass\u00e9 \u{1f511}', 'x'.repeat(300)]
  for (const [index, passphrase] of passphrases.entries()) {
    writeFileSync(join(folder, `new${index}`), passphrase)
    await amend(folder, source, `encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10`, `new${index}`)
  }
  const all = ['first', ...passphrases]
  for (const passphrase of all) {
    await agreesWithQemu(t, folder, 'a.qcow2', { options: { passphrase }, qemuSource: source })
  }
  // Of bytes as well, and from a function.
  for (const passphrase of [Buffer.from(passphrases[1]!), () => Promise.resolve('first')]) {
    await agreesWithQemu(t, folder, 'a.qcow2', { options: { passphrase }, qemuSource: source })
  }
  await amend(folder, encryptedSource('a.qcow2', 'new1'), 'encrypt.state=inactive,encrypt.keyslot=0')
  const error = await rejection(t, Qcow2Image.open(join(folder, 'a.qcow2'), { passphrase: 'first' }))
  t.match(error, { code: 'ERR_QCOW2_WRONG_PASSPHRASE' })
  const left = encryptedSource('a.qcow2', 'new1')
  await agreesWithQemu(t, folder, 'a.qcow2', { options: { passphrase: passphrases[2]! }, qemuSource: left })
})
