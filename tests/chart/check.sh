#!/usr/bin/env bash
# Checks charts/, Dockerfile and compose.yaml with tools from the package registries (tools.sh): see check.py. Needs target/debug/jobgate, or
# another one named in the variable JOBGATE. It fails on any finding.
set -euo pipefail
cd "$(dirname "$0")/../.."
bash tests/chart/tools.sh
exec target/tools/py/bin/python tests/chart/check.py
