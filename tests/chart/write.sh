#!/usr/bin/env bash
# Writes what is made of other files: the chart's README and values.schema.json, and the snapshots. Needs jobgate like check.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
bash tests/chart/tools.sh
exec target/tools/py/bin/python tests/chart/check.py --write
