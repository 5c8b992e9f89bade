#!/usr/bin/env node
/**
 * The command qcow2-info: opens an image, and shows what it says about itself, where its bytes are, or what is wrong with it.
 *
 * Invariant: what an image names is opened only if that was asked for; one line on standard error for an error, and an exit
 * code for its class.
 */
import { Qcow2AccessError, Qcow2Image } from '../lib/index.js'
import { complainer } from './complain.js'
import { exitCodeOf } from './exit-code.js'
import { checkJson, checkLines, exitCodeOfCheck } from './info/check-report.js'
import { chainJson } from './info/json.js'
import { mapRows } from './info/map-rows.js'
import { picture } from './info/picture.js'
import { parseInfoCommandLine, type InfoRequest } from './info/request.js'
import { summary } from './info/summary.js'
import { printableJson } from './json-text.js'
import { isBrokenPipe, print } from './output.js'
import { CommandLineError } from './command-line.js'

const complain = complainer('qcow2-info')

// Rows of a map that are printed at once.
const BATCH_ROWS = 1000

/** Shows the image; returns the exit code. */
async function run(request: InfoRequest): Promise<number> {
  if (request.input === undefined && process.stdin.isTTY) {
    throw new CommandLineError('the image would be read from the terminal: name a file, or redirect')
  }
  const image = await Qcow2Image.open(request.input ?? process.stdin, {
    references: request.references,
    snapshot: request.snapshot,
    http: { headers: request.headers },
    spoolDirectory: request.spoolDirectory,
  })
  try {
    const exitCode = await show(image, request)
    for (const { message } of request.isJson && request.view === 'summary' ? [] : image.warnings) {
      complain(`warning: ${message}`)
    }
    return exitCode
  } finally {
    await image.close()
  }
}

async function show(image: Qcow2Image, { view, isJson, hasBackingChain }: InfoRequest): Promise<number> {
  if (view === 'map') {
    await (isJson || !process.stdout.isTTY ? printMap(image) : paintMap(image))
    return 0
  }
  if (view === 'check') {
    const result = await image.check()
    const name = image.backingChain[0]!.file
    const text = isJson
      ? printableJson(JSON.stringify(checkJson(result, name), null, 4))
      : checkLines(result).join('\n')
    await print(`${text}\n`)
    return exitCodeOfCheck(result)
  }
  const files = await image.info()
  if (isJson) {
    const all = chainJson(files, image.warnings)
    await print(`${printableJson(JSON.stringify(hasBackingChain ? all : all[0], null, 4))}\n`)
  } else {
    const parts = files.map((info, depth) => summary(info, depth + 1 < files.length).join('\n'))
    await print(`${parts.join('\n\n')}\n`)
  }
  return 0
}

/** Prints the rows of the map as one array, a row in each line. */
async function printMap(image: Qcow2Image): Promise<void> {
  let text = '['
  let count = 0
  for await (const row of mapRows(image.extents({ isDetailed: true }), image.backingChain)) {
    text += `${count++ === 0 ? '' : ',\n'}${JSON.stringify(row)}`
    if (count % BATCH_ROWS === 0) {
      await print(text)
      text = ''
    }
  }
  await print(`${text}]\n`)
}

async function paintMap(image: Qcow2Image): Promise<void> {
  const { stdout } = process
  const canvas = { width: stdout.columns, hasColours: stdout.hasColors() }
  const lines = await picture(image.extents({ isDetailed: true }), image.virtualSize, image.clusterSize, canvas)
  await print(`${lines.join('\n')}\n`)
}

async function main(words: readonly string[]): Promise<void> {
  // Where nobody listens to what is said, the exit code still counts.
  process.stderr.on('error', () => undefined)
  try {
    const request = await parseInfoCommandLine(words)
    process.exitCode = request.kind === 'text' ? await print(request.text).then(() => 0) : await run(request)
  } catch (caught) {
    const error = caught as Error
    process.exitCode = exitCodeOf(error)
    if (isBrokenPipe(error)) {
      return
    }
    complain(error.message)
    if (error instanceof CommandLineError) {
      complain('--help lists the options')
    }
    if (error instanceof Qcow2AccessError && !words.some((word) => /^--(references|backing-chain)/.test(word))) {
      complain("--backing-chain opens what lies in the image's folder")
    }
    if (words.includes('--debug')) {
      process.stderr.write(`${error.stack}\n`)
    }
  }
}

// Until the end is reached: what stops halfway, with nothing left to wait for, must not pass for complete.
process.exitCode = 1
void main(process.argv.slice(2))
