#!/usr/bin/env bash
# Coverage-guided fuzzing of a target in fuzz/targets, with Jazzer.js (libFuzzer): npm run fuzz:guided -- TARGET [SECONDS]
# What it finds is kept in the folder that it prints. The fuzzer is installed there too, as nothing else needs it; it is
# built for a C library of 2.38 and later (Debian 13, Ubuntu 24.04). QCOW2_FUZZ_NODE names another way to start Node.
set -euo pipefail

cd "$(dirname "$0")/.."
target=${1:?a target is needed: $(cd fuzz/targets && echo *.ts | sed 's/\.ts//g')}
seconds=${2:-60}
folder=${TMPDIR:-/tmp}/qcow2-guided
mkdir -p "$folder"
echo "working in $folder"

npm install --prefix "$folder" --no-save --no-audit --no-fund --loglevel=error '@jazzer.js/core@^4.0.0' >/dev/null
node dist/fuzz/corpus.js "$target" "$folder/corpus-$target"
# Relative to the folder, as it names modules by their place; the package's own are instrumented, nothing else.
read -ra node <<<"${QCOW2_FUZZ_NODE:-node}"
root=$PWD
cd "$folder"
exec "${node[@]}" node_modules/@jazzer.js/core/dist/cli.js "$root/dist/fuzz/targets/$target.js" "corpus-$target" \
  --includes "$root/dist/lib" -- "-max_total_time=$seconds" -max_len=131072 -use_value_profile=1 -rss_limit_mb=2048 -timeout=20
