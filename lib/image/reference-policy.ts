/**
 * Which files an image may make us open, and where the names it stores lead.
 *
 * Pure decisions: whether a file lies in a folder is found out by whoever opens it. Invariant: a name from an image is
 * opened only if the caller's policy says so, and only ever as a local file. Spec: "Header", backing_file_offset;
 * "Header extensions", external data file name.
 */
import { dirname, isAbsolute, resolve } from 'node:path'
import {
  Qcow2AccessError,
  Qcow2FormatError,
  Qcow2UnsupportedError,
  Qcow2UsageError,
  quoteText,
  type Qcow2Error,
} from '../errors.js'
import type { HostFile } from '../source/source.js'

/** A file that an image names. */
export interface Qcow2Reference {
  readonly kind: 'backing-file' | 'data-file'
  /** As the image stores it; text of whoever made the image. */
  readonly name: string
  /** The absolute path it stands for, relative names being resolved against the folder of the image that names it. */
  readonly path: string
  /** Path (or description) of the image that names it. */
  readonly image: string
  /** Layer of the chain that names it; 0 is the image itself. */
  readonly depth: number
}

/**
 * Which of the files that an image names are opened:
 * - `'same-directory'` (default): those in the image's own folder or below it, after symbolic links are resolved;
 * - `'any'`: every local file. Dangerous with images from strangers: such an image can show any file you can read;
 * - `'none'`: none. The image can be inspected, but not read if it names one;
 * - a function: those for which it returns (or resolves to) true.
 *
 * Whatever is allowed, only regular files and block devices are read.
 */
export type ReferencePolicy =
  'same-directory' | 'any' | 'none' | ((reference: Qcow2Reference) => boolean | Promise<boolean>)

const NAMED_POLICIES: readonly ReferencePolicy[] = ['same-directory', 'any', 'none']

/** The policy, checked. @throws {Qcow2UsageError} `ERR_QCOW2_BAD_ARGUMENT` */
export function checkPolicy(policy: unknown = 'same-directory'): ReferencePolicy {
  if (typeof policy === 'function' || NAMED_POLICIES.includes(policy as ReferencePolicy)) {
    return policy as ReferencePolicy
  }
  throw new Qcow2UsageError(
    'ERR_QCOW2_BAD_ARGUMENT',
    `option references: found ${quoteText(String(policy))}, allowed are "same-directory", "any", "none" and a function`,
    { field: 'references', actual: policy },
  )
}

const OPTION = { 'backing-file': 'backingFile', 'data-file': 'dataFile' } as const
/** What references are called in messages. */
export const NOUN = { 'backing-file': 'backing file', 'data-file': 'data file' } as const

/**
 * The local file that a name in an image stands for.
 *
 * @throws {Qcow2FormatError} `ERR_QCOW2_BAD_REFERENCE_NAME` if the name is not UTF-8
 * @throws {Qcow2AccessError} `ERR_QCOW2_REFERENCE_REFUSED` if it is no local file, or relative without a folder
 * @throws {Qcow2UnsupportedError} `ERR_QCOW2_UNSUPPORTED_REFERENCE` if it is no local file and the policy allows any
 */
export function resolveReference(
  kind: Qcow2Reference['kind'],
  storedName: string,
  image: HostFile,
  depth: number,
  policy: ReferencePolicy,
): Qcow2Reference {
  const facts = { layer: image.label, field: OPTION[kind], actual: storedName }
  const named = `${NOUN[kind]} ${quoteText(storedName)}`
  if (storedName.includes('\ufffd')) {
    throw new Qcow2FormatError(
      'ERR_QCOW2_BAD_REFERENCE_NAME',
      `${named} is not valid UTF-8; name it with the option ${OPTION[kind]}`,
      facts,
    )
  }
  const name = localNameOf(storedName)
  if (name === undefined) {
    const reason = `is not a local file; name a local copy with the option ${OPTION[kind]}`
    throw policy === 'any'
      ? new Qcow2UnsupportedError('ERR_QCOW2_UNSUPPORTED_REFERENCE', `${named} ${reason}`, facts)
      : refuse(`${named} is not opened: it ${reason}`, facts)
  }
  if (image.path === undefined && !isAbsolute(name)) {
    throw refuse(`${named} is not opened: the image has no folder; name it with the option ${OPTION[kind]}`, facts)
  }
  return { kind, name: storedName, path: resolve(dirname(image.path ?? ''), name), image: image.label, depth }
}

/** That the policy of the caller keeps a reference closed. */
export function refusedByPolicy(
  kind: Qcow2Reference['kind'],
  name: string,
  image: string,
  policy: ReferencePolicy,
): Qcow2AccessError {
  const by = typeof policy === 'function' ? 'the references function' : `references: '${policy}'`
  const allowing = policy === 'none' ? "references: 'same-directory' or references: 'any'" : "references: 'any'"
  return refuse(`${NOUN[kind]} ${quoteText(name)} is not opened because of ${by}; ${allowing} would allow it`, {
    layer: image,
    field: OPTION[kind],
    actual: name,
  })
}

/** The paths that names stored in an image stand for; those of no local file are left out. */
export function localPaths(names: readonly (string | undefined)[], image: HostFile): string[] {
  return names.flatMap((name) => {
    const local = name === undefined ? undefined : localNameOf(name)
    return local === undefined ? [] : [resolve(dirname(image.path ?? ''), local)]
  })
}

/**
 * The name of a local file that a stored name stands for; undefined if it is none. On Windows two slashes lead to another machine
 * (or a device): even to look at what is there would sign the user in.
 */
function localNameOf(storedName: string): string | undefined {
  const protocol = protocolOf(storedName)
  const name = protocol === 'file' ? storedName.slice('file:'.length) : storedName
  const isElsewhere = process.platform === 'win32' && /^[\\/]{2}/.test(name)
  return (protocol === undefined || protocol === 'file') && !isElsewhere ? name : undefined
}

/** What stands before a colon that comes before any slash, as QEMU reads names; a drive letter is no protocol. */
function protocolOf(name: string): string | undefined {
  const protocol = /^([^:/]*):/.exec(name)?.[1]
  return process.platform === 'win32' && protocol?.length === 1 ? undefined : protocol
}

const refuse = (message: string, facts: ConstructorParameters<typeof Qcow2Error>[2]): Qcow2AccessError =>
  new Qcow2AccessError('ERR_QCOW2_REFERENCE_REFUSED', message, facts)
