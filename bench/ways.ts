/**
 * Every way into the command and out of it, without a rival: what each costs in time, and that memory stays bounded.
 *
 * Starts what it needs, a web server on loopback and a loop device, and ends them again. A way whose tools are missing, or that
 * fails, is left out, aloud.
 */
import { spawn, spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { convertInput, convertWith } from './commands.js'
import type { Images, Scale } from './images.js'
import type { Command, Sample, Series, Stopwatch } from './measure.js'
import { seriesOf } from './measure.js'
import { BenchError, call, missingTools, say } from './tools.js'

/** What one way took, or why there are no figures of it. */
export type Way = { readonly title: string } & ({ readonly ours: Series } | { readonly reason: string })

/** Images of {@link measureWays}. */
export const WAY_IMAGES = ['zlib'] as const

const PORT = 18_765
const ORIGIN = `http://127.0.0.1:${PORT}`

/** All ways, `count` runs of each after a warm-up. */
export function measureWays(images: Images, scale: Scale, folder: string, stopwatch: Stopwatch, count: number): Way[] {
  const image = images.pathOf('zlib')
  const output = join(folder, 'output.raw')
  const into = (title: string, ...words: string[]): { title: string; command: Command } => ({
    title,
    command: convertWith([...words, output], output),
  })
  const measure = ({ title, command }: { title: string; command: Command }): Way => {
    say(title)
    const samples: Sample[] = []
    try {
      for (let turn = 0; turn <= count; turn++) {
        const { sample } = stopwatch.run(command)
        rmSync(output, { force: true })
        if (turn > 0) {
          samples.push(sample)
        }
      }
    } catch (error) {
      return leftOut(title, reasonOf(error))
    }
    return { title, ours: seriesOf(samples) }
  }

  const fromFile = [
    into('file to file', image),
    { title: 'standard input to file', command: convertWith(['-', output], output, image) },
    into('file to file, --digest sha256', '--digest', 'sha256', image),
    into('file to file, --verify', '--verify', image),
    into('file to file, four threads, --digest sha256 --verify', '-j', '4', '--digest', 'sha256', '--verify', image),
    { title: 'Blob to file, digest and verify', command: convertInput('blob', image, output) },
    { title: "caller's source to file, digest and verify", command: convertInput('source', image, output) },
  ].map(measure)
  const fromServer = withServer(dirname(image), folder, (address) =>
    [
      into('web server to file', address('zlib.qcow2')),
      into('web server to file, --digest sha256 --verify', '--digest', 'sha256', '--verify', address('zlib.qcow2')),
      into('web server without ranges to file', address('whole/zlib.qcow2')),
    ].map(measure),
  )
  const toDevice = withDevice(scale.diskBytes, folder, (device) => [
    measure({ title: 'file to block device', command: convertWith(['--force', image, device]) }),
    measure({
      title: 'file to block device, --digest sha256 --verify',
      command: convertWith(['--force', '--digest', 'sha256', '--verify', image, device]),
    }),
  ])
  return [...fromFile, ...fromServer, ...toDevice]
}

/** One that has no figures does not keep the others from being measured. */
function leftOut(title: string, reason: string): Way {
  say(`LEFT OUT: ${title}: ${reason}`)
  return { title, reason }
}

/** @throws What is no error of the benchmark. */
function reasonOf(error: unknown): string {
  if (error instanceof BenchError) {
    return error.message
  }
  throw error
}

function withServer(root: string, folder: string, use: (address: (path: string) => string) => Way[]): Way[] {
  const missing = missingTools(['nginx'])
  if (missing !== undefined) {
    return [leftOut('web server', missing)]
  }
  const home = join(folder, 'nginx')
  mkdirSync(home, { recursive: true })
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `${name}_temp_path ${home}/${name};`,
  )
  const config = join(home, 'nginx.conf')
  writeFileSync(
    config,
    `daemon off; pid ${home}/pid; error_log ${home}/error.log;\n` +
      (process.getuid?.() === 0 ? 'user root;\n' : '') +
      `events {}\nhttp { access_log off; sendfile on; ${temporary.join(' ')}\n` +
      `server { listen 127.0.0.1:${PORT}; root ${root}; location /whole/ { alias ${root}/; max_ranges 0; } } }\n`,
  )
  const server = spawn('nginx', ['-e', join(home, 'error.log'), '-p', home, '-c', config], { stdio: 'ignore' })
  try {
    // Asked by another process, as this one waits for those that it measures.
    const asks = `for (let i = 0; ; i++) try { await fetch('${ORIGIN}'); break } catch (error) { if (i > 100) throw error; await new Promise((go) => setTimeout(go, 50)) }`
    call(process.execPath, ['--input-type=module', '-e', asks])
    return use((path) => `${ORIGIN}/${path}`)
  } catch (error) {
    return [leftOut('web server', reasonOf(error))]
  } finally {
    server.kill()
    rmSync(home, { recursive: true, force: true })
  }
}

function withDevice(bytes: number, folder: string, use: (device: string) => Way[]): Way[] {
  const missing = process.getuid?.() === 0 ? missingTools(['losetup']) : 'only root may make one'
  if (missing !== undefined) {
    return [leftOut('block device', missing)]
  }
  const path = join(folder, 'device')
  closeSync(openSync(path, 'w'))
  truncateSync(path, bytes)
  let device: string | undefined
  try {
    device = call('losetup', ['--find', '--show', path]).trim()
    return use(device)
  } catch (error) {
    return [leftOut('block device', reasonOf(error))]
  } finally {
    if (device !== undefined) {
      spawnSync('losetup', ['--detach', device])
    }
    rmSync(path, { force: true })
  }
}
