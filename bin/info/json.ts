/**
 * An image's metadata as JSON, with the names that `qemu-img info --output=json` uses.
 *
 * Invariant: what qemu-img prints is there under the same name with the same value (docs/format-notes.md has what differs); `warnings`
 * and `unknown-features` are our own.
 */
import { isAbsolute, sep } from 'node:path'
import type {
  Qcow2Bitmap,
  Qcow2FileInfo,
  Qcow2LuksInfo,
  Qcow2Snapshot,
  Qcow2Warning,
  RawFileInfo,
} from '../../lib/index.js'
import { unknownFeatures } from './unknown-features.js'

type Json = string | number | boolean | Json[] | { [name: string]: Json | undefined } | undefined

/**
 * What qemu-img tells of each file of a chain, from the image down; members that are undefined do not count.
 *
 * @param files None of them opened under another name than the one above has for it.
 */
export function chainJson(files: readonly (Qcow2FileInfo | RawFileInfo)[], warnings: readonly Qcow2Warning[]): Json[] {
  let next = ''
  return files.map((info, depth) => {
    const name = depth === 0 ? info.file : next
    next = info.format === 'qcow2' && info.backingFile !== undefined ? pathFrom(name, info.backingFile) : ''
    return fileJson(info, name, warnings)
  })
}

function fileJson(info: Qcow2FileInfo | RawFileInfo, name: string, warnings: readonly Qcow2Warning[]): Json {
  const { format, file, virtualSize, allocatedBytes } = info
  const common = { 'virtual-size': virtualSize, filename: name, format, 'actual-size': allocatedBytes }
  if (info.format === 'raw') {
    return { ...common, 'dirty-flag': false }
  }
  const { header, extensions, snapshots, backingFile, bitmapsProblem } = info
  return {
    ...common,
    'cluster-size': 2 ** header.clusterBits,
    encrypted: header.cryptMethod === 0 ? undefined : true,
    'dirty-flag': header.features.isDirty,
    'backing-filename': backingFile,
    'full-backing-filename': backingFile === undefined ? undefined : pathFrom(name, backingFile),
    'backing-filename-format': extensions.backingFormat,
    snapshots: snapshots.length === 0 ? undefined : snapshots.map(snapshotJson),
    'format-specific': { type: 'qcow2', data: specifics(info) },
    'unknown-features': unknownFeatures(info).map(({ mask, bit, name }) => ({ type: mask, bit, name })),
    warnings: [
      ...warnings.filter(({ layer }) => layer === file).map(({ code, message }) => ({ code, message })),
      ...(bitmapsProblem === undefined ? [] : [{ code: 'WARN_QCOW2_BAD_BITMAPS', message: bitmapsProblem }]),
    ],
  }
}

function specifics({ header, extensions, bitmaps, luks }: Qcow2FileInfo): Json {
  const { version, compressionType, refcountOrder, cryptMethod, features } = header
  const common = {
    compat: version === 2 ? '0.10' : '1.1',
    'compression-type': compressionType === 1 ? 'zstd' : 'zlib',
    'refcount-bits': 2 ** refcountOrder,
    encrypt: cryptMethod === 0 ? undefined : luks === undefined ? { format: 'aes' } : luksJson(luks),
  }
  if (version === 2) {
    return common
  }
  return {
    ...common,
    'lazy-refcounts': features.hasLazyRefcounts,
    corrupt: features.isCorrupt,
    'extended-l2': features.hasExtendedL2,
    bitmaps: bitmaps.length === 0 ? undefined : bitmaps.map(bitmapJson),
    ...(features.hasExternalDataFile
      ? { 'data-file': extensions.dataFileName, 'data-file-raw': features.isExternalDataFileRaw }
      : {}),
  }
}

const bitmapJson = ({ name, granularityBytes, isInUse, isAuto }: Qcow2Bitmap): Json => ({
  name,
  granularity: granularityBytes,
  flags: [...(isInUse ? ['in-use'] : []), ...(isAuto ? ['auto'] : [])],
})

const NANOSECONDS = 1_000_000_000n

const snapshotJson = (snapshot: Qcow2Snapshot): Json => ({
  id: snapshot.id,
  name: snapshot.name,
  'vm-state-size': snapshot.vmStateSize,
  'date-sec': Math.floor(snapshot.date.getTime() / 1000) - Math.floor(snapshot.dateNanoseconds / 1e9),
  'date-nsec': snapshot.dateNanoseconds,
  'vm-clock-sec': Number(snapshot.vmClockNanoseconds / NANOSECONDS),
  'vm-clock-nsec': Number(snapshot.vmClockNanoseconds % NANOSECONDS),
  icount: snapshot.icount === undefined ? undefined : Number(snapshot.icount),
})

const luksJson = (luks: Qcow2LuksInfo): Json => ({
  format: 'luks',
  'cipher-alg': `${luks.cipherName}-${luks.cipherKeyBytes * 8}`,
  'cipher-mode': luks.cipherMode,
  'ivgen-alg': luks.ivGenerator,
  'ivgen-hash-alg': luks.ivHash,
  'hash-alg': luks.hashSpec,
  uuid: luks.uuid,
  'payload-offset': luks.payloadOffset,
  'master-key-iters': luks.mkDigestIterations,
  slots: luks.keySlots.map(({ isActive, iterations, keyMaterialOffset }) => ({
    active: isActive,
    'key-offset': keyMaterialOffset,
    ...(isActive ? { iters: iterations, stripes: luks.stripes } : {}),
  })),
})

/** A name as it stands in a file, seen from where that file is: put behind the last slash of the file's own name. */
function pathFrom(file: string, name: string): string {
  const folder = file.slice(0, Math.max(file.lastIndexOf('/'), file.lastIndexOf(sep)) + 1)
  return isAbsolute(name) || /^[^:/]*:/.test(name) ? name : `${folder}${name}`
}
