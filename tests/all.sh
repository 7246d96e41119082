#!/usr/bin/env bash
# Installs what the tests need and runs them all: formatting, lints with warnings as errors, licences, every Rust test with
# the independent clients that they start, and the chart. Needs rustup's cargo and, where Node.js, Python, Chromium, Redis, nginx, haproxy, promtool, kill, prlimit or openssl is missing, apt-get as root.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0

say() { printf '\n== %s\n' "$*"; }

if ! command -v cargo >/dev/null; then
  echo "cargo is missing: install Rust with rustup, then run this again" >&2
  exit 1
fi
if ! cargo clippy --version >/dev/null 2>&1 || ! cargo fmt --version >/dev/null 2>&1; then
  rustup component add clippy rustfmt
fi
if ! command -v npm >/dev/null; then
  say "installing Node.js"
  apt-get update -qq && apt-get install -y -qq nodejs npm
fi

if [ ! -x /usr/bin/chromium ]; then
  say "installing Chromium"
  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium
fi

if ! command -v redis-server >/dev/null; then
  say "installing Redis"
  apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server
fi

if ! command -v promtool >/dev/null; then
  say "installing Prometheus' tools"
  apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus
fi

if [ ! -x /usr/sbin/nginx ] || [ ! -x /usr/sbin/haproxy ]; then
  say "installing the proxies"
  apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light haproxy
fi

# the programs that tests start by name; the shell has a kill of its own
if ! type -P kill >/dev/null || ! type -P prlimit >/dev/null || ! type -P openssl >/dev/null; then
  say "installing what the tests start"
  apt-get update -qq && apt-get install -y -qq --no-install-recommends procps util-linux openssl
fi

say "clients"
(cd tests/clients && npm ci --no-fund --no-audit --silent)
if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
  apt-get update -qq && apt-get install -y -qq python3-venv
fi
[ -x target/tools/clients/bin/python ] || python3 -m venv target/tools/clients
target/tools/clients/bin/pip install --quiet --disable-pip-version-check --no-compile -r tests/clients/requirements.txt

say "format"
cargo fmt --check

say "lints"
cargo clippy --locked --all-targets -- -D warnings

say "what may come into the tree"
tools="$PWD/target/tools"
export PATH="$tools/bin:$PATH"
if ! command -v cargo-deny >/dev/null; then
  cargo install cargo-deny --version 0.20.2 --locked --debug --no-default-features --root "$tools" --quiet
fi
# advisories need a database that not every machine reaches
cargo deny --log-level error check --hide-inclusion-graph bans licenses sources

say "tests"
# the same cases in each run of a commit; `cargo test` by itself tries others each time
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-2026}"
RUSTFLAGS="${RUSTFLAGS:-}" cargo test --locked

say "chart"
bash tests/chart/check.sh
