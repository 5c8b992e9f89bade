/**
 * The programs that the benchmark runs: found before anything is made, called with clear errors.
 *
 * Invariant: whoever lacks a program is told the Debian package it comes in, once and at the start.
 */
import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** What keeps the benchmark from running: one line for whoever started it. */
export class BenchError extends Error {}

/** The clock of whole processes: a shell's own `time` knows no peak of memory. */
export const TIME = '/usr/bin/time'

const PACKAGES: Readonly<Record<string, string>> = {
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  nbdcopy: 'libnbd-bin',
  mke2fs: 'e2fsprogs',
  du: 'coreutils',
  sync: 'coreutils',
  timeout: 'coreutils',
  bash: 'bash',
  nginx: 'nginx-light',
  losetup: 'mount',
  [TIME]: 'time',
}

const REQUIRED = ['qemu-img', 'qemu-io', 'mke2fs', 'du', 'sync', 'timeout', 'bash', TIME]

// Debian keeps mke2fs where only root's PATH looks.
process.env['PATH'] = [process.env['PATH'] ?? '', '/usr/sbin', '/sbin'].join(delimiter)

/** Whether the program is there. */
export function hasTool(name: string): boolean {
  const places = name.startsWith('/') ? [name] : process.env['PATH']!.split(delimiter).map((path) => join(path, name))
  return places.some((path) => {
    try {
      accessSync(path, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** Says which of the programs are missing and where they come from; undefined if none is. */
export function missingTools(names: readonly string[]): string | undefined {
  const missing = names.filter((name) => !hasTool(name))
  if (missing.length === 0) {
    return undefined
  }
  const packages = [...new Set(missing.map((name) => PACKAGES[name] ?? name))]
  return `${missing.join(', ')} not found; on Debian: apt-get install ${packages.join(' ')}`
}

/** @throws {BenchError} if a program is missing that every run needs. */
export function requireTools(): void {
  const missing = missingTools(REQUIRED)
  if (missing !== undefined) {
    throw new BenchError(missing)
  }
}

/** Runs a program that nobody times, and returns what it printed. @throws {BenchError} if it fails. */
export function call(name: string, words: readonly string[], cwd?: string): string {
  const { status, error, stdout, stderr } = spawnSync(name, words, {
    ...(cwd === undefined ? {} : { cwd }),
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  })
  if (error !== undefined || status !== 0) {
    throw new BenchError(`${[name, ...words].join(' ')} failed: ${error?.message ?? (stderr + stdout).trim()}`)
  }
  return stdout
}

/** Prints a line. */
export function say(line: string): void {
  process.stdout.write(`${line}\n`)
}
