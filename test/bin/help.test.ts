/**
 * What the command says about itself: help, version, completion; and that it starts from where npm puts it.
 */
import { readdirSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { buildImage } from '../fixtures/image-builder.js'
import { commandPath, missingPrograms, runBash, runCommand, start } from '../fixtures/run-command.js'
import { sampleFolder } from '../fixtures/sample-images.js'

const { version } = JSON.parse(readFileSync(join(commandPath, '../../../package.json'), 'utf8')) as { version: string }

// Each of them has a test of what it does in this folder; an option that is added here needs one as well.
const OPTIONS = [
  '--backing-file',
  '--backing-format',
  '--completion',
  '--data-file',
  '--debug',
  '--digest',
  '--end',
  '--force',
  '--fsync',
  '--header',
  '--help',
  '--passphrase-fd',
  '--passphrase-file',
  '--progress',
  '--quiet',
  '--references',
  '--salvage',
  '--snapshot',
  '--sparse',
  '--spool-dir',
  '--start',
  '--target-is-zero',
  '--threads',
  '--verify',
  '--version',
]

for (const word of ['--help', '-h']) {
  t.test(`${word} describes options, exit codes and examples on standard output`, async (t) => {
    const { code, stdout, stderr } = await runCommand([word], { isCovered: true })
    const text = stdout.toString()
    t.equal(code, 0)
    t.equal(stderr, '')
    t.same([...text.matchAll(/^ +(?:-\w, )?(--[\w-]+)/gm)].map(([, option]) => option).sort(), OPTIONS)
    t.match(text, /^Usage: qcow2-to-raw \[options\] <input> \[output\]\n/)
    t.match(text, /^Examples:\n {2}qcow2-to-raw /m)
    for (const exitCode of ['0 done', '1 ', '2 ', '3 ', '4 ', '5 ', '6 ', '130 ', '143 ']) {
      t.match(text.replace(/\s+/g, ' '), new RegExp(`Exit codes:.*\\b${exitCode}`))
    }
    t.ok(text.endsWith('\n') && !text.endsWith('\n\n'), 'ends with one line feed')
  })
}

t.test('speaks one language, whatever the locale', async (t) => {
  const env = { LC_ALL: 'de_DE.UTF-8', LANG: 'de_DE.UTF-8', LANGUAGE: 'de' }
  const help = await runCommand(['--help'], { env })
  t.match(help.stdout.toString(), /^Options:$/m)
  const { stderr } = await runCommand(['--frobnicate'], { env })
  t.match(stderr, /unknown option/)
})

t.test('--version prints the version of the package', async (t) => {
  const { code, stdout, stderr } = await runCommand(['--version'])
  t.equal(code, 0)
  t.equal(stdout.toString(), `${version}\n`)
  t.equal(stderr, '')
})

t.test('starts through the link that npm makes', async (t) => {
  const folder = t.testdir({ node_modules: { '.bin': {} } })
  const link = join(folder, 'node_modules', '.bin', 'qcow2-to-raw')
  symlinkSync(commandPath, link)
  const { code, stdout, stderr } = await start(link, ['--end', '2', join(sampleFolder, 'plain-v3.qcow2')], {}).ended
  t.equal(stderr, '')
  t.equal(code, 0)
  t.equal(stdout.length, 3)
})

t.test('--completion prints a script that completes options in bash', { skip: missingPrograms('bash') }, async (t) => {
  const folder = t.testdir({ bin: {}, 'disk.qcow2': '', 'disk.img': '' })
  symlinkSync(commandPath, join(folder, 'bin', 'qcow2-to-raw'))
  const env = { SHELL: '/bin/bash', ZSH_NAME: undefined }

  const { code, stdout, stderr } = await runCommand(['--completion'], { env, isCovered: true })
  t.equal(code, 0)
  t.equal(stderr, '')
  const script = stdout.toString()
  t.match(script, /qcow2-to-raw --completion >> ~\/\.bashrc/, 'says how to install it')

  const complete = async (...typed: string[]): Promise<string[]> => {
    const line =
      `PATH=$PWD/bin:$PATH; eval "$SCRIPT"; COMP_WORDS=(qcow2-to-raw "$@"); COMP_CWORD=$#; ` +
      `function=$(complete -p qcow2-to-raw | sed 's/.* -F \\([^ ]*\\) .*/\\1/'); "$function"; ` +
      `printf '%s\\n' "\${COMPREPLY[@]}"`
    const run = await runBash(`set -- ${typed.map((word) => `'${word}'`).join(' ')}; ${line}`, {
      cwd: folder,
      env: { ...env, SCRIPT: script },
    })
    t.equal(run.stderr, '')
    return run.stdout.toString().split('\n').filter(Boolean)
  }
  t.same(await complete('--back'), ['--backing-file', '--backing-format'])
  t.same(await complete('--quiet', '--ref'), ['--references'])
  t.same(await complete('--references', 'a'), ['any'])
  t.same(await complete('--progress', 'j'), ['json'])
  t.same(await complete('--progress', 'json', '--ref'), ['--references'])
  t.same(await complete('dis'), [], 'leaves file names to bash')
  const all = await complete('--')
  t.same(
    OPTIONS.filter((option) => !all.includes(option)),
    [],
    'offers every option',
  )
  t.same(
    all.filter((word) => !/^--[fhjqs]$/.test(word) && !OPTIONS.includes(word.replace(/^--no-/, '--'))),
    [],
    'and nothing that is none',
  )
})

t.test('completing a word converts nothing', async (t) => {
  const cwd = t.testdir({ 'a.qcow2': buildImage({ clusterBits: 9, virtualSize: 1024 }).bytes })
  for (const typed of [['a.qcow2', 'new.img'], ['a.qcow2'], ['none.qcow2'], ['--frobnicate', 'x', 'y', 'z']]) {
    const words = ['--get-yargs-completions', 'qcow2-to-raw', ...typed]
    const { code, stdout, stderr } = await runCommand(words, { cwd, env: { SHELL: '/bin/bash' }, isCovered: true })
    t.equal(code, 0)
    t.equal(stdout.toString(), '')
    t.equal(stderr, '')
  }
  t.same(readdirSync(cwd), ['a.qcow2'])
})
