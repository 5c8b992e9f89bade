/**
 * Reading tables: what is read, in how many reads, and what comes out.
 */
import t from 'tap'
import { clusterViews, readView, tablePieces } from '../../../lib/check/host-reader.js'
import { HostFile } from '../../../lib/source/source.js'
import { pattern } from '../../fixtures/patterns.js'
import { RecordingSource } from '../../fixtures/recording-source.js'

function hostFile(bytes: Uint8Array): { readonly file: HostFile; readonly source: RecordingSource } {
  const source = new RecordingSource(bytes)
  return { file: new HostFile(source, { label: 'a' }), source }
}

async function collected(bytes: Buffer, segments: readonly { start: number; end: number; weight: number }[]) {
  const { file, source } = hostFile(bytes)
  const parts: [offset: number, bytes: Buffer, weight: number][] = []
  for await (const { entries, offset, weight } of tablePieces(file, segments)) {
    parts.push([offset, Buffer.from(entries.buffer, entries.byteOffset, entries.byteLength), weight])
  }
  return { parts, source }
}

t.test('a view is zeros past the end of the file', async (t) => {
  const { file } = hostFile(Buffer.from([1, 2, 3]))
  t.equal((await readView(file, 1, 4)).getUint32(0), 0x02030000)
})

t.test('many short tables that lie together are read at once', async (t) => {
  const bytes = pattern(1, 4096)
  const segments = [0, 512, 1024, 1536].map((start) => ({ start, end: start + 24, weight: start / 512 }))
  const { parts, source } = await collected(bytes, segments)
  t.equal(source.reads.length, 1)
  t.strictSame(
    parts,
    segments.map(({ start, end, weight }) => [start, bytes.subarray(start, end), weight]),
  )
})

t.test('a long table is read in pieces of 256 KiB, and not past the end', async (t) => {
  const bytes = pattern(2, 600_001)
  const { parts, source } = await collected(bytes, [
    { start: 1024, end: 2 ** 25, weight: 3 },
    { start: 2 ** 25, end: 2 ** 26, weight: 1 },
  ])
  t.strictSame(
    source.reads.map(({ length }) => length),
    [262144, 262144, 600_001 - 1024 - 524288],
  )
  t.equal(
    Buffer.concat(parts.map(([, part]) => part)).compare(Buffer.concat([bytes.subarray(1024), Buffer.alloc(7)])),
    0,
  )
})

t.test('clusters that lie together are read together, up to a MiB, and a few of these at once', async (t) => {
  const bytes = pattern(3, 3 * 2 ** 20)
  const { file, source } = hostFile(bytes)
  const clusters = Uint32Array.from([2, 3, 4, 9, ...Array.from({ length: 30 }, (_, index) => 14 + index), 47])
  const seen: number[] = []
  for await (const { cluster, entries } of clusterViews(file, clusters, 65536)) {
    seen.push(cluster)
    const view = Buffer.from(entries.buffer, entries.byteOffset, entries.byteLength)
    if (!view.equals(bytes.subarray(cluster * 65536, (cluster + 1) * 65536))) t.fail(`cluster ${cluster}`)
  }
  t.strictSame(seen, [...clusters])
  t.strictSame(
    source.reads.map(({ length }) => length / 65536),
    [3, 1, 16, 14, 1],
  )
  t.equal(source.mostUnderWay, 4)
})

t.test('clusters of 2 MiB are read one by one', async (t) => {
  const { file, source } = hostFile(pattern(4, 2 ** 22))
  let count = 0
  for await (const { entries } of clusterViews(file, Uint32Array.from([0, 1]), 2 ** 21)) count += entries.byteLength
  t.equal(count, 2 ** 22)
  t.equal(source.reads.length, 2)
})
