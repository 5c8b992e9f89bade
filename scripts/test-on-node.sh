#!/usr/bin/env bash
# Runs the compiled tests on another Node: scripts/test-on-node.sh 22 [tap arguments]
# The binary is the one that the npm package `node` installs; no install script has to run for it.
set -euo pipefail

version=${1:?usage: scripts/test-on-node.sh VERSION [tap arguments]}
shift
cd "$(dirname "$0")/.."
[[ -d dist/test ]] || npm run build

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
package=node-$(node -p 'process.platform + "-" + process.arch')
npm install --prefix "$folder" --no-save --no-package-lock --ignore-scripts --no-audit --no-fund "$package@$version"

PATH=$folder/node_modules/$package/bin:$PATH
echo "Testing on Node $(node --version)"
node_modules/.bin/tap --disable-coverage --allow-empty-coverage "$@"
