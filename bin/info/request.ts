/**
 * The options of qcow2-info: words in, a checked request or a text to print out.
 *
 * Runs nothing. Invariant: what it returns is complete; whatever is wrong is a `CommandLineError`.
 */
import yargs, { type Argv } from 'yargs'
import { headersOf } from '../headers.js'
import { CommandLineError, pathOrUrl, type TextRequest } from '../command-line.js'
import { parse, SOURCE_OPTIONS, spoolDirectoryOf, wordsOf } from '../shared-options.js'
import { version } from '../version.js'

/** What is to be shown of which image. */
export interface InfoRequest {
  readonly kind: 'info'
  /** What it says about itself, where its bytes are, or whether its tables agree. */
  readonly view: 'summary' | 'map' | 'check'
  /** Undefined means standard input. */
  readonly input: string | URL | undefined
  readonly isJson: boolean
  readonly hasBackingChain: boolean
  readonly references: 'same-directory' | 'any' | 'none'
  readonly snapshot: string | undefined
  readonly headers: Record<string, string>
  readonly spoolDirectory: string | undefined
}

const EXIT_CODES = `Exit codes: 0 done, 1 I/O error, 2 wrong usage, 3 malformed image (with --check: clusters are corrupt), 4 unsupported feature, 5 refused reference, 7 with --check: clusters are leaked, nothing worse.`

function declare(): Argv {
  return yargs()
    .scriptName('qcow2-info')
    .usage(
      `Usage: $0 [options] <image>\n\n` +
        `Shows what a qcow2 disk image says about itself. The image is a file, an http: or https: address, or "-" for standard input. ` +
        `Files that it names are not opened, unless --backing-chain or --references asks for it.`,
    )
    .locale('en')
    .option('json', { type: 'boolean', describe: 'Print JSON, with the names of qemu-img', default: false })
    .option('map', {
      type: 'boolean',
      describe: 'Show where the bytes of the disk are: a picture on a terminal, else JSON',
    })
    .option('check', {
      type: 'boolean',
      describe: 'Compare the refcounts with what refers to each cluster',
      conflicts: ['map', 'backing-chain', 'references'],
    })
    .option('backing-chain', { type: 'boolean', describe: 'Show the backing files as well' })
    .option('references', {
      choices: ['same-directory', 'any', 'none'] as const,
      describe:
        'Which files named by the image may be opened; "any" is dangerous with images from strangers [default: none; same-directory with --backing-chain]',
      requiresArg: true,
    })
    .option('snapshot', {
      alias: 's',
      type: 'string',
      describe: 'Map this internal snapshot (id or name)',
      requiresArg: true,
    })
    .options(SOURCE_OPTIONS)
    .option('debug', { type: 'boolean', describe: 'Print the stack of an error', default: false })
    .example('$0 disk.qcow2', 'What a person wants to know first')
    .example('$0 --json --backing-chain disk.qcow2', 'What a program wants to know')
    .example('$0 --map disk.qcow2', 'A picture of the disk')
    .example('$0 --check disk.qcow2', 'Look for leaked and corrupt clusters')
    .epilogue(EXIT_CODES)
    .strictOptions()
    .parserConfiguration({ 'parse-positional-numbers': false, 'dot-notation': false })
    .help()
    .alias('help', 'h')
    .version(version())
    .exitProcess(false)
}

/**
 * What the words ask for.
 *
 * @param words The command line without interpreter and script.
 * @throws {CommandLineError}
 */
export async function parseInfoCommandLine(words: readonly string[]): Promise<InfoRequest | TextRequest> {
  const { given, argv, text, failure } = await parse(declare(), words, 'qcow2-info')
  if (failure !== undefined) {
    throw new CommandLineError(failure)
  }
  if (text !== '') {
    return { kind: 'text', text: `${text}\n` }
  }
  const [image, ...more] = given['_'] as string[]
  if (image === undefined) {
    throw new CommandLineError('an image is missing: a file, an address, or "-" for standard input')
  }
  if (more.length > 0) {
    throw new CommandLineError(`one image is allowed, found ${more.length + 1} names`)
  }
  const hasBackingChain = argv['backingChain'] === true
  const references = argv['references'] as InfoRequest['references'] | undefined
  if (argv['snapshot'] !== undefined && argv['map'] !== true) {
    throw new CommandLineError('--snapshot is for --map, which is missing')
  }
  if (hasBackingChain && references === 'none') {
    throw new CommandLineError('--backing-chain shows files that --references none keeps closed')
  }
  return {
    kind: 'info',
    view: argv['map'] === true ? 'map' : argv['check'] === true ? 'check' : 'summary',
    input: image === '-' ? undefined : pathOrUrl(image),
    isJson: argv['json'] as boolean,
    hasBackingChain,
    references: references ?? (hasBackingChain ? 'same-directory' : 'none'),
    snapshot: argv['snapshot'] as string | undefined,
    headers: headersOf(wordsOf('header', given)),
    spoolDirectory: spoolDirectoryOf(argv['spoolDir']),
  }
}
