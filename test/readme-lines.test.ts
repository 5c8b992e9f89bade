/**
 * README.md's lines for a shell: each runs as it stands there, prints what is shown, and does what the text around it says.
 */
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { dividedDisk, PARTITION } from './fixtures/divided-disk.js'
import { freePort } from './fixtures/free-port.js'
import type { TestServer } from './fixtures/http-server.js'
import { noTerminal } from './fixtures/pseudo-terminal.js'
import { loopDevice, noLoopDevices } from './fixtures/loop-device.js'
import type { FencedBlock } from './fixtures/markdown.js'
import {
  disk,
  exampleServer,
  folderWithDisk,
  readmeBlocks,
  runLine,
  runLineInTerminal,
  SERVER,
  sha256,
} from './fixtures/readme.js'
import { missingPrograms, start, type Ended } from './fixtures/run-command.js'
import { S3Server } from './fixtures/s3-server.js'

const root = fileURLToPath(new URL('../../', import.meta.url))
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }

/** Where a line runs. */
interface Place {
  readonly folder: string
  readonly server: TestServer
}

/** A line as it runs here. */
interface Prepared {
  readonly line?: string
  readonly env?: Readonly<Record<string, string>>
  /** Default: `runLine`. */
  readonly run?: typeof runLine
  /** Beside what it prints. Default: its output is the raw disk. */
  readonly check?: (ended: Ended) => void
}

/** Lines that need something, or do something else than to write the raw disk. */
interface Kind {
  readonly of: RegExp
  /** Why it cannot run here; false if it can. */
  readonly missing?: string | false
  readonly prepare: (t: Test, line: string, place: Place) => Prepared | Promise<Prepared>
}

/** Asserts that it has ended well. */
const isDone = (t: Test, { code, stderr }: Ended): void => {
  t.strictSame({ code, stderr }, { code: 0, stderr: '' })
}

const DEVICE = '/dev/sdX'
const PORT = 8080

// The others.
const PLAIN: Pick<Kind, 'missing' | 'prepare'> = { prepare: () => ({}) }

const kinds: readonly Kind[] = [
  {
    of: /^npx qcow2-info /,
    prepare: (t, line) => ({
      check: (ended) => {
        isDone(t, ended)
        if (!/ --(?:json|map) /.test(line)) return
        const json: unknown = JSON.parse(ended.stdout.toString())
        t.type(json, Object, 'prints JSON')
        if (line.includes('--backing-chain')) t.ok(Array.isArray(json) && json.length > 1, 'of several files')
      },
    }),
  },
  {
    of: /^NO_COLOR=1 /,
    missing: noTerminal,
    prepare: (t) => ({ run: runLineInTerminal, check: (ended) => isDone(t, ended) }),
  },
  {
    of: /^man /,
    missing: missingPrograms('man'),
    prepare: (t, line, { folder }) => {
      const installed = join(folder, 'node_modules', 'qcow2')
      mkdirSync(dirname(installed), { recursive: true })
      if (!existsSync(installed)) {
        symlinkSync(root, installed)
      }
      return {
        check: (ended) => {
          isDone(t, ended)
          const [, name = ''] = /([^/]+)\.1$/.exec(line) ?? []
          t.match(ended.stdout.toString(), `${name.toUpperCase()}(1)`)
        },
      }
    },
  },
  {
    of: /kill -USR1/,
    prepare: (_t, _line, { server }) => {
      // Long enough to be asked meanwhile.
      server.next(() => wait(4000))
      return {}
    },
  },
  { of: / zstd /, missing: missingPrograms('zstd'), prepare: PLAIN.prepare },
  {
    of: /\/dev\/sdX/,
    missing: noLoopDevices,
    prepare: (t, line, { folder }) => {
      // As long as the disk, and full of something else: also where it may be taken for empty, so that zeros that are written are seen.
      const path = join(folder, 'device')
      writeFileSync(path, Buffer.alloc(disk.virtualSize, 0xff))
      const device = loopDevice(t, path).path
      const mayPassOverZeros = line.includes('--target-is-zero')
      return {
        line: line.replace(DEVICE, device),
        check: (ended) => {
          isDone(t, ended)
          const bytes = readFileSync(device)
          t.equal(sha256(bytes) === disk.sha256, !mayPassOverZeros, 'zeros are written, if they have to be')
          if (mayPassOverZeros) {
            // Of a block of them none is written.
            for (let at = 0; at < bytes.length; at += 4096) {
              const block = bytes.subarray(at, at + 4096)
              if (block.every((byte) => byte === 0xff)) block.fill(0)
            }
          }
          t.equal(sha256(bytes), disk.sha256, 'the device holds the raw disk')
        },
      }
    },
  },
  {
    of: /hash-disk/,
    prepare: (t) => ({
      check: (ended) => {
        isDone(t, ended)
      },
    }),
  },
  {
    of: /extract-partition/,
    prepare: (t, line, { folder }) => {
      writeFileSync(join(folder, 'divided.qcow2'), dividedDisk())
      return {
        line: line.replace('disk.qcow2', 'divided.qcow2'),
        check: (ended) => {
          isDone(t, ended)
          t.ok(PARTITION.equals(readFileSync(join(folder, outputOf(line)))), 'the output is the partition')
        },
      }
    },
  },
  {
    of: /serve-disk/,
    missing: missingPrograms('curl'),
    prepare: async (_t, line) => ({ line: line.replaceAll(String(PORT), String(await freePort())) }),
  },
  {
    of: /upload-to-s3/,
    prepare: async (t, line) => {
      const [, bucket, key] = / (\S+) (\S+)$/.exec(line)!
      const { server } = await S3Server.start(t, new Uint8Array(), { place: `${bucket}/${key}` })
      return {
        env: {
          AWS_ENDPOINT_URL: server.endpoint,
          AWS_REGION: 'eu-central-1',
          AWS_ACCESS_KEY_ID: 'somebody',
          AWS_SECRET_ACCESS_KEY: 'a secret that opens nothing',
          // Of the client, about versions of Node that it will not run on some day.
          NODE_NO_WARNINGS: '1',
        },
        check: (ended) => {
          isDone(t, ended)
          t.equal(sha256(server.object.bytes), disk.sha256, 'the object is the raw disk')
        },
      }
    },
  },
]

/** The file that a line writes. */
function outputOf(line: string): string {
  const words = line.split(/[\s;]+/).filter((word) => /^[\w-]+\.img(?:\.zst)?$/.test(word))
  return words.at(-1) ?? 'names no output'
}

async function isRawDisk(t: Test, line: string, { folder }: Place): Promise<void> {
  const output = outputOf(line)
  const bytes = output.endsWith('.zst')
    ? (await start('zstd', ['-dc', output], { cwd: folder }).ended).stdout
    : readFileSync(resolve(folder, output))
  t.equal(sha256(bytes), disk.sha256, 'the output is the raw disk')
}

/** A command of a console block, and the lines that it prints. */
interface ShownCommand {
  readonly command: string
  readonly output: readonly string[]
}

function shownCommands({ text }: FencedBlock): ShownCommand[] {
  return text
    .split(/^\$ /m)
    .slice(1)
    .map((part) => part.trimEnd().split('\n'))
    .map(([command = '', ...output]) => ({ command, output }))
}

/** Without what is the file system's affair, or the moment's. */
const comparable = (text: string): string =>
  text
    .replace(/^( {2}on disk +).*/gm, '$1')
    .replace(/^( {4}\()\d+\.\d\d(\/100%\))$/gm, '$1$2')
    .replace(/\b127\.0\.0\.1:\d+/g, '127.0.0.1')

const blocks = readmeBlocks('console')

for (const block of blocks) {
  const shown = shownCommands(block).filter(({ command }) => !/^npm (?:install|run) /.test(command))
  if (shown.length === 0) continue
  const title = `the commands from line ${block.line} on, ${shown.length} of them`
  t.test(title, { skip: missingPrograms('bash') }, async (t) => {
    const place = { folder: folderWithDisk(t), server: await exampleServer(t) }
    for (const { command, output } of shown) {
      const { missing = false, prepare } = kinds.find(({ of }) => of.test(command)) ?? PLAIN
      const isRequired = process.env['CI'] === 'true'
      await t.test(`$ ${command}`, { skip: !isRequired && missing }, async (t) => {
        t.notOk(missing)
        const prepared: Prepared = await prepare(t, command, place)
        const line = (prepared.line ?? command).replaceAll(SERVER, place.server.url('/').href)
        const ended = await (prepared.run ?? runLine)(line, place.folder, prepared.env)
        const printed = comparable(`${ended.stdout.toString()}${ended.stderr}`)
        // What is long is not shown.
        if (output.length > 0 || prepared.check === undefined) {
          t.equal(printed, comparable(output.map((text) => `${text}\n`).join('')), 'prints what is shown')
        }
        if (prepared.check === undefined) {
          // All that is shown of errors is about the call.
          t.equal(ended.code, output.some((text) => /^qcow2-to-raw: (?!warning: )/.test(text)) ? 2 : 0)
          await isRawDisk(t, command, place)
        } else {
          prepared.check(ended)
        }
      })
    }
  })
}

t.test('scripts that it names are there, and CI runs them', async (t) => {
  const named = blocks.flatMap(shownCommands).flatMap(({ command }) => /^npm run (\S+)/.exec(command)?.[1] ?? [])
  t.ok(named.length > 0)
  const path = join(root, '.ci', 'run')
  for (const name of named) {
    t.ok(name in scripts, name)
    t.match(readFileSync(path, 'utf8'), new RegExp(`npm run ${name}\\b`), name)
  }
})

t.test('every kind of line that is prepared here is shown', async (t) => {
  const commands = blocks.flatMap(shownCommands).map(({ command }) => command)
  for (const { of } of kinds)
    t.ok(
      commands.some((command) => of.test(command)),
      String(of),
    )
})
