/**
 * Bytes in memory as a source: they are copied out, never handed out.
 */
import t from 'tap'
import { MemorySource } from '../../../lib/source/memory.js'
import { pattern } from '../../fixtures/patterns.js'

t.test('copies bytes out and reads what there is, nothing past the end', async (t) => {
  const bytes = pattern(1, 100)
  const source = new MemorySource(bytes)
  t.equal(source.size, 100)

  const target = Buffer.alloc(40)
  t.equal(await source.read(target, 30), 40)
  t.strictSame(target, bytes.subarray(30, 70))
  target.fill(0)
  t.strictSame(bytes, pattern(1, 100), 'what is done to the target does not reach the source')

  t.equal(await source.read(target, 90), 10)
  t.strictSame(target, Buffer.concat([bytes.subarray(90), Buffer.alloc(30)]))
  t.equal(await source.read(target, 100), 0)
  t.equal(await source.read(target, 5000), 0)
  await source.close()
})
