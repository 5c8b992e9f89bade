// The meter between stream and sink: passes everything on, counts guest bytes, and fails with what its listener throws.
import t from 'tap'
import { ProgressMeter, ProgressTeller, type Qcow2Progress } from '../../../lib/stream/progress-meter.js'
import type { GuestChunk } from '../../../lib/index.js'
import { chunksOf, closing } from '../../fixtures/consume.js'

const chunks: GuestChunk[] = [
  { kind: 'data', guestOffset: 0, length: 3, bytes: Buffer.from('abc'), release: () => {} },
  { kind: 'zeros', guestOffset: 3, length: 2 ** 50 },
  { kind: 'data', guestOffset: 3 + 2 ** 50, length: 1, bytes: Buffer.from('d'), release: () => {} },
]
const total = 2 ** 50 + 4

const meterFor = (onProgress: () => void): ProgressMeter =>
  new ProgressMeter(new ProgressTeller('converting', total, onProgress))

t.test('passes every chunk on as it is and says how far it has come', async (t) => {
  const seen: Qcow2Progress[] = []
  let now = 7
  const meter = new ProgressMeter(
    new ProgressTeller(
      'verifying',
      total,
      (progress) => seen.push(progress),
      () => (now += 1),
    ),
  )
  const passed = chunksOf(meter)
  for (const chunk of chunks) meter.write(chunk)
  meter.end()
  const out = await passed
  t.equal(out.length, 3)
  out.forEach((chunk, i) => t.equal(chunk, chunks[i], 'the very same object'))
  t.same(seen, [
    {
      phase: 'verifying',
      bytesDone: 3,
      bytesTotal: total,
      bytesPerSecond: 3,
      secondsLeft: Math.ceil((2 ** 50 + 1) / 3),
    },
    { phase: 'verifying', bytesDone: 3 + 2 ** 50, bytesTotal: total, bytesPerSecond: 2 ** 49 + 2, secondsLeft: 1 },
    {
      phase: 'verifying',
      bytesDone: total,
      bytesTotal: total,
      bytesPerSecond: Math.round(total / 3),
      secondsLeft: 0,
    },
  ])
})

t.test('fails with what the listener throws', async (t) => {
  const error = new Error('stop')
  let calls = 0
  const meter = meterFor(() => {
    if (++calls === 2) throw error
  })
  const passed: GuestChunk[] = []
  meter.on('data', (chunk: GuestChunk) => passed.push(chunk))
  for (const chunk of chunks) meter.write(chunk)
  const errors = await closing(meter)
  t.equal(errors.length, 1)
  t.equal(errors[0], error)
  t.equal(passed.length, 1, 'the chunk it was told of is not passed on')
})

t.test('fails even if what the listener throws is nothing', async (t) => {
  for (const nothing of [undefined, null, 0, ''] as unknown[]) {
    const meter = meterFor(() => {
      throw nothing
    })
    meter.on('data', () => t.fail('no chunk is passed on'))
    meter.on('end', () => t.fail('there is no end'))
    for (const chunk of chunks) meter.write(chunk)
    meter.end()
    const errors = await closing(meter)
    t.equal(errors.length, 1, `throw ${String(nothing)}`)
  }
})
