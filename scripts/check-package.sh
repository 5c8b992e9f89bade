#!/usr/bin/env bash
# Packs the package, looks at what is in it, installs the tarball into an empty folder as a user would, and uses all that it
# promises there: the commands, the import, the types under both ways of resolving modules.
set -euo pipefail

limit=500000 # bytes of all files, as npm counts them

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
unpacked=$(tar -xzOf "$tarball" | wc -c)
echo "$unpacked bytes unpacked"
((unpacked < limit)) || fail "the package has $unpacked bytes, allowed are less than $limit"

echo '== contents'
published='dist/command/([^/ ]+\.js|package\.json|THIRD-PARTY\.txt)|dist/package/index\.(js|d\.ts)'
grep -Ev "^package/(package\.json|README\.md|LICENSE|CHANGELOG\.md|SECURITY\.md|man/[^/ ]+\.1|$published)$" "$folder/list" &&
  fail 'files that nobody needs'
mapfile -t commands < <(node -p "Object.keys(require('$root/package.json').bin).join('\n')")
mapfile -t named < <(node -p "const { bin, man } = require('$root/package.json'); [...Object.values(bin), ...man].join('\n')")
for file in package.json README.md LICENSE CHANGELOG.md SECURITY.md dist/package/index.{js,d.ts} "${named[@]}" \
  dist/command/{library.js,worker.js,digest-worker.js,package.json,THIRD-PARTY.txt}; do
  grep -qx "package/$file" "$folder/list" || fail "$file is missing"
done
mkdir "$folder/unpacked"
tar -xzf "$tarball" -C "$folder/unpacked" --strip-components=1
cat >"$folder/contents.cjs" <<'EOF'
const { readFileSync } = require('node:fs')
const { join } = require('node:path')
const [folder, root] = process.argv.slice(2)
const ts = require(join(root, 'node_modules/typescript'))

const problems = []
const { bin, man, scripts = {} } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
for (const name of ['preinstall', 'install', 'postinstall', 'prepare']) {
  if (name in scripts) problems.push(`npm install would run our script ${name}`)
}
for (const name of Object.keys(bin)) {
  const page = `man/${name}.1`
  const isRight = man.includes(page) && readFileSync(join(folder, page), 'utf8').includes(`\n.Dt ${name.toUpperCase()} 1\n`)
  if (!isRight) problems.push(`${page} is no manual page, or package.json does not name it`)
}
const path = join(folder, 'dist/package/index.d.ts')
const file = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest)
const visit = (node) => {
  if (node.kind === ts.SyntaxKind.AnyKeyword) {
    problems.push(`index.d.ts, line ${file.getLineAndCharacterOfPosition(node.pos).line + 1}: any`)
  }
  ts.forEachChild(node, visit)
}
visit(file)
for (const problem of problems) console.log(problem)
process.exitCode = problems.length > 0 ? 1 : 0
EOF
node "$folder/contents.cjs" "$folder/unpacked" "$root" || fail 'see above'
for path in "$root/" "$(pwd -P)/" "$HOME/"; do
  [[ $path == // ]] && continue
  grep -rFl -- "$path" "$folder/unpacked" && fail "these files name $path, of this machine"
done

echo '== publint'
npx --no-install publint run --strict "$tarball"

echo '== attw'
# Whoever imports a module: Node and bundlers. The package is not for require().
npx --no-install attw --profile esm-only --no-definitely-typed --no-emoji "$tarball"

echo '== npm install'
mkdir "$folder/consumer"
cd "$folder/consumer"
echo '{ "name": "consumer", "private": true, "type": "module" }' >package.json
node_types=$(node -p "require('$root/node_modules/@types/node/package.json').version")
# What follows must work though nothing runs on installation; koffi alone would like to.
npm install --ignore-scripts --no-audit --no-fund --loglevel=error "$tarball"
npm ls --omit=dev --all
scripted=$(node -p "Object.entries(require('./node_modules/.package-lock.json').packages).filter(([, { hasInstallScript }]) => hasInstallScript).map(([path]) => path).join(' ')")
[[ -z $scripted || $scripted == node_modules/koffi ]] || fail "installing runs scripts of $scripted"

echo '== commands'
expected=$(node -p "require('$root/package.json').version")
for command in "${commands[@]}"; do
  version=$(npx --no-install "$command" --version)
  [[ $version == "$expected" ]] || fail "$command --version says $version, package.json $expected"
  npx --no-install "$command" --help
done
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

echo '== without optional dependencies'
npm install --prefix "$folder/frugal" --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error "$tarball"
[[ ! -e $folder/frugal/node_modules/koffi ]] || fail 'koffi is installed all the same'
"$folder/frugal/node_modules/.bin/qcow2-to-raw" zlib.qcow2 frugal.raw
cmp frugal.raw zlib.raw || fail 'another disk is written without koffi'
"$folder/frugal/node_modules/.bin/qcow2-to-raw" zlib.qcow2 | cmp - zlib.raw || fail 'another disk comes out of a pipe without koffi'

echo '== import'
cat >import.mjs <<'EOF'
import { createReadStream, Qcow2Image, convert } from 'qcow2'
import { createRequire } from 'node:module'

for (const value of [createReadStream, Qcow2Image, convert]) {
  if (typeof value !== 'function') throw new Error('an export is missing')
}
const { version } = createRequire(import.meta.url)('qcow2/package.json')
console.log(`imported qcow2 ${version}`)
let threads = 0
process.on('worker', () => threads++)
await convert('zstd.qcow2', 'imported.raw', { threads: 2, digest: 'sha256' })
if (threads !== 3) throw new Error(`${threads} threads were started, not 2 and one for the digest`)
await import('qcow2/dist/package/index.js').then(
  () => Promise.reject(new Error('inner files can be imported')),
  (error) => {
    if (error.code !== 'ERR_PACKAGE_PATH_NOT_EXPORTED') throw error
  },
)
EOF
node import.mjs
cmp imported.raw zstd.raw || fail 'the library converts to another disk'

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
compile node16 node16
compile esnext bundler

echo 'The package is fine.'
