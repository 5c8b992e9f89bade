/**
 * The encryption of qcow2's first years, where the passphrase is the key.
 */
import { createCipheriv } from 'node:crypto'
import t from 'tap'
import { SectorCipher } from '../../../lib/crypto/cipher.js'
import { legacyKey } from '../../../lib/crypto/legacy-aes.js'
import { pattern } from '../../fixtures/patterns.js'

const keys: readonly (readonly [title: string, passphrase: Buffer, key: string])[] = [
  ['no bytes', Buffer.from(''), '00000000000000000000000000000000'],
  ['fewer than 16', Buffer.from('backing'), '6261636b696e67000000000000000000'],
  ['15', Buffer.from('0123456789abcde'), '30313233343536373839616263646500'],
  ['16', Buffer.from('0123456789abcdef'), '30313233343536373839616263646566'],
  ['more than 16', Buffer.from('0123456789abcdefghi'), '30313233343536373839616263646566'],
  ['UTF-8', Buffer.from('ключ'), 'd0bad0bbd18ed1870000000000000000'],
  ['a character cut in two', Buffer.from('0123456789abcdeü'), '303132333435363738396162636465c3'],
  ['no text', Buffer.from([0xff, 0x00, 0x80]), 'ff008000000000000000000000000000'],
]

for (const [title, passphrase, key] of keys) {
  t.test(`a passphrase of ${title}`, async (t) => {
    const spec = legacyKey(passphrase)
    t.equal(Buffer.from(spec.key).toString('hex'), key)
    t.equal(spec.essivKey, undefined)

    // AES-128 in CBC; the vector is the sector's number, 64 bits, lowest byte first.
    const sector = 0x0102_0304_0506
    const vector = Buffer.from('06050403020100000000000000000000', 'hex')
    const plain = pattern(1, 512)
    const bytes = createCipheriv('aes-128-cbc', Buffer.from(key, 'hex'), vector).setAutoPadding(false).update(plain)
    new SectorCipher(spec).decrypt(bytes, sector)
    t.ok(bytes.equals(plain), 'decrypts')
  })
}

t.test('the key has memory of its own, and nothing else is in it', async (t) => {
  const passphrase = Buffer.from('0123456789abcdefghi')
  const { key } = legacyKey(passphrase)
  t.equal(key.buffer.byteLength, 16)
  passphrase.fill(0)
  t.equal(Buffer.from(key).toString(), '0123456789abcdef')
})
