/**
 * What each file of a chain says about itself, for whoever shows it.
 *
 * Knows layers and their metadata, not how they look on paper. Invariant: no file is opened here, and no more is read than LUKS headers
 * and bitmap directories. Spec: "Header" and all that it leads to.
 */
import { readBitmapDirectory } from '../check/bitmap-directory.js'
import { MAX_DIRECTORY_BYTES, type Qcow2Bitmap } from '../format/bitmaps.js'
import type { HeaderExtensions } from '../format/extensions.js'
import type { Qcow2Header } from '../format/header.js'
import { LUKS_STRIPES } from '../format/luks-header.js'
import type { Qcow2Snapshot } from '../format/snapshots.js'
import type { HostFile } from '../source/source.js'
import { readLuks } from './encryption.js'
import type { Layer } from './layer.js'
import type { Metadata } from './metadata.js'

/** A file of the chain that is a raw disk. */
export interface RawFileInfo {
  readonly format: 'raw'
  /** Its path, or a description where it has none. */
  readonly file: string
  /** Bytes of the disk in it. */
  readonly virtualSize: number
  /** Bytes that it takes on its file system, without those of a data file; undefined if that is not known. */
  readonly allocatedBytes: number | undefined
}

/** A file of the chain that is a qcow2 image, and all that it says about itself. */
export interface Qcow2FileInfo extends Omit<RawFileInfo, 'format'> {
  readonly format: 'qcow2'
  readonly header: Qcow2Header
  readonly extensions: HeaderExtensions
  readonly snapshots: readonly Qcow2Snapshot[]
  /** Up to the first that is malformed, if one is. */
  readonly bitmaps: readonly Qcow2Bitmap[]
  /** What is wrong with their directory, or why it is not read: all of a chain have 64 MiB together; undefined if nothing is. */
  readonly bitmapsProblem: string | undefined
  /** How it is encrypted; undefined if it is not, or in the old way. */
  readonly luks: Qcow2LuksInfo | undefined
  /** Name of the backing file as stored; undefined if there is none. */
  readonly backingFile: string | undefined
}

/** What a LUKS header says that is no secret. Spec: "Full disk encryption header pointer"; LUKS On-Disk Format 1. */
export interface Qcow2LuksInfo {
  readonly cipherName: string
  /** `xts`, `cbc` or `ecb`. */
  readonly cipherMode: string
  /** How sectors are numbered: `plain`, `plain64` or `essiv`. */
  readonly ivGenerator: string
  /** The hash of `essiv`; undefined for the others. */
  readonly ivHash: string | undefined
  readonly hashSpec: string
  /** Bytes of the key of one cipher: of the two of xts, one. */
  readonly cipherKeyBytes: number
  readonly uuid: string
  /** Bytes from the beginning of the LUKS header on. */
  readonly payloadOffset: number
  /** Iterations of PBKDF2. */
  readonly mkDigestIterations: number
  /** Parts that each key is split into. */
  readonly stripes: number
  readonly keySlots: readonly { isActive: boolean; iterations: number; keyMaterialOffset: number }[]
}

/**
 * What the layers say about themselves, one after another: strangers' directories are not all to be in memory at once.
 *
 * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_LUKS_HEADER`, `ERR_QCOW2_TRUNCATED`
 * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
 */
export async function chainInfo(layers: readonly Layer[]): Promise<(Qcow2FileInfo | RawFileInfo)[]> {
  const infos: (Qcow2FileInfo | RawFileInfo)[] = []
  let room = MAX_DIRECTORY_BYTES
  for (const { file, metadata } of layers) {
    const { label, size, allocatedBytes } = file
    if (metadata === undefined) {
      infos.push({ format: 'raw', file: label, virtualSize: size, allocatedBytes })
      continue
    }
    const { header, extensions, snapshots, backingFile } = metadata
    const { bitmaps, problem } =
      extensions.bitmaps === undefined
        ? { bitmaps: [], problem: undefined }
        : await readBitmapDirectory(file, extensions.bitmaps, 2 ** header.clusterBits, room)
    room -= bitmaps.length === 0 ? 0 : extensions.bitmaps!.bitmapDirectorySize
    infos.push({
      format: 'qcow2',
      file: label,
      virtualSize: header.size,
      allocatedBytes,
      header,
      extensions,
      snapshots,
      bitmaps,
      bitmapsProblem: problem?.what,
      luks: header.cryptMethod === 2 ? await luksInfo(file, metadata) : undefined,
      backingFile,
    })
  }
  return infos
}

async function luksInfo(file: HostFile, metadata: Metadata): Promise<Qcow2LuksInfo> {
  const { header, scheme } = await readLuks(file, metadata)
  return {
    cipherName: header.cipherName,
    cipherMode: scheme.mode,
    ivGenerator: scheme.iv,
    ivHash: scheme.essivHash,
    hashSpec: header.hashSpec,
    cipherKeyBytes: scheme.mode === 'xts' ? header.keyBytes / 2 : header.keyBytes,
    uuid: header.uuid,
    payloadOffset: header.payloadOffset,
    mkDigestIterations: header.mkDigestIterations,
    stripes: LUKS_STRIPES,
    keySlots: header.keySlots.map(({ isActive, iterations, keyMaterialOffset }) => ({
      isActive,
      iterations,
      keyMaterialOffset,
    })),
  }
}
