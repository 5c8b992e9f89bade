/**
 * What refcounts an image records, beyond what whole checks show: past the end of the file, and where nothing is known.
 */
import t from 'tap'
import { Turns } from '../../../lib/check/turns.js'
import { bytesForRefcounts, RecordedRefcounts } from '../../../lib/check/recorded-refcounts.js'
import { parseHeader } from '../../../lib/format/header.js'
import { HostFile } from '../../../lib/source/source.js'
import { buildImage, type ImageSpec, type Layout } from '../../fixtures/image-builder.js'
import { RecordingSource } from '../../fixtures/recording-source.js'

async function recorded(spec: ImageSpec, damage: (bytes: Buffer, layout: Layout) => void): Promise<RecordedRefcounts> {
  const { bytes, layout } = buildImage({ clusterBits: 10, ...spec })
  damage(bytes, layout)
  const file = new HostFile(new RecordingSource(bytes), { label: 'a' })
  const refcounts = await RecordedRefcounts.read(file, parseHeader(bytes, 'a'))
  await refcounts.learnSingles(bytes.length / 1024, new Turns(undefined))
  return refcounts
}

t.test('refcounts of clusters past the end are known as far as there are blocks', async (t) => {
  const refcounts = await recorded({}, (bytes, { refcountTableOffset, refcountBlockOffsets: [block = 0] }) => {
    bytes.writeUInt16BE(1, block + 511 * 2)
    bytes.writeUInt16BE(2, block + 510 * 2)
    // Of 512 clusters each; the first one serves as the fourth as well.
    bytes.copy(bytes, refcountTableOffset + 3 * 8, refcountTableOffset, refcountTableOffset + 8)
    bytes.writeBigUInt64BE(513n * 1024n + 512n, refcountTableOffset + 2 * 8)
  })
  t.equal(refcounts.perBlock, 512)
  t.equal(refcounts.tableSize, 128)
  t.equal(refcounts.isSingle(0), true)
  t.equal(refcounts.isSingle(511), true)
  t.equal(refcounts.isSingle(510), false)
  t.equal(refcounts.isSingle(512), false, 'no block')
  t.equal(refcounts.isSingle(1024), undefined, 'a block in mid-cluster')
  t.equal(refcounts.isSingle(3 * 512 + 511), true)
  t.equal(refcounts.isSingle(128 * 512), false, 'no entry')
  t.equal(refcounts.isSingle(2 ** 44), false)
})

t.test('of clusters very far past the end nothing is known where there is a block', async (t) => {
  const refcounts = await recorded({ clusterBits: 16, refcountOrder: 0 }, (bytes, { refcountTableOffset }) => {
    bytes.copy(bytes, refcountTableOffset + 8000 * 8, refcountTableOffset, refcountTableOffset + 8)
  })
  t.equal(refcounts.perBlock, 524288)
  t.equal(refcounts.isSingle(8000 * 524288), undefined)
  t.equal(refcounts.isSingle(7999 * 524288), false)
  t.equal(bytesForRefcounts(800), 2 ** 23 + 100)
})

t.test('a block that all entries of the table name is read once', async (t) => {
  const { bytes, layout } = buildImage({ clusterBits: 9, refcountOrder: 6 })
  const { refcountTableOffset } = layout
  for (let index = 1; index < 64; index++) {
    bytes.copy(bytes, refcountTableOffset + index * 8, refcountTableOffset, refcountTableOffset + 8)
  }
  const source = new RecordingSource(bytes)
  const file = new HostFile(source, { label: 'a' })
  const refcounts = await RecordedRefcounts.read(file, parseHeader(bytes, 'a'))
  await refcounts.learnSingles(bytes.length / 512, new Turns(undefined))
  t.equal(refcounts.isSingle(63 * 64), true)
  t.equal(source.reads.length, 2, 'the table, and the page of the block')
})
