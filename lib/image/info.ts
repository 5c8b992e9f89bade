/**
 * What each file of a chain says about itself, for whoever shows it.
 *
 * Knows layers and their metadata, not how they look on paper. Invariant: what the image itself names is opened by nobody
 * here, and reads no more than a LUKS header and a bitmap directory. Spec: "Header" and all that it leads to.
 */
import { hex, Qcow2FormatError } from '../errors.js'
import { MAX_DIRECTORY_BYTES, parseBitmapDirectory, type Qcow2Bitmap } from '../format/bitmaps.js'
import type { HeaderExtensions } from '../format/extensions.js'
import type { Qcow2Header } from '../format/header.js'
import { LUKS_STRIPES } from '../format/luks-header.js'
import type { Qcow2Snapshot } from '../format/snapshots.js'
import type { HostFile } from '../source/source.js'
import { readLuks } from './encryption.js'
import type { Layer } from './layer.js'
import type { Metadata } from './metadata.js'
import { refusePastEnd } from './stored-bytes.js'

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
  readonly bitmaps: readonly Qcow2Bitmap[]
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
 * What a layer says about itself.
 *
 * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_BITMAP_DIRECTORY`, `ERR_QCOW2_BAD_LUKS_HEADER`, `ERR_QCOW2_TRUNCATED`
 * @throws {Qcow2SourceError} `ERR_QCOW2_READ_FAILED`
 */
export async function layerInfo({ file, metadata }: Layer): Promise<Qcow2FileInfo | RawFileInfo> {
  const { label, size, allocatedBytes } = file
  if (metadata === undefined) {
    return { format: 'raw', file: label, virtualSize: size, allocatedBytes }
  }
  const { header, extensions, snapshots, backingFile } = metadata
  return {
    format: 'qcow2',
    file: label,
    virtualSize: header.size,
    allocatedBytes,
    header,
    extensions,
    snapshots,
    bitmaps: await readBitmaps(file, metadata),
    luks: header.cryptMethod === 2 ? await luksInfo(file, metadata) : undefined,
    backingFile,
  }
}

async function readBitmaps(file: HostFile, { header, extensions }: Metadata): Promise<readonly Qcow2Bitmap[]> {
  if (extensions.bitmaps === undefined) {
    return []
  }
  const { bitmapDirectorySize: bytes, bitmapDirectoryOffset: offset } = extensions.bitmaps
  if (bytes > MAX_DIRECTORY_BYTES) {
    throw badDirectory(file, offset, `it has ${bytes} bytes, allowed are up to ${MAX_DIRECTORY_BYTES}`)
  }
  refusePastEnd(file, offset, bytes, 'the bitmap directory', 'bitmapDirectoryOffset')
  const directory = new Uint8Array(bytes)
  await file.read(directory, offset)
  const { bitmaps, problem } = parseBitmapDirectory(directory, extensions.bitmaps, 2 ** header.clusterBits)
  if (problem !== undefined) {
    throw badDirectory(file, offset + problem.at, problem.what)
  }
  return bitmaps
}

const badDirectory = (file: HostFile, hostOffset: number, what: string): Qcow2FormatError =>
  new Qcow2FormatError(
    'ERR_QCOW2_BAD_BITMAP_DIRECTORY',
    `bitmap directory at host offset ${hex(hostOffset)}: ${what}`,
    {
      layer: file.label,
      hostOffset,
    },
  )

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
