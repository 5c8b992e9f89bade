/**
 * Lists the partitions of the disk inside an image, or writes one of them to a sparse file, without converting the rest:
 *
 *     node dist/examples/extract-partition.js IMAGE [PARTITION OUTPUT]      PARTITION is a number or a name of the list
 *
 * Knows names and numbers of partitions; gpt.ts knows how they are stored.
 */
import { existsSync, realpathSync } from 'node:fs'
import { convert, Qcow2Image, quoteText } from 'qcow2'
import { readPartitions, type PartitionTable } from './gpt.js'

/**
 * Writes one partition to a file that is not there yet, with its zeros as holes.
 *
 * @param wanted Its number, or its name
 * @throws An `Error` if it is none, or one of several, or not on the disk; the errors of `convert`
 */
export async function extractPartition(
  path: string,
  wanted: string,
  output: string,
  { partitions }: PartitionTable,
): Promise<void> {
  const numbered = partitions.filter(({ number }) => String(number) === wanted)
  const found = numbered.length > 0 ? numbered : partitions.filter(({ name }) => name === wanted)
  const [partition] = found
  if (partition === undefined || found.length > 1) {
    throw new Error(`${quoteText(wanted)} is the number or name of ${found.length} partitions, allowed is 1`)
  }
  if (partition.range === undefined) {
    throw new Error(
      `partition ${partition.number}: LBA ${partition.firstLba} to ${partition.lastLba} is not on the disk`,
    )
  }
  const { start, end } = partition.range
  await convert(path, output, { start, end: end - 1 })
}

/** A line for each partition, after one that says what is in the columns. */
function listOf({ partitions }: PartitionTable): string {
  const rows = partitions.map(({ number, name, type, firstLba, lastLba, range }) => {
    const bytes = range === undefined ? 'not on the disk' : range.end - range.start
    // Whoever made the image chose the name: it may have control characters.
    return [number, quoteText(name), type, firstLba, lastLba, bytes].join('\t')
  })
  return [['number', 'name', 'type', 'first LBA', 'last LBA', 'bytes'].join('\t'), ...rows, ''].join('\n')
}

/** Does what the words ask for. */
async function main([path, wanted, output]: readonly string[]): Promise<void> {
  if (path === undefined || (wanted === undefined) !== (output === undefined)) {
    throw new Error('usage: node dist/examples/extract-partition.js IMAGE [PARTITION OUTPUT]')
  }
  const image = await Qcow2Image.open(path)
  const table = await readPartitions(image).finally(() => image.close())
  if (table.damage !== undefined) {
    process.stderr.write(`extract-partition: ${table.damage}; its backup is taken\n`)
  }
  if (wanted === undefined || output === undefined) {
    process.stdout.write(listOf(table))
  } else {
    await extractPartition(path, wanted, output, table)
  }
}

const [, script = '', ...words] = process.argv
if (existsSync(script) && realpathSync(script) === import.meta.filename) {
  await main(words).catch((error: unknown) => {
    process.stderr.write(`extract-partition: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  })
}
