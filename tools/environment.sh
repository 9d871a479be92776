# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# For ./doit and tools/setup.sh, which set $here, the checkout: does its .venv fit, and into its Python.

# shellcheck disable=SC2154 # see above
venv=$here/.venv

# .venv/stamp is written last when .venv is made. It has two lines: the checkout that the programs in .venv/bin name,
# and the Python whose version the packages are for. No program but cmp is started: this runs at every ./doit.
fits() {
    [ -e "$venv/stamp" ] || return 1
    { IFS= read -r place && IFS= read -r python; } <"$venv/stamp" || return 1
    # shellcheck disable=SC3013 # dash, bash and busybox know -ef
    [ "$place" = "$here" ] && [ -x "$venv/bin/python" ] && [ "$venv/bin/python" -ef "$python" ] &&
        cmp -s "$here/requirements.lock" "$venv/requirements.lock"
}

# Does it have what speaks to a Remote Execution API service (gRPC), if such a one is named? Nobody else needs that.
service_fits() {
    case ${SEV_ARTIFACTS_REMOTE:-} in
    grpc://* | grpcs://*) cmp -s "$here/requirements-remote.lock" "$venv/requirements-remote.lock" ;;
    esac
}

# enter ARGS: Python in this shell's place.
enter() {
    # -I: no PYTHON* variable and no package of the user's has a say. -S: see start.py.
    set -- "$venv/bin/python" -IS "$here/tools/pipeline/front/start.py" "$@"
    # While Python itself starts, Ctrl-C would print where in its own modules it was. Where env can block it, it waits
    # until start.py lets it through; that takes 3 ms.
    if env --block-signal=INT true 2>/dev/null; then set -- env --block-signal=INT "$@"; fi
    exec "$@"
}
