/**
 * Small reads by way of pages: each page is read once, as long as there is room for it.
 */
import t from 'tap'
import { PagedFile } from '../../../lib/check/paged-file.js'
import { HostFile } from '../../../lib/source/source.js'
import { pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'
import { SparseSource } from '../../fixtures/sparse-source.js'

const PAGE = 65536

const bytesOf = (view: DataView): Buffer => Buffer.from(view.buffer, view.byteOffset, view.byteLength)

t.test('neighbours come from one read, and so does what was read before', async (t) => {
  const bytes = pattern(1, 2 * PAGE)
  const source = new RecordingSource(bytes)
  const file = new PagedFile(new HostFile(source, { label: 'a' }))
  for (const offset of [0, 512, PAGE - 512, 512, PAGE, 2 * PAGE - 100]) {
    const length = Math.min(512, 2 * PAGE - offset)
    t.strictSame(bytesOf(await file.view(offset, length)), bytes.subarray(offset, offset + length))
  }
  t.strictSame(
    source.reads.map(({ offset }) => offset),
    [0, PAGE],
  )
})

t.test('what is longer than a page, or lies in two, is read by itself', async (t) => {
  const bytes = pattern(2, 3 * PAGE)
  const source = new RecordingSource(bytes)
  const file = new PagedFile(new HostFile(source, { label: 'a' }))
  t.strictSame(bytesOf(await file.view(0, PAGE + 1)), bytes.subarray(0, PAGE + 1))
  t.strictSame(bytesOf(await file.view(PAGE - 1, 2)), bytes.subarray(PAGE - 1, PAGE + 1))
  t.strictSame(source.reads, [
    { offset: 0, length: PAGE + 1 },
    { offset: PAGE - 1, length: 2 },
  ])
})

t.test('past the end lie zeros', async (t) => {
  const file = new PagedFile(new HostFile(new RecordingSource(pattern(3, 10)), { label: 'a' }))
  t.strictSame(bytesOf(await file.view(8, 4)), Buffer.concat([pattern(3, 10).subarray(8), Buffer.alloc(2)]))
})

t.test('keeps 256 pages and no more', async (t) => {
  const source = new SparseSource(1000 * PAGE)
  const file = new PagedFile(new HostFile(source, { label: 'a' }))
  for (let page = 0; page < 257; page++) await file.view(page * PAGE, 1)
  t.equal(source.reads.length, 257)
  await file.view(256 * PAGE, 1)
  t.equal(source.reads.length, 257)
  await file.view(0, 1)
  t.equal(source.reads.length, 258)
})
