# The image of jobgate: built with the toolchain of rust-toolchain.toml, run without a shell as user 65532.
#
#   docker build -t jobgate --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" \
#     --build-arg CREATED="$(git log -1 --format=%cI)" .
#
# Works with docker and with `buildah bud --format docker` (the plain OCI format has no HEALTHCHECK). Nothing in it names an
# architecture: --platform linux/amd64,linux/arm64 builds each on, or as, its own.

# rust-toolchain.toml names the toolchain; tests/chart/check.sh fails where this differs, and so does the build.
ARG RUST_VERSION=1.95.0
ARG DEBIAN=bookworm
ARG NODE_VERSION=22.20.0

FROM docker.io/library/rust:${RUST_VERSION}-slim-${DEBIAN} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG RUST_VERSION
WORKDIR /build
# Not in the folder itself, where it would make rustup look for clippy and rustfmt.
COPY rust-toolchain.toml /tmp/
RUN grep -qx "channel = \"${RUST_VERSION}\"" /tmp/rust-toolchain.toml

# The dependencies first, with empty sources in the place of ours: a layer that only Cargo.toml and Cargo.lock change. Tests and
# benchmarks stay empty, since Cargo.toml names them.
COPY Cargo.toml Cargo.lock ./
COPY crates/client/Cargo.toml crates/client/
COPY crates/simulator/Cargo.toml crates/simulator/
RUN sed -n 's|^path = "\(.*\.rs\)"|\1|p' Cargo.toml | while read -r file; do mkdir -p "${file%/*}" && echo 'fn main() {}' > "$file"; done \
 && for crate in . crates/*; do mkdir -p "$crate/src" && : > "$crate/src/lib.rs"; done \
 && cargo build --release --locked --bin jobgate \
 && rm -rf src crates/*/src

# Then jobgate itself. What was copied is older than the empty build, and cargo goes by the time. On amd64 packed relocations save
# 0.7 MB of the file and of each process. They need glibc 2.36, which the image has; another linker ignores the option.
COPY src src
COPY crates crates
COPY config config
RUN find src crates config -type f -exec touch {} + \
 && cargo rustc --release --locked --bin jobgate -- -C link-arg=-Wl,-z,pack-relative-relocs \
 && strip --strip-debug target/release/jobgate

# GraphiQL, from the npm package by its lock file. The binary reads it beside its folder.
FROM docker.io/library/node:${NODE_VERSION}-${DEBIAN}-slim AS graphiql
WORKDIR /build
COPY graphiql/package.json graphiql/package-lock.json ./
RUN npm ci --no-fund --no-audit --ignore-scripts
COPY graphiql ./
RUN node build.mjs /graphiql

# What the binary needs to run, and no more: its libraries, its user, the names of well-known services, certificates of authorities.
# The record of the Debian packages it comes from stays, so that scanners see them.
FROM docker.io/library/debian:${DEBIAN}-slim AS root
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libgcc-s1 \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /image
COPY --from=build /build/target/release/jobgate usr/bin/jobgate
COPY --from=graphiql /graphiql usr/share/jobgate/graphiql
RUN ldd usr/bin/jobgate | grep -o '/[^ ]*' | sort -u | while read -r library; do cp -L --parents "$library" .; done \
 && mkdir -p etc/ssl/certs etc/jobgate var/lib/dpkg/status.d \
 && cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/ \
 && cp /etc/os-release /etc/nsswitch.conf etc/ \
 && for package in base-files ca-certificates libc6 libgcc-s1; do dpkg -s "$package" > "var/lib/dpkg/status.d/$package"; done \
 && echo 'jobgate:x:65532:65532::/:/sbin/nologin' > etc/passwd \
 && echo 'jobgate:x:65532:' > etc/group \
 && install -d -m 0700 /data/jobgate \
 && usr/bin/jobgate --version

FROM scratch
ARG VERSION=0.0.0-unversioned
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="jobgate" \
      org.opencontainers.image.description="One GraphQL gateway in front of job-status APIs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=root /image /
COPY --from=root --chown=65532:65532 /data /var/lib
COPY LICENSE /usr/share/doc/jobgate/LICENSE
USER 65532:65532
# The embedded store's default path, ./data, is then /var/lib/jobgate/data: the one folder that is written to.
WORKDIR /var/lib/jobgate
EXPOSE 8080 9090
# The default of server.admin_listen, or any that holds it (0.0.0.0:9090); Kubernetes asks by its own probes.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["/usr/bin/jobgate", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/jobgate"]
CMD ["serve", "--config", "/etc/jobgate/jobgate.yaml"]
