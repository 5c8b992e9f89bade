/**
 * Blobs: what was asked for and no more, into any memory, wherever their bytes lie.
 */
import { Blob } from 'node:buffer'
import { openAsBlob, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Qcow2SourceError } from '../../../lib/errors.js'
import { BlobSource } from '../../../lib/source/blob.js'
import { openSource } from '../../../lib/source/open-source.js'
import { expectError, rejection } from '../../fixtures/expect-error.js'
import { pattern } from '../../fixtures/patterns.js'

const content = pattern(1, 200_000)

for (const [kind, make] of [
  ['in memory', () => new Blob([content])],
  [
    'of many parts',
    () => new Blob([content.subarray(0, 7), new Blob([content.subarray(7, 150_000)]), content.subarray(150_000)]),
  ],
  ['that is a part of another', () => new Blob([new Uint8Array(5), content, new Uint8Array(9)]).slice(5, 200_005)],
  [
    'over a file',
    async (t: { testdir: () => string }) => {
      const path = join(t.testdir(), 'image')
      writeFileSync(path, content)
      return openAsBlob(path)
    },
  ],
] as const) {
  t.test(`reads a Blob ${kind}`, async (t) => {
    const source = new BlobSource(await make(t))
    t.equal(source.size, content.length)
    const ranges = [
      [0, 1],
      [0, content.length],
      [65_530, 70_000],
      [content.length - 1, 1],
      [content.length - 10, 30],
      [content.length, 5],
      [2 ** 52, 5],
    ] as const
    await Promise.all(
      ranges.map(async ([offset, length]) => {
        for (const memory of [new ArrayBuffer(length + 20), new SharedArrayBuffer(length + 20)]) {
          const whole = new Uint8Array(memory).fill(0xee)
          const count = await source.read(whole.subarray(10, 10 + length), offset)
          const expected = content.subarray(offset, offset + length)
          t.equal(count, expected.length, `${length} bytes at ${offset}, fewer at the end`)
          t.ok(expected.equals(whole.subarray(10, 10 + count)))
          t.ok(
            whole.every((byte, i) => (i >= 10 && i < 10 + count) || byte === 0xee),
            'nothing is written beside them',
          )
        }
      }),
    )
    await source.close()
  })
}

t.test('has nothing to read in an empty one', async (t) => {
  const source = new BlobSource(new Blob([]))
  t.equal(source.size, 0)
  t.equal(await source.read(new Uint8Array(10), 0), 0)
})

t.test('says so if the file behind it has changed', async (t) => {
  const path = join(t.testdir({ image: content }), 'image')
  const file = await openSource(await openAsBlob(path))
  await file.read(new Uint8Array(100), 0)
  writeFileSync(path, content.subarray(0, 1000))
  const error = await rejection(t, file.read(new Uint8Array(100), 100_000))
  expectError(t, error, Qcow2SourceError, 'ERR_QCOW2_READ_FAILED', { layer: 'image in a Blob', hostOffset: 100_000 })
  t.equal(((error as Error).cause as Error).name, 'NotReadableError')
  await file.close()
})
