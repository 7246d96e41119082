#!/usr/bin/env bash
# Builds the explorer at /graphiql from the npm package of the same name. It needs Node.js 20 and npm, and no Rust.
#
#   bash graphiql/build.sh             for the binaries that cargo builds: target/share/jobgate/graphiql
#   bash graphiql/build.sh FOLDER      elsewhere: share/jobgate/graphiql beside the folder (bin) of the binary
#
# The gateway reads the files when it starts.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
folder="${1:-${CARGO_TARGET_DIR:-$here/../target}/share/jobgate/graphiql}"
mkdir -p "$(dirname "$folder")"
folder="$(cd "$(dirname "$folder")" && pwd)/$(basename "$folder")"
cd "$here"
npm ci --no-fund --no-audit --silent --ignore-scripts
node build.mjs "$folder"
