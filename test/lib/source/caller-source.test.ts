/**
 * A caller's own source: asked for what is wanted, in memory that every API takes.
 */
import t from 'tap'
import { CallerSource } from '../../../lib/source/caller-source.js'
import { pattern } from '../../fixtures/patterns.js'
import { Gate } from '../../fixtures/turns.js'

const content = pattern(1, 1000)
const { signal } = new AbortController()

function recording(): {
  source: CallerSource
  calls: { target: Uint8Array; offset: number; signal: AbortSignal }[]
  isClosed: () => boolean
} {
  const calls: { target: Uint8Array; offset: number; signal: AbortSignal }[] = []
  let isClosed = false
  const source = new CallerSource({
    size: content.length,
    read: (target, offset, signal) => {
      calls.push({ target, offset, signal })
      const part = content.subarray(offset, offset + Math.min(target.length, 300))
      target.set(part)
      return Promise.resolve(part.length)
    },
    close: () => {
      isClosed = true
      return Promise.resolve()
    },
  })
  return { source, calls, isClosed: () => isClosed }
}

t.test('passes size, reads into ordinary memory and close on', async (t) => {
  const { source, calls, isClosed } = recording()
  t.equal(source.size, 1000)
  const target = new Uint8Array(100)
  t.equal(await source.read(target, 50, signal), 100)
  t.equal(calls[0]!.target, target)
  t.equal(calls[0]!.signal, signal)
  t.ok(content.subarray(50, 150).equals(target))
  t.notOk(isClosed())
  await source.close()
  t.ok(isClosed())
})

t.test('reads into memory that threads share by way of ordinary memory, as much as came', async (t) => {
  const { source, calls } = recording()
  const target = new Uint8Array(new SharedArrayBuffer(500), 20, 400)
  t.equal(await source.read(target, 50, signal), 300)
  t.strictSame([calls[0]!.target.length, calls[0]!.offset], [400, 50])
  t.equal(calls[0]!.signal, signal)
  t.ok(calls[0]!.target.buffer instanceof ArrayBuffer)
  t.ok(content.subarray(50, 350).equals(target.subarray(0, 300)))
})

t.test('uses ordinary memory again, but none that somebody may still write to', async (t) => {
  const gates: Gate<number>[] = []
  const buffers: ArrayBufferLike[] = []
  const source = new CallerSource({
    size: 10,
    read: ({ buffer }) => {
      buffers.push(buffer)
      const gate = new Gate<number>()
      gates.push(gate)
      return gate.opened
    },
    close: () => Promise.resolve(),
  })
  const read = (length = 10): Promise<number> => source.read(new Uint8Array(new SharedArrayBuffer(length)), 0, signal)
  const first = read()
  const second = read()
  t.not(buffers[1], buffers[0], 'another one for each that is under way')
  gates[1]!.open(10)
  t.equal(await second, 10)
  const third = read()
  t.equal(buffers[2], buffers[1])
  gates[2]!.fail(new Error('gone'))
  await t.rejects(third, { message: 'gone' })
  const fourth = read()
  t.notOk(buffers.slice(0, 3).includes(buffers[3]!), 'not that of a read that failed')
  for (const gate of [gates[0], gates[3]]) gate!.open(10)
  t.strictSame(await Promise.all([first, fourth]), [10, 10])
  // As much as fits at once; who asks for more comes again.
  const long = read(3 * 2 ** 20)
  gates[4]!.open(2 ** 21)
  t.equal(await long, 2 ** 21)
})

t.test('passes what the read throws on', async (t) => {
  const lost = new Error('lost')
  const source = new CallerSource({ size: 1, read: () => Promise.reject(lost), close: () => Promise.resolve() })
  await t.rejects(source.read(new Uint8Array(new SharedArrayBuffer(1)), 0, signal), lost)
})
