/**
 * The options of qcow2-to-raw: words in, a checked request or a text to print out.
 *
 * Runs nothing. Invariant: what it returns is complete; whatever is wrong is a `CommandLineError`.
 */
import yargs, { type Argv } from 'yargs'
import { quoteText } from '../../lib/index.js'
import { headersOf } from '../headers.js'
import { CommandLineError, pathOrUrl, type TextRequest } from '../command-line.js'
import { parse, SOURCE_OPTIONS, spoolDirectoryOf, wordsOf } from '../shared-options.js'
import { version } from '../version.js'
import { PROGRESS_FORMATS, readProgress } from './progress-option.js'
import { inputAndOutput, type ConvertRequest } from './request.js'

const NAME = 'qcow2-to-raw'
// What the completion script calls the command with.
const COMPLETIONS = '--get-yargs-completions'

const EXIT_CODES = `Exit codes: 0 done, 1 I/O error, 2 wrong usage, 3 malformed image, 4 unsupported feature, 5 refused reference or passphrase, 6 salvaged: complete but for zeros that were listed, 129 hung up, 130 interrupted (Ctrl-C), 143 terminated.`

function declare(): Argv {
  return yargs()
    .scriptName(NAME)
    .usage(
      `Usage: $0 [options] <input> [output]\n\n` +
        `Converts a qcow2 disk image to a raw disk. The input is a file, an http: or https: address, or "-" for standard input. ` +
        `Without output, or with "-", the disk goes to standard output; ` +
        `a file is written sparsely, and appears only when it is complete; a block device is overwritten in place.`,
    )
    .locale('en')
    .option('force', {
      alias: 'f',
      type: 'boolean',
      describe: 'Replace an existing output file, or overwrite a block device',
      default: false,
    })
    .option('snapshot', {
      alias: 's',
      type: 'string',
      describe: 'Read this internal snapshot (id or name)',
      requiresArg: true,
    })
    .option('backing-file', {
      type: 'string',
      describe: 'Use this backing file, not the one the image names (--no-backing-file: use none)',
    })
    .option('backing-format', {
      choices: ['raw', 'qcow2'] as const,
      describe: 'Format of the backing file [default: as recorded]',
      requiresArg: true,
    })
    .option('data-file', { type: 'string', describe: 'Use this external data file', requiresArg: true })
    .option('references', {
      choices: ['same-directory', 'any', 'none'] as const,
      describe: 'Which files named by the image may be opened; "any" is dangerous with images from strangers',
      requiresArg: true,
      default: 'same-directory',
    })
    .options(SOURCE_OPTIONS)
    .option('passphrase-file', {
      type: 'string',
      array: true,
      nargs: 1,
      describe:
        'File with the passphrase of an encrypted image; a newline at its end does not count; again for each further encrypted layer [default: ask]',
      requiresArg: true,
    })
    .option('passphrase-fd', {
      type: 'string',
      describe: 'Open file descriptor with the passphrase',
      requiresArg: true,
      conflicts: 'passphrase-file',
    })
    .option('start', {
      type: 'string',
      describe: 'First guest byte (suffixes K, M, G, T: powers of 1024) [default: 0]',
      requiresArg: true,
    })
    .option('end', { type: 'string', describe: 'Last guest byte, inclusive [default: the last]', requiresArg: true })
    .option('sparse', {
      type: 'boolean',
      describe: 'Leave holes for zeros; --no-sparse writes every byte',
      default: true,
    })
    .option('target-is-zero', {
      type: 'boolean',
      describe: 'The block device reads as zeros already: do not write them',
      default: false,
    })
    .option('threads', {
      alias: 'j',
      type: 'number',
      describe: 'Most threads that decode; 0 for none [default: one per CPU, at most 4; of images from servers 2]',
      requiresArg: true,
    })
    .option('salvage', {
      type: 'boolean',
      describe: 'Write zeros for what cannot be read, list it, and exit with 6',
      default: false,
    })
    .option('digest', {
      type: 'string',
      describe:
        'Print the digest of the raw disk as sha256sum does: sha256, sha512, sha1, md5 or another hash of node:crypto; on standard error, if the disk goes to standard output',
      requiresArg: true,
    })
    .option('verify', {
      type: 'boolean',
      describe: 'Read the image and the output again and compare them, before the file gets its name',
      default: false,
    })
    .option('fsync', {
      type: 'boolean',
      describe: 'Flush the output to the disk before the command ends',
      default: false,
    })
    .option('progress', {
      choices: PROGRESS_FORMATS,
      describe:
        'Draw a bar on standard error, or print lines of JSON there, all of them, for programs; --no-progress: neither [default: bar, if it is a terminal]',
    })
    .option('quiet', { alias: 'q', type: 'boolean', describe: 'Print errors only', default: false })
    .option('debug', { type: 'boolean', describe: 'Print the stack of an error', default: false })
    .option('completion', { type: 'boolean', describe: 'Print a completion script for the shell' })
    .example('$0 disk.qcow2 disk.img', 'Convert to a sparse file')
    .example('$0 disk.qcow2 | zstd > disk.img.zst', 'Compress on the fly')
    .example('$0 -s before-update disk.qcow2 old.img', 'Convert an internal snapshot')
    .example('$0 --end 511 disk.qcow2 mbr.bin', 'Extract the first sector')
    .example('$0 https://example.org/disk.qcow2 disk.img', 'Fetch what is allocated, and nothing else')
    .example('ssh host cat disk.qcow2 | $0 - disk.img', 'Read standard input')
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
 * @param given The command line without interpreter and script.
 * @throws {CommandLineError}
 */
export async function parseOptions(given: readonly string[]): Promise<ConvertRequest | TextRequest> {
  const isCompleting = given.includes(COMPLETIONS)
  const { words, format: progress } = readProgress(given)
  const { given: parsed, argv, text, failure } = await parse(declare(), isCompleting ? given : words, NAME)
  if (isCompleting) {
    return { kind: 'text', text }
  }
  if (failure !== undefined) {
    throw new CommandLineError(failure)
  }
  if (argv['completion'] === true) {
    return { kind: 'text', text: await completionScript() }
  }
  if (text !== '') {
    return { kind: 'text', text: `${text}\n` }
  }
  const names = inputAndOutput(parsed['_'] as string[], argv['force'] === true)
  const passphraseFd = fileDescriptor(argv['passphraseFd'] as string | false | undefined)
  if (passphraseFd === 0 && names.input === undefined) {
    throw new CommandLineError('standard input cannot have both the image and the passphrase')
  }
  const spoolDirectory = spoolDirectoryOf(argv['spoolDir'])
  const backingFile = argv['backingFile']
  if (backingFile === '') {
    throw new CommandLineError('--backing-file needs a name (--no-backing-file: use none)')
  }
  return {
    kind: 'convert',
    ...names,
    options: {
      force: argv['force'] as boolean,
      snapshot: argv['snapshot'] as string | undefined,
      backingFile:
        backingFile === false ? null : backingFile === undefined ? undefined : pathOrUrl(backingFile as string),
      backingFormat: argv['backingFormat'] as 'raw' | 'qcow2' | undefined,
      dataFile: argv['dataFile'] === undefined ? undefined : pathOrUrl(argv['dataFile'] as string),
      http: { headers: headersOf(wordsOf('header', parsed)) },
      spoolDirectory,
      references: argv['references'] as 'same-directory' | 'any' | 'none',
      start: byteCount('start', argv['start']),
      end: byteCount('end', argv['end']),
      sparse: argv['sparse'] as boolean,
      targetIsZero: argv['targetIsZero'] as boolean,
      digest: argv['digest'] as string | undefined,
      verify: argv['verify'] as boolean,
      fsync: argv['fsync'] as boolean,
      threads: argv['threads'] as number | undefined,
    },
    passphrases: {
      files: wordsOf('passphrase-file', parsed),
      fd: passphraseFd,
    },
    progress,
    isQuiet: argv['quiet'] as boolean,
    isSalvaging: argv['salvage'] as boolean,
    isDebug: argv['debug'] as boolean,
  }
}

function fileDescriptor(word: string | false | undefined): number | undefined {
  if (word === undefined) {
    return undefined
  }
  // An empty word would be a number as well, that of standard input.
  const fd = /^\d+$/.test(String(word)) ? Number(word) : NaN
  if (!(fd < 2 ** 31)) {
    throw new CommandLineError(
      `--passphrase-fd: found ${quoteText(String(word))}, allowed is the number of an open file descriptor`,
    )
  }
  return fd
}

const SUFFIXES = ['', 'K', 'M', 'G', 'T']

function byteCount(name: string, word: unknown): number | undefined {
  if (word === undefined) {
    return undefined
  }
  const parts = /^(\d+)([KMGT]?)$/i.exec(word as string)
  const value = parts === null ? NaN : Number(parts[1]) * 1024 ** SUFFIXES.indexOf(parts[2]!.toUpperCase())
  if (!Number.isSafeInteger(value)) {
    throw new CommandLineError(
      `--${name}: found ${quoteText(word as string)}, allowed is a number of bytes such as 512, 64K or 1G`,
    )
  }
  return value
}

async function completionScript(): Promise<string> {
  let script = ''
  await declare()
    .completion(NAME)
    .parseAsync([NAME], {}, (_error, _argv, output) => {
      script = output
    })
  return `${script.replaceAll(`${NAME} ${NAME} >>`, `${NAME} --completion >>`)}\n`
}
