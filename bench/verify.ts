/**
 * Whether what is measured is right: our output against what qemu-img reads from the image, byte by byte. Not timed.
 */
import { rmSync, statSync } from 'node:fs'
import type { Command } from './measure.js'
import { encryptedSource } from '../test/fixtures/qemu-source.js'
import { BenchError, call, say } from './tools.js'

// ext4's longest file is twice as long. What is beyond must be zeros, or the comparison fails.
const MAX_OUTPUT_BYTES = 2 ** 43

/**
 * Converts images with both commands and compares.
 *
 * @param all What to call each, the image's path, and our command with the output as its last word.
 * @returns What is wrong, a line each.
 */
export function verify(all: readonly Verification[]): string[] {
  return all.flatMap(({ name, image, ours, secret }) => {
    say(`comparing with qemu-img: ${name}`)
    try {
      verifyOne(image, ours, secret)
      return []
    } catch (error) {
      if (!(error instanceof BenchError)) {
        throw error
      }
      say(`WRONG: ${error.message}`)
      return [`${name}: ${error.message}`]
    }
  })
}

/** A conversion to compare. */
export interface Verification {
  readonly name: string
  readonly image: string
  readonly ours: Command
  /** File with the passphrase, if it takes one. */
  readonly secret?: string
}

function verifyOne(image: string, ours: Command, secret: string | undefined): void {
  const info = call('qemu-img', ['info', '--output=json', '-f', 'qcow2', image])
  const diskBytes = (JSON.parse(info) as { 'virtual-size': number })['virtual-size']
  const output = ours.output!
  const isCut = diskBytes > MAX_OUTPUT_BYTES
  const [program, ...words] = ours.words
  if (isCut) {
    say(`  only its first ${MAX_OUTPUT_BYTES} bytes: no file is longer`)
  }
  try {
    rmSync(output, { force: true })
    call(program!, isCut ? [words[0]!, '--end', String(MAX_OUTPUT_BYTES - 1), ...words.slice(1)] : words)
    // Where one is shorter, qemu-img compares the rest of the other with zeros; the lengths are compared below.
    if (secret === undefined) {
      call('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', image, output])
    } else {
      const { flags, name } = encryptedSource(image, secret)
      call('qemu-img', ['compare', ...flags, name, `driver=raw,file.filename=${output}`])
    }
    const { size } = statSync(output)
    if (size !== Math.min(diskBytes, MAX_OUTPUT_BYTES)) {
      throw new BenchError(`the output has ${size} bytes, the disk ${diskBytes}`)
    }
  } finally {
    rmSync(output, { force: true })
  }
}
