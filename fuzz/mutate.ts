/**
 * Changes valid images where it hurts: words of header and tables, extensions, names, compressed bytes, the file's end.
 *
 * Knows where things are in an image, not what a reader makes of them. Invariant: the same seed and number give the same
 * mutant, and a mutant says what was done to it.
 */
import { Random } from './random.js'
import { SUBJECTS, type Subject } from './subjects.js'

export interface Mutant {
  readonly subject: Subject
  readonly bytes: Buffer
  /** What was changed, one line for each change. */
  readonly changes: readonly string[]
}

const HEADER_FIELDS = [
  ['magic', 0, 4],
  ['version', 4, 4],
  ['backingFileOffset', 8, 8],
  ['backingFileSize', 16, 4],
  ['clusterBits', 20, 4],
  ['size', 24, 8],
  ['cryptMethod', 32, 4],
  ['l1Size', 36, 4],
  ['l1TableOffset', 40, 8],
  ['refcountTableOffset', 48, 8],
  ['refcountTableClusters', 56, 4],
  ['nbSnapshots', 60, 4],
  ['snapshotsOffset', 64, 8],
  ['incompatibleFeatures', 72, 8],
  ['compatibleFeatures', 80, 8],
  ['autoclearFeatures', 88, 8],
  ['refcountOrder', 96, 4],
  ['headerLength', 100, 4],
  ['compressionType', 104, 1],
] as const

const SNAPSHOT_FIELDS = [
  ['l1TableOffset', 0, 8],
  ['l1Size', 8, 4],
  ['idLength', 12, 2],
  ['nameLength', 14, 2],
  ['vmStateSize', 32, 4],
  ['extraDataSize', 36, 4],
  ['virtualSize', 48, 8],
] as const

const MOST_CHANGES = 4

/** @returns The mutant, and choices that are still to be made about it. */
export function makeMutant(seed: number, mutant: number): Mutant & { readonly random: Random } {
  const random = new Random(seed, mutant)
  const subject = random.pick(SUBJECTS)
  const changes: string[] = []
  let bytes: Buffer = Buffer.from(subject.image.bytes)
  const count = 1 + random.below(random.oneIn(3) ? MOST_CHANGES : 1)
  for (let i = 0; i < count; i++) {
    const [change, changed] = random.pick(MUTATIONS)(bytes, subject, random)
    changes.push(change)
    bytes = changed
  }
  return { subject, bytes, changes, random }
}

type Mutation = (bytes: Buffer, subject: Subject, random: Random) => [change: string, bytes: Buffer]

/** Writes a word that is near what is there. */
function changeWord(bytes: Buffer, at: number, width: number, what: string, random: Random): [string, Buffer] {
  if (at + width > bytes.length) return [`${what}: past the end`, bytes]
  const before = BigInt(`0x${bytes.toString('hex', at, at + width)}`)
  const after = random.word(width, before)
  Buffer.from(after.toString(16).padStart(2 * width, '0'), 'hex').copy(bytes, at)
  return [`${what} at ${at}: 0x${before.toString(16)} becomes 0x${after.toString(16)}`, bytes]
}

const header: Mutation = (bytes, _subject, random) => {
  const [name, at, width] = random.pick(HEADER_FIELDS)
  return changeWord(bytes, at, width, name, random)
}

const l1Entry: Mutation = (bytes, { image: { layout } }, random) =>
  changeWord(bytes, layout.l1EntryOffset(random.below(Math.max(1, layout.l1Size))), 8, 'L1 entry', random)

const l2Entry: Mutation = (bytes, { image: { layout } }, random) => {
  const trees = [layout, ...layout.snapshots]
  const tables = [...random.pick(trees).l2TableOffsets.values()]
  const table = tables.length === 0 ? layout.l1TableOffset : random.pick(tables)
  return changeWord(bytes, table + 8 * random.below(24), 8, 'L2 word', random)
}

const snapshot: Mutation = (bytes, subject, random) => {
  const { snapshots } = subject.image.layout
  if (snapshots.length === 0) return header(bytes, subject, random)
  const entry = random.pick(snapshots)
  const [name, at, width] = random.pick(SNAPSHOT_FIELDS)
  return changeWord(bytes, entry.entryOffset + at, width, `snapshot's ${name}`, random)
}

const extension: Mutation = (bytes, subject, random) => {
  const offset = random.pick([112, ...subject.image.layout.extensions.map((one) => one.offset)])
  const [name, at] = random.pick([
    ['type', 0],
    ['length', 4],
    ['data', 8],
  ] as const)
  return changeWord(bytes, offset + at, 4, `extension's ${name}`, random)
}

const backingName: Mutation = (bytes, subject, random) => {
  const at = subject.image.layout.backingFileOffset
  if (at === 0 || at + 16 > bytes.length) return anywhere(bytes, subject, random)
  const name = random.pick([
    'base.qcow2',
    '/dev/zero',
    '../x',
    '.',
    'a.qcow2',
    'nbd:x',
    'json:{}',
    'base.raw\0',
    '\xff\xfe',
  ] as const)
  bytes.write(name, at, 'latin1')
  bytes.writeUInt32BE(name.length, 16)
  return [`backing file ${JSON.stringify(name)}`, bytes]
}

/** A word of the encryption header, of which every one counts. */
const encryption: Mutation = (bytes, subject, random) => {
  const { encryptionHeaderOffset } = subject.image.layout
  const [width, words] = random.pick([
    [4, 592 / 4],
    [2, 592 / 2],
    [1, 592],
  ] as const)
  return encryptionHeaderOffset === 0
    ? l2Entry(bytes, subject, random)
    : changeWord(bytes, encryptionHeaderOffset + width * random.below(words), width, 'LUKS header', random)
}

/** Within what is stored for clusters, compressed ones included. */
const payload: Mutation = (bytes, { image: { layout } }, random) => {
  const at = random.pick([...layout.clusterOffsets.values()]) + random.below(random.pick([4, 40, 400]))
  const length = random.pick([1, 1, 2, 8])
  if (at + length > bytes.length) return ['payload past the end', bytes]
  random.bytes(length).copy(bytes, at)
  return [`${length} bytes of a cluster at ${at}`, bytes]
}

const anywhere: Mutation = (bytes, _subject, random) => {
  if (bytes.length === 0) return ['nothing left to change', bytes]
  const at = random.below(random.oneIn(2) ? Math.min(bytes.length, 8192) : bytes.length)
  bytes[at]! ^= 1 << random.below(8)
  return [`a bit at ${at}`, bytes]
}

const cut: Mutation = (bytes, _subject, random) => {
  const length = random.below(bytes.length + 1)
  return [`cut to ${length} bytes`, bytes.subarray(0, length)]
}

const grow: Mutation = (bytes, _subject, random) => {
  const more = random.bytes(random.below(3000))
  return [`${more.length} bytes more`, Buffer.concat([bytes, more])]
}

/** Part of a table, or of anything, lies where something else should. */
const move: Mutation = (bytes, _subject, random) => {
  const unit = random.pick([8, 64, 512, 4096])
  const places = Math.floor(bytes.length / unit)
  if (places < 2) return ['nothing to move', bytes]
  const [from, to] = [random.below(places) * unit, random.below(places) * unit]
  bytes.copyWithin(to, from, from + unit)
  return [`${unit} bytes of ${from} at ${to}`, bytes]
}

const MUTATIONS: readonly [Mutation, ...Mutation[]] = [
  header,
  header,
  header,
  l1Entry,
  l2Entry,
  l2Entry,
  l2Entry,
  snapshot,
  extension,
  backingName,
  encryption,
  payload,
  payload,
  anywhere,
  cut,
  grow,
  move,
]
