/** Options that do not exist are named as they were typed; those of qemu-img get a hint. */
import t from 'tap'
import { aboutUnknownOptions } from '../../bin/unknown-options.js'
import { runCommand } from '../fixtures/run-command.js'

t.test('names them, with a hint for those of qemu-img', async (t) => {
  for (const [message, expected] of [
    ['Unknown argument: x', 'unknown option: -x'],
    ['Unknown arguments: foo-bar, baz, x, fooBar', 'unknown option: --foo-bar, --baz, -x'],
    ['Unknown arguments: FOO-BAR, fooBar', 'unknown option: --FOO-BAR'],
    ['Unknown arguments: fooBar, bar', 'unknown option: --fooBar, --bar'],
    ['Unknown argument: O', 'unknown option: -O; the output is always a raw disk'],
    [
      'Unknown arguments: p, O',
      'unknown option: -p, -O; a terminal shows a bar without being asked; the output is always a raw disk',
    ],
    ['Unknown argument: constructor', 'unknown option: --constructor'],
    ['Unknown argument: output', 'unknown option: --output'],
    ['Not enough arguments following: start', 'Not enough arguments following: start'],
  ] as const) {
    t.equal(aboutUnknownOptions(message, 'qcow2-to-raw'), expected)
  }
})

t.test('lines that people bring along', async (t) => {
  for (const [command, line, expected] of [
    ['qcow2-to-raw', '-f qcow2 -O raw a.qcow2 a.img', 'unknown option: -O; the output is always a raw disk'],
    ['qcow2-to-raw', '--foo-bar a.qcow2 a.img', 'unknown option: --foo-bar'],
    ['qcow2-info', '--output=json a.qcow2', 'unknown option: --output; --json prints JSON'],
    [
      'qcow2-to-raw',
      '-f qcow2 a.qcow2 a.img',
      'one input and one output are allowed, found 3 names; -f is --force, and takes no format',
    ],
    ['qcow2-to-raw', '-f a b c', 'one input and one output are allowed, found 3 names'],
    ['qcow2-to-raw', 'raw a b', 'one input and one output are allowed, found 3 names'],
    ['qcow2-to-raw', '--_=x a.qcow2', 'unknown option: _'],
    ['qcow2-info', '--_=x a.qcow2', 'unknown option: _'],
    ['qcow2-info', '-p a.qcow2', 'unknown option: -p'],
    ['qcow2-to-raw', '--verify=yes a.qcow2 a.img', '--verify: found "yes", allowed is no value, true or false'],
    ['qcow2-to-raw', '-f=no a.qcow2 a.img', '-f: found "no", allowed is no value, true or false'],
    ['qcow2-to-raw', '--sparse=off a.qcow2 a.img', '--sparse: found "off", allowed is no value, true or false'],
    ['qcow2-info', '--check=1 a.qcow2', '--check: found "1", allowed is no value, true or false'],
    [
      'qcow2-info',
      '-U -f qcow2 a.qcow2',
      'unknown option: -U, -f; an image is never locked; the image is always qcow2',
    ],
  ] as const) {
    const { code, stdout, stderr } = await runCommand(line.split(' '), { command, cwd: t.testdir(), isCovered: true })
    t.equal(code, 2)
    t.equal(stdout.toString(), '')
    t.equal(stderr, `${command}: ${expected}\n${command}: --help lists the options\n`)
  }
})

t.test('hints name options that the command has', async (t) => {
  for (const command of ['qcow2-to-raw', 'qcow2-info'] as const) {
    const help = (await runCommand(['--help'], { command })).stdout.toString()
    const all = aboutUnknownOptions('Unknown arguments: O, p, U, l, S, f, object, output, image-opts', command)
    const [, ...hints] = all.split('; ')
    t.ok(hints.length >= 4, all)
    for (const flag of hints.join(' ').match(/--[\w-]+/g) ?? []) t.match(help, new RegExp(`^ +(-\\w, )?${flag} `, 'm'))
  }
})
