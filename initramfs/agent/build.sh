#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The sev-artifacts authors
#
# Builds the agent inside the sandbox: crate at /src (read-only), scratch at /build, result at /out/agent.
# Usage: build.sh [JOBS]
set -eu

export CARGO_HOME=/build/cargo-home CARGO_TARGET_DIR=/build/target CARGO_INCREMENTAL=0
# +crt-static: no loader and no libraries in the initramfs. relocation-model stays the default (static-pie): ASLR for PID 1.
# The remaps keep panic locations free of build paths even if one of the constant paths ever changes.
export RUSTFLAGS="-Ctarget-feature=+crt-static -Clink-arg=-Wl,--build-id=none \
--remap-path-prefix=/src=/agent --remap-path-prefix=/usr/share/cargo/registry=/crates --remap-path-prefix=/build=/build"

# Cargo reads .cargo/config.toml of the working directory and its parents: run where there is none.
cd /build
mkdir -p "$CARGO_HOME"
cp /src/cargo-config.toml "$CARGO_HOME/config.toml"
cargo build --manifest-path /src/Cargo.toml --release --locked --frozen --offline --jobs "${1:-1}"

cp target/release/agent /out/agent.partial
chmod 0755 /out/agent.partial
mv /out/agent.partial /out/agent
