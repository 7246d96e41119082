# Daily commands; `just --list` shows them. Each runs without just as well.

# Start the gateway with simulated vendors.
demo *args:
    cargo run -- demo {{args}}

# Watch jobs in the terminal.
watch *refs:
    cargo run -- job watch {{refs}}

# Build GraphiQL for /graphiql; it needs Node.js and npm.
graphiql:
    bash graphiql/build.sh

# Format the code.
fmt:
    cargo fmt --all

# Run the lints.
lint:
    bash tests/all.sh --only lint

# Run the unit tests, or those of a module.
unit filter="":
    cargo test --locked --lib {{filter}}

# Run the integration tests, or those of a file: just it lookup::
it filter="":
    cargo test --locked --test it {{filter}}

# Check the chart, the image file and the compose file.
chart:
    cargo build --locked
    bash tests/chart/check.sh

# Write the generated files: schema, types of the client kits, telemetry tables, chart README, chart snapshots.
generate:
    cargo run -- schema > schema/schema.graphql
    node clients/generate.mjs
    JOBGATE_WRITE_DOCS=1 cargo test --locked --test it generated_docs::
    bash tests/chart/write.sh

# List what the tests need and what is missing.
missing:
    bash tests/all.sh --check

# Run everything that a change must pass.
all:
    bash tests/all.sh
