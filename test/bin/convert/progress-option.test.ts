/**
 * --progress among other words: with a value, without one, and beside the name of a file.
 */
import t from 'tap'
import { readProgress } from '../../../bin/convert/progress-option.js'

const read = (line: string): { words: string; format: unknown } => {
  const { words, format } = readProgress(line.split(' '))
  return { words: words.join(' '), format }
}

t.test('takes json and bar, and no other word, for a value', async (t) => {
  for (const [line, words, format] of [
    ['in out', 'in out', undefined],
    ['--progress disk.qcow2 out.img', '--progress=bar disk.qcow2 out.img', 'bar'],
    ['in out --progress', 'in out --progress=bar', 'bar'],
    ['--progress -f in', '--progress=bar -f in', 'bar'],
    ['--progress json in', '--progress=json in', 'json'],
    ['--progress bar in', '--progress=bar in', 'bar'],
    ['--progress bar json out', '--progress=bar json out', 'bar'],
    ['--progress json.qcow2 out', '--progress=bar json.qcow2 out', 'bar'],
    ['--progress=json in', '--progress=json in', 'json'],
    ['--progress=bar json', '--progress=bar json', 'bar'],
    ['json --progress', 'json --progress=bar', 'bar'],
  ] as const) {
    t.same(read(line), { words, format }, line)
  }
})

t.test('takes none for neither, and keeps its place', async (t) => {
  t.same(read('--no-progress json in'), { words: '--progress=bar json in', format: 'none' })
})

t.test('of several the last one counts', async (t) => {
  t.equal(read('--progress json --no-progress in').format, 'none')
  t.equal(read('--no-progress --progress in').format, 'bar')
  t.equal(read('--progress bar --progress=json in').format, 'json')
})

t.test('leaves wrong values to whoever reads the rest', async (t) => {
  for (const line of ['--progress=xml in', '--progress= in', '--progressive json', '--no-progress=json in']) {
    t.same(read(line), { words: line, format: undefined }, line)
  }
})

t.test('behind -- there are names only', async (t) => {
  const line = '-- --progress json --progress=json --no-progress'
  t.same(read(line), { words: line, format: undefined })
  t.same(read('--progress -- json'), { words: '--progress=bar -- json', format: 'bar' })
})
