/**
 * The public surface of `qcow2`: everything else is free to change.
 *
 * @packageDocumentation
 */
export type { Qcow2CheckResult } from './check/check.js'
export type { Qcow2CheckFinding } from './check/findings.js'
export { convert } from './convert.js'
export type { Qcow2ConvertOptions, Qcow2ConvertResult } from './convert/options.js'
export {
  ERROR_CODES,
  Qcow2AccessError,
  Qcow2Error,
  Qcow2FormatError,
  Qcow2SinkError,
  Qcow2SourceError,
  Qcow2UnsupportedError,
  Qcow2UsageError,
  quoteText,
  type Qcow2ErrorCode,
  type Qcow2ErrorFacts,
} from './errors.js'
export type { Qcow2Bitmap } from './format/bitmaps.js'
export type { BitmapsExtension, CryptoHeaderPointer, HeaderExtensions, UnknownExtension } from './format/extensions.js'
export type { FeatureName, Features } from './format/features.js'
export type { Qcow2Header } from './format/header.js'
export type { Qcow2Snapshot } from './format/snapshots.js'
export type { GuestOffset, HostOffset } from './format/units.js'
export type { Qcow2CheckOptions } from './image/check-options.js'
export type { Qcow2EncryptedLayer, Qcow2Passphrase } from './image/encryption.js'
export type { Qcow2Extent } from './image/extents.js'
export { Qcow2Image, type Qcow2ChainLink } from './image/image.js'
export type { Qcow2FileInfo, Qcow2LuksInfo, RawFileInfo } from './image/info.js'
export type { Qcow2Limits } from './image/limits.js'
export type { Qcow2Warning } from './image/metadata.js'
export type { Qcow2OpenOptions } from './image/options.js'
export type { Qcow2Reference, ReferencePolicy } from './image/reference-policy.js'
export type { Qcow2Damage, SalvageFunction } from './image/salvage.js'
export type { Qcow2Output } from './sink/find-output.js'
export type { Qcow2Blob, Qcow2BlobPart } from './source/blob.js'
export type { Qcow2HttpOptions } from './source/http-options.js'
export type { Qcow2Input } from './source/open-source.js'
export type { Qcow2Pace } from './source/pace.js'
export type { Qcow2Source } from './source/source.js'
export type { Qcow2SpoolProgress } from './source/spool.js'
export type { DataChunk, GuestChunk, ZeroChunk } from './stream/chunk.js'
export type { Qcow2Progress } from './stream/progress-meter.js'
export type { Qcow2ReadStreamOptions } from './stream/options.js'
export { createReadStream, Qcow2ReadStream, type Qcow2ObjectStream } from './stream/read-stream.js'
