#!/bin/sh
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# setup.sh CHECKOUT run ARGS: called by ./doit when something is missing: host packages (installed when we are root on
# a system with apt, named otherwise) and .venv with what a build needs, with gRPC (requirements-remote.lock) where
# SEV_ARTIFACTS_REMOTE names a service; then goes on with ./doit ARGS.
# setup.sh CHECKOUT dev: adds what tests need (requirements-dev.lock) to .venv.
set -eu

# What is opened below must not become standard input, output or error.
true <&0 || exec </dev/null
true >&1 || exec >/dev/null
true >&2 || exec 2>/dev/null
umask 022
# As -I does for ./doit itself: with a PYTHONHOME no Python that is here seems good enough.
unset PYTHONHOME PYTHONPATH PYTHONPLATLIBDIR PYTHONSTARTUP PYTHONSAFEPATH PYTHONUSERBASE PYTHONINSPECT PYTHONOPTIMIZE
here=$1
what=$2
shift 2
. "$here/tools/environment.sh"

say() { echo "doit: $*" >&2; }

# fail STATUS TEXT: the one line of an error.
fail() {
    say "error: $2"
    exit "$1"
}

# quietly TEXT COMMAND…: its output goes to the log; if it fails, its last error is put on one line behind TEXT.
quietly() {
    text=$1
    shift
    if "$@" >>"$log" 2>&1; then return 0; fi
    # pip follows its error with general advice. A URL may hold a password.
    reason=$(grep -iE '^(error|E):' "$log" | tail -n 1 || true)
    [ -n "$reason" ] || reason=$(tail -n 1 "$log")
    reason=$(printf '%s' "$reason" | sed 's#://[^/@ ]*@#://***@#g' | cut -c 1-300)
    fail 1 "$text: ${reason:-no message}; whole log: $log"
}

# Host packages: Python with venv, bubblewrap for the sandbox, libarchive for libarchive-c, CA certificates for pip.
# Everything else that a build uses comes from recipes/toolchain.lock.
host_packages() {
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
    [ -n "$missing" ] || return 0

    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail 2 "host packages are missing; run: sudo apt-get install$missing"
    fi
    say "installing host packages:$missing"
    log=$(mktemp)
    quietly "apt-get update failed" apt-get update -q
    # shellcheck disable=SC2086 # a list of words
    quietly "apt-get install failed" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
    rm -f "$log"
    python=${python:-python3}
}

# The lock of a second ./doit that comes while this one works: it waits, and finds the work done.
wait_for_others() {
    # Made for us alone: whoever can open it can hold its lock.
    { (umask 077 && : >>"$here/.venv.lock") && exec 9<"$here/.venv.lock"; } 2>/dev/null ||
        fail 2 "$here/.venv.lock cannot be written; work in a checkout that you can write to"
    if ! flock -n 9; then
        say "waiting for another ./doit that sets up .venv"
        flock 9
    fi
}

# The locks name everything: nothing else is installed because a package asks for it.
pip() {
    quietly "pip cannot install the Python packages" "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --no-input --no-deps --only-binary :all: --require-hashes "$@"
}

# extra NAME: adds requirements-NAME.lock to .venv.
extra() {
    say "adding requirements-$1.lock to .venv"
    log=$venv/setup-$1.log
    : >"$log"
    pip -r "$here/requirements.lock" -r "$here/requirements-$1.lock"
    cp "$here/requirements-$1.lock" "$venv/requirements-$1.lock"
}

environment() {
    say "making .venv from requirements.lock"
    # Stamped last: what is interrupted is started over.
    { mkdir -p "$venv" && [ -w "$venv" ] && rm -rf "$venv" && mkdir "$venv"; } 2>/dev/null ||
        fail 2 "$venv cannot be written; work in a checkout that you can write to"
    log=$venv/setup.log
    quietly "python cannot make a virtual environment" "$python" -m venv "$venv"
    pip -r "$here/requirements.lock"
    cp "$here/requirements.lock" "$venv/requirements.lock"
    {
        printf '%s\n' "$here"
        "$venv/bin/python" -c 'import os, sys; print(os.path.realpath(sys.executable))'
    } >"$venv/stamp.new"
    mv "$venv/stamp.new" "$venv/stamp"
}

interrupted() {
    trap - "$1"
    say "interrupted; the next run starts the set-up over"
    kill -s "$1" $$
    exit 130
}
for signal in INT TERM HUP; do
    # shellcheck disable=SC2064 # the signal's name as it is now
    trap "interrupted $signal" "$signal"
done

case $what in
run)
    host_packages
    wait_for_others
    if [ "${SEV_ARTIFACTS_ENVIRONMENT:-}" = again ] || ! fits; then environment; fi
    service_fits || extra remote
    exec 9<&-
    export SEV_ARTIFACTS_ENVIRONMENT="${SEV_ARTIFACTS_ENVIRONMENT:+made}"
    enter "$@"
    ;;
dev)
    host_packages
    wait_for_others
    if ! fits; then environment; fi
    cmp -s "$here/requirements-dev.lock" "$venv/requirements-dev.lock" && exit 0
    extra dev
    ;;
esac
