/**
 * What the figures were measured on: enough to judge them, nothing that names the machine.
 */
import { availableParallelism, cpus, release, totalmem, type } from 'node:os'
import { call } from './tools.js'

/** A machine, and the versions of what ran on it. */
export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly kernel: string
  readonly node: string
  /** The Node that zstd was measured with as well. */
  readonly node24?: string
  readonly qemuImg: string
}

/** This machine. */
export function describeMachine(node24: string | undefined): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: `${type()} ${numbersOf(release())}`,
    node: process.versions.node,
    ...(node24 === undefined ? {} : { node24: numbersOf(call(node24, ['--version'])) }),
    qemuImg: numbersOf(call('qemu-img', ['--version'])),
  }
}

/** The first version number in a text, without what a builder has appended. */
function numbersOf(text: string): string {
  return /\d+(?:\.\d+)+/.exec(text)?.[0] ?? 'unknown'
}

/** One line. */
export function machineLine({ cpu, cores, memoryGiB, kernel, node, node24, qemuImg }: Machine): string {
  const nodes = node24 === undefined || node24 === node ? node : `${node} and ${node24}`
  return `${cpu}, ${cores} cores, ${memoryGiB} GiB of memory, ${kernel}, Node ${nodes}, qemu-img ${qemuImg}`
}
