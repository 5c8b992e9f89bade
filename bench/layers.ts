/**
 * A disk told in three layers, as a machine's disk is after two snapshots: a base, and what changed since.
 *
 * Invariant: read through the whole chain, the disk is what it was before it was split.
 */
import { closeSync, ftruncateSync, fstatSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { call } from './tools.js'

const LAYERS = ['base', 'middle', 'top'] as const
const PIECE_BYTES = 2 ** 20
const MAX_RUN_PIECES = 64
// Of what an upper layer holds, this part was in the base before and has been written again.
const REWRITTEN = 1 / 8

/** The image that a reader of the chain opens, within its folder. */
export const TOP = `${LAYERS[2]}.qcow2`

/** Makes the chain from a raw disk, in a folder that exists; each layer gets a third of the disk, in runs of up to 64 MiB. */
export function makeChain(raw: string, folder: string): void {
  let backing: string | undefined
  for (const [index, layer] of LAYERS.entries()) {
    const part = join(folder, `${layer}.raw`)
    const image = join(folder, `${layer}.qcow2`)
    copyPart(raw, part, index)
    call('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', part, image])
    rmSync(part)
    if (backing !== undefined) {
      // Only names the backing file: what the overlay does not hold is read from there.
      call('qemu-img', ['rebase', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b', backing, image])
    }
    backing = `${layer}.qcow2`
  }
}

/** Copies the pieces of one layer into a sparse file as long as the disk. */
function copyPart(raw: string, part: string, layer: number): void {
  const source = openSync(raw, 'r')
  const target = openSync(part, 'w')
  try {
    const { size } = fstatSync(source)
    ftruncateSync(target, size)
    const piece = Buffer.alloc(PIECE_BYTES)
    const zeros = Buffer.alloc(PIECE_BYTES)
    const random = randomNumbers()
    let left = 0
    let owner = 0
    let isRewritten = false
    for (let offset = 0; offset < size; offset += PIECE_BYTES) {
      if (left === 0) {
        left = 1 + Math.floor(random() * MAX_RUN_PIECES)
        owner = Math.floor(random() * LAYERS.length)
        isRewritten = random() < REWRITTEN
      }
      left--
      if (owner !== layer && !(layer === 0 && isRewritten)) {
        continue
      }
      const length = readSync(source, piece, 0, PIECE_BYTES, offset)
      if (zeros.compare(piece, 0, length, 0, length) !== 0) {
        writeSync(target, piece, 0, length, offset)
      }
    }
  } finally {
    closeSync(source)
    closeSync(target)
  }
}

/** Numbers from 0 to 1, the same ones for every layer and every run: a linear congruential generator. */
export function randomNumbers(): () => number {
  let state = 1
  return () => {
    state = (state * 16807) % 2147483647
    return state / 2147483647
  }
}
