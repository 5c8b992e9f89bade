/**
 * Batches of sectors: the key comes with the first one, and each run is decrypted where it lies.
 */
import t from 'tap'
import { diskKey, type CipherSpec, type DiskKey } from '../../../lib/crypto/cipher.js'
import { RUN_NUMBERS, SectorDecrypter, SectorSender } from '../../../lib/decode/sector-batch.js'
import { essivKeyOf } from '../../fixtures/naive-sector-cipher.js'
import { pattern } from '../../fixtures/patterns.js'
import { makeRuns } from '../../fixtures/sector-runs.js'

const specs: readonly CipherSpec[] = [
  { mode: 'xts', iv: 'plain64', key: pattern(1, 64), essivKey: undefined },
  { mode: 'cbc', iv: 'essiv', key: pattern(2, 16), essivKey: essivKeyOf(pattern(2, 16), 'sha256') },
]

/** A key of which a test may see whether it is overwritten. */
const keyOf = (spec: CipherSpec): DiskKey => diskKey(structuredClone(spec))

t.test('a run is three numbers', async (t) => {
  t.equal(RUN_NUMBERS, 3)
})

for (const spec of specs) {
  t.test(`decrypts runs of ${spec.mode}-${spec.iv} where they lie, and nothing beside them`, async (t) => {
    for (const lengths of [[], [1], [3, 1, 300, 2], [0, 5]]) {
      const { runs, fill, expected } = makeRuns(spec, lengths)
      const memory = Buffer.alloc(expected.length + 13, 0xee)
      const target = memory.subarray(13)
      fill(target)
      new SectorDecrypter().decrypt(new SectorSender().batch(keyOf(spec), target, runs))
      t.ok(target.equals(expected), `runs of ${lengths.join(', ')} sectors`)
      t.ok(memory.subarray(0, 13).every((byte) => byte === 0xee))
    }
  })

  t.test(`overwrites the key of ${spec.mode}-${spec.iv} that it is sent, and goes on without`, async (t) => {
    const [sender, receiver, key] = [new SectorSender(), new SectorDecrypter(), keyOf(spec)]
    for (let turn = 0; turn < 3; turn++) {
      const { runs, fill, expected } = makeRuns(spec, [2, 3])
      const target = Buffer.alloc(expected.length)
      fill(target)
      const batch = sender.batch(key, target, runs)
      t.equal(batch.spec === undefined, turn > 0, 'the key comes with the first batch only')
      t.equal(receiver.decrypt(batch), true)
      t.ok(target.equals(expected))
    }
    t.ok(key.spec.key.every((byte) => byte === 0))
    t.ok(key.spec.essivKey?.every((byte) => byte === 0) ?? true)
  })
}

t.test('tells keys apart, in any order', async (t) => {
  const [sender, receiver] = [new SectorSender(), new SectorDecrypter()]
  const keys = specs.map(keyOf)
  for (const index of [0, 1, 0, 0, 1]) {
    const { runs, fill, expected } = makeRuns(specs[index]!, [4])
    const target = Buffer.alloc(expected.length)
    fill(target)
    receiver.decrypt(sender.batch(keys[index]!, target, runs))
    t.ok(target.equals(expected))
  }
})

t.test('each sender gives its receiver the key once', async (t) => {
  const key = keyOf(specs[0]!)
  const [one, other] = [new SectorSender(), new SectorSender()]
  const target = Buffer.alloc(512)
  const runs = Float64Array.of(0, 512, 9)
  const batches = [one, one, other, other, one].map((sender) => sender.batch(key, target, runs))
  t.strictSame(
    batches.map(({ spec }) => spec === key.spec),
    [true, false, true, false, false],
  )
  t.ok(batches.every((batch) => batch.keyId === key.id && batch.target === target && batch.runs === runs))
})

t.test('decrypts nothing without the key, and is sent it again once the sender knows', async (t) => {
  const [sender, key] = [new SectorSender(), keyOf(specs[0]!)]
  const { runs, fill, expected } = makeRuns(specs[0]!, [2])
  const target = Buffer.alloc(expected.length)
  fill(target)
  const before = Buffer.from(target)
  sender.batch(key, target, runs)
  const receiver = new SectorDecrypter()
  t.equal(receiver.decrypt(sender.batch(key, target, runs)), false)
  t.ok(target.equals(before))
  sender.forget(key)
  t.equal(receiver.decrypt(sender.batch(key, target, runs)), true)
  t.ok(target.equals(expected))
  t.equal(sender.batch(key, target, runs).spec, undefined, 'once more')
})
