#!/bin/sh
# The promises about replicas at full size: 500 jobs watched on each of three replicas, 300 sudden deaths, and a Redis that
# hangs for a minute under load. Prints counts, and what none in so many tries leaves open. Takes some ten minutes, and
# needs redis-server.
set -eu
cd "$(dirname "$0")/../.."
export JOBGATE_LOAD_JOBS="${JOBGATE_LOAD_JOBS:-500}"
export JOBGATE_LOAD_KILLS="${JOBGATE_LOAD_KILLS:-300}"
export JOBGATE_LOAD_STOP_SECONDS="${JOBGATE_LOAD_STOP_SECONDS:-60}"
cargo test --locked --test it -- --nocapture --test-threads=1 redis_replicas:: redis_outage:: redis_tier::
