#!/usr/bin/env bash
# Builds the image from the Dockerfile as it is, and has check.sh run it as the chart would. By hand, as root, on Debian: it takes a release
# build, which is too long for tests/all.sh. No registry of images is reached: the three base images are made here under the names
# that the Dockerfile gives them, Debian's by mmdebstrap, Rust's of it and of this machine's toolchain, and Node's of it and of Debian's
# packages. Crates come from this machine's cargo home. Everything lies in target/image; what is there is used again.
set -euo pipefail
cd "$(dirname "$0")/../.."
work="$PWD/target/image"
mkdir -p "$work"
# shellcheck source=tests/image/tools.sh
. tests/image/tools.sh

say() { printf '\n== %s\n' "$*"; }

say "tools"
missing=()
for tool in buildah podman runc mmdebstrap; do command -v "$tool" >/dev/null || missing+=("$tool"); done
[ "${#missing[@]}" = 0 ] || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; }

rust="$(sed -n 's/^ARG RUST_VERSION=//p' Dockerfile)"
debian="$(sed -n 's/^ARG DEBIAN=//p' Dockerfile)"
debian_image="docker.io/library/debian:$debian-slim"
rust_image="docker.io/library/rust:$rust-slim-$debian"

if ! buildah inspect --type image "$debian_image" >/dev/null 2>&1; then
  say "$debian_image"
  mmdebstrap --quiet --variant=minbase "$debian" "$work/debian.tar"
  made="$(buildah from scratch)"
  buildah add --quiet "$made" "$work/debian.tar" /
  buildah commit --quiet --format docker "$made" "$debian_image"
  buildah rm "$made" >/dev/null
  rm "$work/debian.tar"
fi

if ! buildah inspect --type image "$rust_image" >/dev/null 2>&1; then
  say "$rust_image"
  made="$(buildah from --pull-never "$debian_image")"
  buildah run "${network[@]}" "$made" -- sh -c \
    'apt-get update -qq && apt-get install -y -qq --no-install-recommends ca-certificates gcc libc6-dev >/dev/null && rm -rf /var/lib/apt/lists/*'
  sysroot="$(realpath "$(rustc "+$rust" --print sysroot)")"
  for part in bin lib; do buildah copy --quiet "$made" "$sysroot/$part" "/usr/local/$part"; done
  buildah config --env CARGO_HOME=/usr/local/cargo "$made"
  buildah commit --quiet --format docker "$made" "$rust_image"
  buildah rm "$made" >/dev/null
fi

node_image="docker.io/library/node:$(sed -n 's/^ARG NODE_VERSION=//p' Dockerfile)-$debian-slim"
if ! buildah inspect --type image "$node_image" >/dev/null 2>&1; then
  say "$node_image"
  made="$(buildah from --pull-never "$debian_image")"
  buildah run "${network[@]}" "$made" -- sh -c \
    'apt-get update -qq && apt-get install -y -qq --no-install-recommends ca-certificates nodejs npm >/dev/null && rm -rf /var/lib/apt/lists/*'
  # npm trusts the authorities of this machine, whose network may have one of its own
  buildah copy --quiet "$made" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/machine.crt
  buildah config --env NODE_EXTRA_CA_CERTS=/etc/ssl/certs/machine.crt "$made"
  buildah commit --quiet --format docker "$made" "$node_image"
  buildah rm "$made" >/dev/null
fi

say "image"
# what is committed, so that nothing moves under a build that takes long
rm -rf "$work/context" && mkdir "$work/context"
git archive HEAD | tar -x -C "$work/context"
cargo fetch --locked --quiet
registry="$(realpath "${CARGO_HOME:-$HOME/.cargo}/registry")"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)"
nice -n 10 buildah bud "${network[@]}" --format docker --layers --pull-never --volume "$registry:/usr/local/cargo/registry:ro" \
  --build-arg VERSION="$version" --build-arg REVISION="$(git rev-parse HEAD)" --build-arg CREATED="$(git log -1 --format=%cI)" \
  --tag jobgate:check "$work/context"

bash tests/image/check.sh
