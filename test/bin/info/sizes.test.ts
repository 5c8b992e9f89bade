/** Numbers of bytes as people read them. */
import t from 'tap'
import { exactSizeText, sizeText } from '../../../bin/info/sizes.js'

t.test('three digits and a unit, without zeros at the end', async (t) => {
  const cases: [bytes: number, text: string][] = [
    [0, '0 bytes'],
    [1023, '1023 bytes'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [1417216, '1.35 MiB'],
    [1000 * 1024, '1000 KiB'],
    [1023 * 1024, '1023 KiB'],
    [10 * 2 ** 30, '10 GiB'],
    [2 ** 53 - 1, '8 PiB'],
    [2 ** 62, '4096 PiB'],
  ]
  for (const [bytes, text] of cases) t.equal(sizeText(bytes), text)
})

t.test('with the exact number, where that is another', async (t) => {
  t.equal(exactSizeText(512), '512 bytes')
  t.equal(exactSizeText(10 * 2 ** 30), '10 GiB (10737418240 bytes)')
})
