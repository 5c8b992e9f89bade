#!/usr/bin/env bash
# Packs the package, installs the tarball into an empty folder as a user would, and uses all that it promises there:
# the command, the import, the types under both ways of resolving modules.
set -euo pipefail

cd "$(dirname "$0")/.."
root=$PWD
# The image that the README's first command converts.
image=$root/$(node scripts/readme-command.js 1 | { grep -o "[^ ]*\.qcow2" || true; } | head -n 1)
[[ -f $image ]] || { echo "No sample image: $image"; exit 1; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
  echo "FAILED: $*"
  exit 1
}

echo '== npm pack'
npm pack --pack-destination "$folder" --loglevel=error
tarball=$(echo "$folder"/*.tgz)
tar -tzf "$tarball" | sort >"$folder/list"
cat "$folder/list"
ls -l "$tarball" | awk '{ print $5 " bytes packed" }'
tar -xzOf "$tarball" | wc -c | awk '{ print $1 " bytes unpacked" }'

echo '== contents'
command='dist/command/([^/ ]+\.js|package\.json|THIRD-PARTY\.txt)'
grep -Ev "^package/(package\.json|README\.md|LICENSE|CHANGELOG\.md|SECURITY\.md|man/[^/ ]+\.1|dist/lib/[^ ]+\.(js|js\.map|d\.ts)|$command)$" "$folder/list" &&
  fail 'files that nobody needs'
for file in package.json README.md LICENSE CHANGELOG.md SECURITY.md dist/lib/index.js dist/lib/index.d.ts \
  man/qcow2-to-raw.1 dist/command/{qcow2-to-raw.js,worker.js,digest-worker.js,package.json,THIRD-PARTY.txt}; do
  grep -qx "package/$file" "$folder/list" || fail "$file is missing"
done
mkdir "$folder/unpacked"
tar -xzf "$tarball" -C "$folder/unpacked" --strip-components=1
cat >"$folder/contents.mjs" <<'EOF'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

const folder = process.argv[2]
const problems = []
const { scripts = {} } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
for (const name of ['preinstall', 'install', 'postinstall', 'prepare']) {
  if (name in scripts) problems.push(`npm install would run our script ${name}`)
}
for (const name of readdirSync(join(folder, 'dist'), { recursive: true })) {
  if (!name.endsWith('.map')) continue
  const { sources, sourcesContent } = JSON.parse(readFileSync(join(folder, 'dist', name), 'utf8'))
  if (sources.some((_, index) => typeof sourcesContent?.[index] !== 'string')) problems.push(`${name} lacks its source`)
}
for (const problem of problems) console.log(problem)
process.exitCode = problems.length > 0 ? 1 : 0
EOF
node "$folder/contents.mjs" "$folder/unpacked" || fail 'see above'

echo '== npm install'
mkdir "$folder/consumer"
cd "$folder/consumer"
echo '{ "name": "consumer", "private": true, "type": "module" }' >package.json
node_types=$(node -p "require('$root/node_modules/@types/node/package.json').version")
npm install --no-audit --no-fund --loglevel=error "$tarball"
npm ls --omit=dev --all

echo '== command'
version=$(npx --no-install qcow2-to-raw --version)
expected=$(node -p "require('$root/package.json').version")
[[ $version == "$expected" ]] || fail "--version says $version, package.json $expected"
npx --no-install qcow2-to-raw --help
npx --no-install qcow2-to-raw "$image" disk.raw
[[ -s disk.raw ]] || fail 'disk.raw is missing or empty'
if command -v qemu-img >/dev/null; then qemu-img compare -f qcow2 -F raw "$image" disk.raw; fi
npx --no-install qcow2-to-raw "$image" | cmp - disk.raw || fail 'another disk comes out of a pipe'

echo '== command with threads'
cat >images.mjs <<EOF
import { writeFileSync } from 'node:fs'
import { compressedDisk } from '$root/dist/test/fixtures/thread-worthy.js'

for (const compression of ['zlib', 'zstd']) {
  const { bytes, guest } = compressedDisk(compression)
  writeFileSync(\`\${compression}.qcow2\`, bytes)
  writeFileSync(\`\${compression}.raw\`, guest)
}
EOF
node images.mjs
cat >count-threads.cjs <<'EOF'
if (require('node:worker_threads').isMainThread) {
  let count = 0
  process.on('worker', () => count++)
  process.on('exit', () => require('node:fs').writeFileSync('threads', String(count)))
}
EOF
for compression in zlib zstd; do
  NODE_OPTIONS="--require $PWD/count-threads.cjs" node node_modules/.bin/qcow2-to-raw --threads 2 $compression.qcow2 threaded.raw
  [[ $(cat threads) == 2 ]] || fail "$(cat threads) threads were started for $compression.qcow2, not 2"
  cmp threaded.raw $compression.raw || fail "$compression.qcow2 is decoded to another disk"
  rm threaded.raw
done

echo '== import'
cat >import.mjs <<'EOF'
import { createReadStream, Qcow2Image, convert } from 'qcow2'
import { createRequire } from 'node:module'

for (const value of [createReadStream, Qcow2Image, convert]) {
  if (typeof value !== 'function') throw new Error('an export is missing')
}
const { version } = createRequire(import.meta.url)('qcow2/package.json')
console.log(`imported qcow2 ${version}`)
await import('qcow2/dist/lib/index.js').then(
  () => Promise.reject(new Error('inner files can be imported')),
  (error) => {
    if (error.code !== 'ERR_PACKAGE_PATH_NOT_EXPORTED') throw error
  },
)
EOF
node import.mjs

echo '== types'
npm install --no-audit --no-fund --loglevel=error --save-dev "@types/node@$node_types"
cat >consumer.ts <<'EOF'
import { createReadStream, Qcow2Image, convert } from 'qcow2'
import type { Readable } from 'node:stream'

export const functions = { createReadStream, convert }
export type Stream = Awaited<ReturnType<typeof createReadStream>>
export const pipe = (stream: Stream): Readable => stream
export type Image = Qcow2Image
// @ts-expect-error If this is no error, the types have fallen back to any.
export const wrong: number = Qcow2Image
EOF
compile() {
  echo "module $1, moduleResolution $2"
  node "$root/node_modules/typescript/bin/tsc" --noEmit --strict --target es2022 --lib es2023 --types node \
    --skipLibCheck false --module "$1" --moduleResolution "$2" consumer.ts
}
compile nodenext nodenext
compile esnext bundler

echo 'The package is fine.'
