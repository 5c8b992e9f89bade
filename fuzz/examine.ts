/**
 * What becomes of one mutant: it is read by the library, by qemu-img if the library read it, and now and then by the command.
 *
 * Invariant: whatever is neither data equal to qemu-img's nor a `Qcow2Error` is a finding, and so is too much time or memory.
 */
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { createReadStream, Qcow2Error, Qcow2Image, type Qcow2Damage } from '../lib/index.js'
import { encryptedSource } from '../test/fixtures/qemu-source.js'

/** How a mutant is looked at. */
export interface Examination {
  readonly folder: string
  /** Internal snapshot to read; undefined for the active disk. */
  readonly snapshot: string | undefined
  /** Name of the file with the passphrase, if the image that was changed is encrypted. */
  readonly secret: string | undefined
  readonly withQemu: boolean
  readonly withCommand: boolean
  readonly withSalvage: boolean
}

/** What was found: `finding` says what should not be. */
export interface Verdict {
  readonly outcome: 'equal' | 'error' | 'only read here' | 'not compared'
  /** The error's code, or what qemu-img said. */
  readonly detail: string
  readonly finding?: string
}

const IMAGE = 'mutant.qcow2'
const OUTPUT = 'mutant.img'
// Larger disks are read in places.
const WHOLE_BYTES = 16 * 2 ** 20
const SAMPLE_BYTES = 2 ** 20
const MOST_EXTENTS = 2000
// Of this process, which holds a mutant's disk twice; and of one mutant that is at most 16 MiB long.
const MOST_RSS_BYTES = 700 * 2 ** 20
const MOST_MILLISECONDS = 5000
const QEMU_MILLISECONDS = 20_000
const MOST_ITERATIONS = 100_000

const COMMAND = join(import.meta.dirname, '../command/qcow2-to-raw.js')
const run = promisify(execFile)

export async function examine(bytes: Buffer, examination: Examination): Promise<Verdict> {
  const { folder, withCommand, withSalvage } = examination
  writeFileSync(join(folder, IMAGE), bytes)
  try {
    // Not by the clock: what else the machine does is no finding. What waits for ever is found by whoever asked.
    const started = process.cpuUsage()
    const read = await readHere(examination)
    const wrong = withSalvage ? await salvaged(read, examination) : undefined
    const { user, system } = process.cpuUsage(started)
    const milliseconds = (user + system) / 1000
    const rss = process.memoryUsage.rss()
    if (milliseconds > MOST_MILLISECONDS) {
      return { outcome: 'not compared', detail: '', finding: `took ${Math.round(milliseconds)} ms` }
    }
    if (rss > MOST_RSS_BYTES) {
      return { outcome: 'not compared', detail: '', finding: `the process has ${Math.round(rss / 2 ** 20)} MiB` }
    }
    const verdict = await compare(read, examination)
    const finding = verdict.finding ?? wrong ?? (withCommand ? await commanded(read, examination) : undefined)
    return finding === undefined ? verdict : { ...verdict, finding }
  } catch (error) {
    return { outcome: 'not compared', detail: '', finding: `threw ${(error as Error).stack ?? String(error)}` }
  } finally {
    rmSync(join(folder, OUTPUT), { force: true })
  }
}

/** A disk as it was read here: its bytes, if they were all read, or the error. */
interface Read {
  readonly isEncrypted?: boolean
  readonly error?: Qcow2Error
  readonly bytes?: Buffer
}

async function readHere(
  { folder, snapshot, secret }: Examination,
  salvage?: (damage: Qcow2Damage) => void,
): Promise<Read> {
  try {
    const passphrase = secret === undefined ? undefined : readFileSync(join(folder, secret))
    const limits = { keyIterations: MOST_ITERATIONS }
    await using image = await Qcow2Image.open(join(folder, IMAGE), { snapshot, salvage, passphrase, limits })
    const isEncrypted = image.header.cryptMethod !== 0
    await inspect(image)
    if (image.virtualSize <= WHOLE_BYTES) {
      const chunks: Buffer[] = []
      for await (const chunk of createReadStream(image)) {
        chunks.push(chunk as Buffer)
      }
      const bytes = Buffer.concat(chunks)
      if (bytes.length !== image.virtualSize) {
        throw new Error(`${bytes.length} bytes of ${image.virtualSize} were read`)
      }
      return { bytes, isEncrypted }
    }
    await sample(image)
    return {}
  } catch (error) {
    return { error: ownError(error) }
  }
}

/** An error of ours, fit to be printed; whatever else was thrown is a finding. */
function ownError(error: unknown): Qcow2Error {
  if (!(error instanceof Qcow2Error)) {
    throw error
  }
  if (/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(error.message)) {
    throw new Error(`control characters in a message: ${JSON.stringify(error.message)}`, { cause: error })
  }
  return error
}

/** Asks the image what it says about itself, and whether it is consistent: any answer will do, and any error of ours. */
async function inspect(image: Qcow2Image): Promise<void> {
  for (const ask of [() => image.info(), () => image.check()]) {
    try {
      await ask()
    } catch (error) {
      ownError(error)
    }
  }
}

/** Reads a disk that is too large to be read whole: its beginning, its middle, its end, and its first extents. */
async function sample(image: Qcow2Image): Promise<void> {
  const { virtualSize } = image
  const target = Buffer.alloc(SAMPLE_BYTES)
  for (const place of [0, Math.floor(virtualSize / 2), virtualSize - SAMPLE_BYTES]) {
    await image.read(target, place)
  }
  let count = 0
  let at = 0
  for await (const { offset, length } of image.extents()) {
    if (offset !== at || length < 1) {
      throw new Error(`an extent of ${length} bytes at ${offset}, not at ${at}`)
    }
    at += length
    if (++count === MOST_EXTENTS) {
      break
    }
  }
}

async function compare(
  { error, bytes, isEncrypted }: Read,
  { folder, snapshot, secret, withQemu }: Examination,
): Promise<Verdict> {
  if (error !== undefined) {
    return { outcome: 'error', detail: error.code }
  }
  if (bytes === undefined || !withQemu) {
    return { outcome: 'not compared', detail: bytes === undefined ? 'large' : '' }
  }
  const { flags, name } =
    isEncrypted === true ? encryptedSource(IMAGE, secret!) : { flags: ['-f', 'qcow2'], name: IMAGE }
  const from = snapshot === undefined ? [] : ['-l', `snapshot.id=${snapshot}`]
  try {
    await run('qemu-img', ['convert', ...flags, '-O', 'raw', ...from, name, OUTPUT], {
      cwd: folder,
      timeout: QEMU_MILLISECONDS,
      killSignal: 'SIGKILL',
    })
  } catch (failure) {
    const { stderr, killed } = failure as { stderr: string; killed: boolean }
    const said = killed ? 'took too long' : stderr.trim()
    return { outcome: 'only read here', detail: '', finding: `qemu-img refuses what was read: ${said}` }
  }
  const theirs = readFileSync(join(folder, OUTPUT))
  // qemu-img rounds the size down to whole sectors, and reads a snapshot with the size of the disk.
  const sectors = Math.floor(bytes.length / 512) * 512
  const common = snapshot === undefined ? sectors : Math.min(sectors, theirs.length)
  const isEqual =
    (snapshot !== undefined || theirs.length === sectors) &&
    theirs.subarray(0, common).equals(bytes.subarray(0, common))
  return isEqual
    ? { outcome: 'equal', detail: '' }
    : { outcome: 'equal', detail: '', finding: `differs from qemu-img, ${firstDifference(bytes, theirs)}` }
}

function firstDifference(ours: Buffer, theirs: Buffer): string {
  const at = ours.findIndex((byte, i) => byte !== theirs[i])
  return `first at ${at}; ${ours.length} bytes here, ${theirs.length} there`
}

/** What is met only while the disk is read; salvaging goes on after it. */
const SALVAGED_CODES: readonly string[] = [
  'ERR_QCOW2_BAD_L1_ENTRY',
  'ERR_QCOW2_BAD_L2_ENTRY',
  'ERR_QCOW2_BAD_COMPRESSED_CLUSTER',
]

/** A salvaged disk is whole, is zeros where it says so, and says so if and only if something is damaged. */
async function salvaged({ error, bytes }: Read, examination: Examination): Promise<string | undefined> {
  const told: Qcow2Damage[] = []
  const again = await readHere(examination, (damage) => told.push(damage))
  if (bytes !== undefined) {
    return told.length === 0 && again.bytes?.equals(bytes) === true
      ? undefined
      : 'salvaging changes what is not damaged'
  }
  if (error === undefined) {
    return undefined
  }
  if (again.error !== undefined) {
    const isRight = again.error.code === error.code && !SALVAGED_CODES.includes(error.code)
    return isRight ? undefined : `salvaging ends with ${again.error.code}, after ${error.code}`
  }
  if (told.length === 0) {
    return `salvaging passes over ${error.code} in silence`
  }
  const wrong = told.find(({ offset, length }) =>
    again.bytes?.subarray(offset, offset + length).some((byte) => byte > 0),
  )
  return wrong && `salvaging says that ${wrong.length} bytes at ${wrong.offset} are zeros, and they are not`
}

/** The command must say the same: an output and 0, or an exit code, one line, and no trace of an output. */
async function commanded(
  { error, bytes }: Read,
  { folder, snapshot, secret }: Examination,
): Promise<string | undefined> {
  // What the command has no limit for would take it minutes.
  if ((error === undefined && bytes === undefined) || error?.code === 'ERR_QCOW2_UNLOCKING_TOO_COSTLY') {
    return undefined
  }
  rmSync(join(folder, OUTPUT), { force: true })
  const before = readdirSync(folder).sort()
  const unlocking = secret === undefined ? [] : ['--passphrase-file', secret]
  const words = [COMMAND, '-q', ...unlocking, ...(snapshot === undefined ? [] : ['-s', snapshot]), IMAGE, OUTPUT]
  const { code, stderr } = await run(process.execPath, words, { cwd: folder, timeout: QEMU_MILLISECONDS }).then(
    ({ stderr }) => ({ code: 0, stderr }),
    (failure: unknown) => failure as { code: number | null; stderr: string },
  )
  if (bytes !== undefined) {
    const isRight = code === 0 && stderr === '' && readFileSync(join(folder, OUTPUT)).equals(bytes)
    return isRight ? undefined : `the command ends with ${code}: ${stderr}`
  }
  const isRight = [1, 2, 3, 4, 5].includes(code ?? 0) && /^qcow2-to-raw: [^\p{Cc}]+\n$/u.test(stderr)
  const left = readdirSync(folder).sort()
  return isRight && left.join('/') === before.join('/')
    ? undefined
    : `the command ends with ${code}, leaves ${left.join()}: ${stderr}`
}
