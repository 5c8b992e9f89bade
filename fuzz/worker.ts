/** Examines the mutants whose numbers it is sent, in a folder of its own. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { examine, type Verdict } from './examine.js'
import { makeMutant } from './mutate.js'
import { SUBJECTS, type Subject } from './subjects.js'

/** What a worker is told at its start. */
export interface WorkerOptions {
  readonly folder: string
  readonly seed: number
  readonly withQemu: boolean
  /** Every so many mutants the command is run as well. */
  readonly commandEvery: number
}

/** What it reports of each mutant. */
export interface Report {
  readonly mutant: number
  readonly verdict: Verdict
  readonly rssBytes: number
}

const { folder, seed, withQemu, commandEvery } = JSON.parse(process.argv[2]!) as WorkerOptions

/** Each subject's other files lie in a folder, where its mutants are put as well. */
function folderOf({ title, files }: Subject): string {
  const path = join(folder, title.replace(/\W+/g, '-'))
  mkdirSync(path, { recursive: true })
  for (const [name, bytes] of Object.entries(files)) {
    writeFileSync(join(path, name), bytes)
  }
  return path
}

const folders = new Map(SUBJECTS.map((subject) => [subject, folderOf(subject)]))

async function work(mutant: number): Promise<Report> {
  const { subject, bytes, random } = makeMutant(seed, mutant)
  const isOfSnapshot = subject.image.snapshots.length > 0 && random.oneIn(2)
  const verdict = await examine(bytes, {
    folder: folders.get(subject)!,
    secret: subject.secret,
    snapshot: isOfSnapshot ? random.pick(['1', '7']) : undefined,
    withQemu,
    withCommand: mutant % commandEvery === 0,
    withSalvage: random.oneIn(4),
  })
  return { mutant, verdict, rssBytes: process.memoryUsage.rss() }
}

process.on('message', (mutant: number) => {
  void work(mutant).then((report) => process.send!(report))
})
