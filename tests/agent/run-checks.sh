#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The sev-artifacts authors
#
# The agent's own checks, inside the sandbox: crate at /src (read-only), scratch at /build. Format, lints, tests.
set -eu

export CARGO_HOME=/build/cargo-home CARGO_TARGET_DIR=/build/target CARGO_INCREMENTAL=0
cd /build
mkdir -p "$CARGO_HOME"
cp /src/cargo-config.toml "$CARGO_HOME/config.toml"

MANIFEST=/src/Cargo.toml
cargo fmt --manifest-path "$MANIFEST" --check
cargo clippy --manifest-path "$MANIFEST" --locked --frozen --offline --all-targets -- -D warnings
cargo test --manifest-path "$MANIFEST" --locked --frozen --offline
