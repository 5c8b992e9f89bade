// Chains of files: whatever the layers are, the disk is what the uppermost layer says, and below it the next one.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { createReadStream, Qcow2Image } from '../../lib/index.js'
import { bytesOf } from '../fixtures/consume.js'
import { buildImage, type ImageSpec } from '../fixtures/image-builder.js'
import { pattern } from '../fixtures/patterns.js'
import { layerSpec, runs } from '../fixtures/random-images.js'

interface Layers {
  /** Length of a raw base; undefined for none. */
  readonly rawLength: number | undefined
  /** From the bottom up. */
  readonly specs: readonly ImageSpec[]
  /** Whether images say what format their base has. */
  readonly hasFormats: boolean
}

const layers: fc.Arbitrary<Layers> = fc.record({
  rawLength: fc.option(fc.nat(200_000), { nil: undefined }),
  specs: fc.array(layerSpec, { minLength: 1, maxLength: 4 }),
  hasFormats: fc.boolean(),
})

/** Writes the layers into the folder; resolves to the path of the uppermost and what it must read as. */
function writeChain(folder: string, { rawLength, specs, hasFormats }: Layers): { path: string; guest: Buffer } {
  let below: { name: string; guest: Buffer; format: 'raw' | 'qcow2' } | undefined
  if (rawLength !== undefined) {
    const guest = pattern(rawLength, rawLength)
    writeFileSync(join(folder, 'base'), guest)
    below = { name: 'base', guest, format: 'raw' }
  }
  specs.forEach((spec, depth) => {
    const name = `layer ${depth}`
    // The specification has no raw data file over a base.
    const dataFile = spec.dataFile && { name: `${name} data`, raw: spec.dataFile.raw === true && below === undefined }
    const image = buildImage({
      ...spec,
      ...(dataFile && { dataFile }),
      ...(below && {
        backingFile: { name: below.name, contents: below.guest, ...(hasFormats && { format: below.format }) },
      }),
    })
    writeFileSync(join(folder, name), image.bytes)
    if (dataFile) writeFileSync(join(folder, dataFile.name), image.dataFile)
    below = { name, guest: image.guest, format: 'qcow2' }
  })
  if (below === undefined) throw new Error('no layers')
  return { path: join(folder, below.name), guest: below.guest }
}

t.test('a chain of files reads as its layers say, by extent, by read and by stream', async (t) => {
  const folder = t.testdir()
  await fc.assert(
    fc.asyncProperty(layers, fc.nat(1000), async (chain, from) => {
      const { path, guest } = writeChain(folder, chain)
      await using image = await Qcow2Image.open(path)
      if (image.virtualSize !== guest.length) throw new Error(`size ${image.virtualSize}`)
      const start = Math.floor((guest.length * from) / 1001)
      const target = Buffer.alloc(guest.length - start)
      await image.read(target, start)
      if (!target.equals(guest.subarray(start))) throw new Error('read gives other bytes')
      const bytes = await bytesOf(createReadStream(image, { start, highWaterMark: 5000 }))
      if (!bytes.equals(guest.subarray(start))) throw new Error('the stream gives other bytes')
      let at = 0
      const depthCount = chain.specs.length + (chain.rawLength === undefined ? 0 : 1)
      if (image.backingChain.length !== depthCount) throw new Error(`${image.backingChain.length} layers`)
      for await (const { kind, offset, length, depth } of image.extents()) {
        if (offset !== at || depth < 0 || depth >= depthCount) throw new Error(`an extent at ${offset} of ${depth}`)
        at += length
        const isZeros = kind === 'zero' || kind === 'unallocated'
        if (isZeros && guest.subarray(offset, at).some((byte) => byte !== 0)) throw new Error(`no zeros at ${offset}`)
      }
      if (at !== guest.length) throw new Error(`extents end at ${at}`)
    }),
    runs(80),
  )
  t.pass('no counterexample')
})
