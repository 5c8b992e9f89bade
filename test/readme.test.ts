/**
 * README.md's code in TypeScript, and what a newcomer copies: it runs as it stands there, and does what the text around it says.
 */
import { existsSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import ts from 'typescript'
import {
  disk,
  exampleServer,
  folderWithDisk,
  readmeBlocks,
  readmeLanguages,
  runLine,
  SERVER,
  sha256,
} from './fixtures/readme.js'
import { missingPrograms, start } from './fixtures/run-command.js'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** Numbers that follow each other without a gap and fill the disk: offset and length of each line. */
function tilesDisk(rows: readonly (readonly number[])[]): boolean {
  let end = 0
  return rows.every(([offset, length = 0]) => offset === end && (end += length) > offset) && end === disk.virtualSize
}

interface Effect {
  /** Names the block that has it. */
  readonly of: RegExp
  readonly title: string
  readonly check: (t: Test, folder: string, lines: readonly string[]) => void
}

const effects: readonly Effect[] = [
  {
    of: /createReadStream\(new URL/,
    title: 'fetches the disk, with a header',
    check: (t, folder, lines) => {
      t.equal(sha256(readFileSync(join(folder, 'fetched.img'))), disk.sha256)
      t.strictSame(lines, [])
    },
  },
  {
    of: /openAsBlob/,
    title: 'reads a Blob, and a source that is one',
    check: (t, _folder, lines) => t.strictSame(lines, [String(disk.virtualSize), String(disk.virtualSize)]),
  },
  {
    of: /createReadStream\('disk\.qcow2'\), createWriteStream/,
    title: 'writes the raw disk',
    check: (t, folder, lines) => {
      t.equal(sha256(readFileSync(join(folder, 'disk.img'))), disk.sha256)
      t.strictSame(lines, [])
    },
  },
  {
    of: /objectMode/,
    title: 'prints chunks that make up the disk',
    check: (t, _folder, lines) => {
      const rows = lines.map((line) => /^(data|zeros) (\d+) (\d+)$/.exec(line)?.slice(2).map(Number) ?? [])
      t.ok(tilesDisk(rows), lines.join('\n'))
      t.ok(lines.some((line) => line.startsWith('data ')) && lines.some((line) => line.startsWith('zeros ')))
    },
  },
  {
    of: /passphrase/,
    title: 'opens the encrypted image',
    check: (t, _folder, lines) => t.strictSame(lines, [String(disk.virtualSize)]),
  },
  {
    of: /image\.info/,
    title: 'tells what the image is, and that nothing is wrong with it',
    check: (t, _folder, lines) => t.strictSame(lines, [`qcow2 ${disk.virtualSize} 0 0`]),
  },
  {
    of: /Qcow2Image\.open\('disk\.qcow2'\)/,
    title: 'prints what the image is, and extents that make up the disk',
    check: (t, _folder, [facts, ...lines]) => {
      t.equal(facts, `${disk.virtualSize} 4096 0 []`)
      const rows = lines.map((line) =>
        /^(\d+) (\d+) (data|compressed|zero|unallocated)$/.exec(line)?.slice(1).map(Number),
      )
      t.ok(tilesDisk(rows.map((row) => row ?? [])), lines.join('\n'))
    },
  },
  {
    of: /salvage:/,
    title: 'converts all of it, as nothing is lost',
    check: (t, folder, lines) => {
      t.equal(sha256(readFileSync(join(folder, 'rescued.img'))), disk.sha256)
      t.strictSame(lines, [])
    },
  },
  {
    of: /await convert\(.*onProgress/s,
    title: 'converts, and reports it from 0 or more to 1',
    check: (t, folder, lines) => {
      t.equal(sha256(readFileSync(join(folder, 'copy.img'))), disk.sha256)
      const records = lines.slice(0, -1).map((line) => /^converting (\S+) (\d\S*) (?:\d\S*|undefined)$/.exec(line))
      const done = records.map((record) => Number(record?.[1]))
      t.ok(
        done.length > 0 && done.every((part, index) => part >= (done[index - 1] ?? 0) && part <= 1),
        lines.join('\n'),
      )
      t.equal(done.at(-1), 1)
      const [length, bytesWritten] = lines.at(-1)!.split(' ').map(Number)
      t.equal(length, disk.virtualSize)
      t.ok(bytesWritten! > 0 && bytesWritten! <= length!, `${bytesWritten} bytes written`)
    },
  },
]

t.test('every block is of a language that is run here', async (t) => {
  t.strictSame([...new Set(readmeLanguages)].sort(), ['console', 'sh', 'ts'])
})

t.test('samples in TypeScript pass the strict compiler', async (t) => {
  const folder = t.testdir()
  const names = readmeBlocks('ts').map(({ line, text }) => {
    const name = join(folder, `line-${line}.ts`)
    writeFileSync(name, text)
    return name
  })
  for (const more of [[], ['lib.dom.d.ts', 'lib.dom.iterable.d.ts']]) {
    const program = ts.createProgram(names, {
      strict: true,
      noEmit: true,
      skipLibCheck: true,
      target: ts.ScriptTarget.ES2022,
      lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts', ...more],
      types: ['node'],
      typeRoots: [join(root, 'node_modules', '@types')],
      module: ts.ModuleKind.NodeNext,
      moduleResolution: ts.ModuleResolutionKind.NodeNext,
    })
    const messages = ts
      .getPreEmitDiagnostics(program)
      .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))
    t.strictSame(messages, [], `with ${more.length > 0 ? 'the types of browsers' : 'those of Node alone'}`)
  }
  t.ok(names.length > 0)
})

for (const { line, text } of readmeBlocks('ts')) {
  const effect = effects.find(({ of }) => of.test(text))
  t.test(`the sample in line ${line} ${effect?.title ?? 'has an effect that is tested'}`, async (t) => {
    t.ok(effect)
    const folder = folderWithDisk(t)
    const module = ts.ModuleKind.ESNext
    const server = await exampleServer(t)
    const sample = text.replaceAll(SERVER, server.url('/').href)
    const { outputText } = ts.transpileModule(sample, { compilerOptions: { module, target: ts.ScriptTarget.ES2022 } })
    writeFileSync(join(folder, 'sample.mjs'), outputText)
    const { code, stdout, stderr } = await start(process.execPath, ['sample.mjs'], { cwd: folder }).ended
    t.equal(stderr, '')
    t.equal(code, 0)
    effect?.check(t, folder, stdout.toString().split('\n').slice(0, -1))
  })
}

t.test('every effect that is tested here has its sample', async (t) => {
  for (const { of, title } of effects) {
    t.equal(readmeBlocks('ts').filter(({ text }) => of.test(text)).length, 1, title)
  }
})

t.test('what a newcomer copies is one command each, whose parts exist', async (t) => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>
  }
  t.ok(existsSync(join(root, 'package-lock.json')), 'npm ci has a lock file')
  t.equal(readmeBlocks('sh').length, 2)
  for (const { text } of readmeBlocks('sh')) {
    t.match(text, /^[^\n]+\n$/, 'is one line')
    for (const part of text.trim().split(' && ')) {
      const [, script] = /^npm (?:run )?(\w+)$/.exec(part) ?? []
      t.ok(
        part === 'npm ci' || part.startsWith('npx qcow2-to-raw ') || (script !== undefined && script in scripts),
        part,
      )
    }
  }
})

t.test('the conversion that a newcomer copies', { skip: missingPrograms('bash') }, async (t) => {
  const lines = readmeBlocks('sh').flatMap(({ text }) => text.trim().split(' && '))
  const [line, ...others] = lines.filter((part) => part.startsWith('npx '))
  t.strictSame(others, [], 'is one')
  const folder = t.testdir({ 'sample.raw': 'an older one' })
  symlinkSync(join(root, 'test'), join(folder, 'test'))
  const { code, stdout, stderr } = await runLine(line!, folder)
  t.strictSame({ code, stdout: stdout.toString(), stderr }, { code: 0, stdout: '', stderr: '' })
  t.equal(sha256(readFileSync(join(folder, 'sample.raw'))), disk.sha256)
})
