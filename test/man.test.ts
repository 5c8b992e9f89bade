/**
 * The manual pages: each has every option, exit code and the grammar that readers of such pages expect.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { missingPrograms, runCommand } from './fixtures/run-command.js'

for (const command of ['qcow2-to-raw', 'qcow2-info'] as const) {
  const page = fileURLToPath(new URL(`../../man/${command}.1`, import.meta.url))
  const text = readFileSync(page, 'utf8')
  const help = (await runCommand(['--help'], { command })).stdout.toString()
  const [, list = ''] = /\nOptions:\n(.*?)\n\n/s.exec(help) ?? []

  /** Names of the options that the page describes. */
  const described = [...text.matchAll(/^\.It (.*)$/gm)]
    .flatMap(([, line]) => [...line!.matchAll(/Fl -([a-z][a-z-]+)/g)].map(([, name]) => name!))
    .map((name) => name.replace(/^no-/, ''))

  t.test(`${command}: describes the options of --help, and no other`, async (t) => {
    const names = [...list.matchAll(/^ +(?:-\w, )?--([\w-]+)/gm)].map(([, name]) => name!)
    t.ok(names.length > 8, `${names.length} options`)
    t.strictSame([...new Set(described)].sort(), names.sort())
  })

  t.test(`${command}: has the short names`, async (t) => {
    for (const [, short, long] of list.matchAll(/^ +-(\w), --([\w-]+)/gm)) {
      t.match(text, new RegExp(`^\\.It Fl ${short} , Fl -${long}\\b`, 'm'))
    }
  })

  t.test(`${command}: has the exit codes`, async (t) => {
    const [, codes = ''] = /Exit codes: ([^]*)$/.exec(help) ?? []
    const listed = [...codes.matchAll(/\b(\d+)\s[A-Za-z]/g)].map(([, code]) => code!)
    const [, section = ''] = /\.Sh EXIT STATUS\n([^]*?)\n\.Sh/.exec(text) ?? []
    t.ok(listed.length > 6)
    t.strictSame([...section.matchAll(/^\.It (.*)$/gm)].flatMap(([, line]) => line!.split(' , ')).sort(), listed.sort())
  })

  t.test(`${command}: is correct in form`, { skip: missingPrograms('mandoc') }, async (t) => {
    // Which other pages are on the machine is not the point.
    const { stdout } = spawnSync('mandoc', ['-T', 'lint', '-W', 'style', page], { encoding: 'utf8' })
    const lines = stdout.split('\n').filter((line) => line !== '' && !line.includes('referenced manual not found'))
    t.strictSame(lines, [])
  })
}
