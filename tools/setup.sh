#!/bin/sh
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# Called by ./doit when something is missing: host packages (installed when we are root on a system with apt,
# named otherwise) and the Python environment. Argument: the checkout.
set -eu

here=$1
venv=$here/.venv
lock=$here/requirements.lock

say() { echo "doit: $*" >&2; }

# Host packages: Python with venv, bubblewrap for the sandbox, libarchive for libarchive-c, CA certificates
# for pip. Everything else that a build uses comes from recipes/toolchain.lock.
missing=
python=
for name in python3 python3.13 python3.12 python3.11; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$name
        break
    fi
done
[ -n "$python" ] || missing="$missing python3"
if [ -z "$python" ] || ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then missing="$missing python3-venv"; fi
if [ -z "$python" ] || ! "$python" -c 'import ctypes.util, sys; sys.exit(not ctypes.util.find_library("archive"))' 2>/dev/null; then
    # Debian 13 renamed the package for 64-bit time_t.
    if apt-cache show libarchive13t64 >/dev/null 2>&1; then missing="$missing libarchive13t64"; else missing="$missing libarchive13"; fi
fi
command -v bwrap >/dev/null || missing="$missing bubblewrap"
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing host packages:$missing"
        log=$(mktemp)
        # shellcheck disable=SC2086 # a list of words
        if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1; then
            tail -n 5 "$log" >&2
            say "apt-get failed; whole log: $log"
            exit 1
        fi
        rm -f "$log"
        python=${python:-python3}
    else
        say "host packages are missing; run: sudo apt-get install$missing"
        exit 2
    fi
fi

# Built beside the final name's place and stamped last: an interrupted set-up is started over.
say "making .venv from requirements.lock"
rm -rf "$venv"
"$python" -m venv "$venv"
log=$venv/setup.log
if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --only-binary :all: --require-hashes -r "$lock" >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -f "$venv/bin/doit"
    say "pip failed; whole log: $log"
    exit 1
fi
cp "$lock" "$venv/requirements.lock"
